"""launch/slurm.sh and its job: one process a GPU, and into the queue again until finished."""

import getpass
import os
import pathlib
import signal

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
TRAIN = ["jaxcoder", "train", "--config.train.total='5 epochs'", "--workdir=/runs/x"]
TRAIN += ["--distributed"]


def test_submits_one_process_a_gpu(machine):
    machine.stand_in("sbatch")
    options = ["--nodes=4", "--gpus=8", "--workdir=/runs/x", "--partition=gpu"]
    assert machine.run("slurm.sh", "start", "icd", *options, "--", *TRAIN).returncode == 0
    assert machine.calls() == [
        ["sbatch", "--job-name=icd", "--output=icd.log", "--nodes=4", "--ntasks-per-node=8"]
        + ["--gpus-per-node=8", "--partition=gpu", str(LAUNCH / "slurm.sbatch"), str(LAUNCH)]
        + ["/runs/x", *TRAIN]
    ]


def test_gpus_may_have_a_type(machine):
    machine.stand_in("sbatch")
    options = ["--gpus=a100:4", "--gres=gpumem:24g", "--workdir=~/runs/x"]
    words = ["jaxcoder", "train", "--workdir=~/runs/x", "--distributed"]
    assert machine.run("slurm.sh", "start", "icd", *options, "--", *words).returncode == 0
    (call,) = machine.calls()
    assert {"--ntasks-per-node=4", "--gpus-per-node=a100:4", "--gres=gpumem:24g"} <= set(call)
    assert call[-5] == str(pathlib.Path.home() / "runs" / "x")  # the job's supervisor knows no ~


def test_refuses_a_command_that_would_not_be_one_run(machine):
    machine.stand_in("sbatch")

    def start(*options):
        words = ["jaxcoder", "train", "--workdir", "/runs/x"]
        return machine.run("slurm.sh", "start", "icd", *options, "--", *words)

    assert "runs/x: expected the same" in start("--workdir=/runs/y").stderr
    assert "needs --distributed" in start("--workdir=/runs/x", "--gpus=8").stderr
    assert machine.calls() == []
    assert start("--workdir=/runs/x").returncode == 0, "one process needs nobody"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--gpus-per-node=8", "--nodes, --gpus, --log and NAME decide it"),
        ("--gpus=all", "expected such as 8 or a100:8"),
        ("--gpus=a100:4,v100:2", "expected such as 8 or a100:8"),
        ("--gpus=:4", "expected such as 8 or a100:8"),
        ("--gres=gpu:8", "decide it"),
        ("--gres=lscratch:10,gpu:8", "decide it"),
        ("--signal=TERM@300", "slurm.sbatch decides it"),
        ("--gpus", "options are written --name=value"),
    ],
)
def test_refuses_what_would_be_another_job(machine, option, message):
    machine.stand_in("sbatch")
    result = machine.run("slurm.sh", "start", "icd", "--workdir=/runs/x", option, "--", *TRAIN)
    assert (result.returncode, machine.calls()) == (2, [])
    assert message in result.stderr


def test_status_and_stop_name_one_job_of_this_user(machine):
    machine.stand_in("squeue")
    machine.stand_in("scancel")
    machine.run("slurm.sh", "status", "icd")
    machine.run("slurm.sh", "stop", "icd")
    whose = [f"--user={getpass.getuser()}", "--name=icd"]
    assert machine.calls() == [["squeue", *whose], ["scancel", *whose]]


def test_dry_run_submits_nothing(machine):
    machine.stand_in("sbatch")
    result = machine.run("slurm.sh", "start", "icd", "--workdir=/r", "--dry-run", "--", "true")
    assert machine.calls() == []
    assert result.stdout.startswith("sbatch --job-name=icd ")


def test_sbatch_is_told_to_leave_time_to_save():
    head = (LAUNCH / "slurm.sbatch").read_text().split("set -", 1)[0]
    options = [line.split()[1] for line in head.splitlines() if line.startswith("#SBATCH")]
    assert options == ["--signal=TERM@120", "--requeue", "--open-mode=append"]


@pytest.mark.parametrize(
    ("answer", "status", "again"),
    [
        ("touch runs/finished.json", 0, False),
        ("exit 0", 75, True),  # preempted: saved
        ("exit 1", 1, False),
    ],
)
def test_the_job_queues_itself_again_only_when_it_has_saved(machine, answer, status, again):
    (machine.folder / "runs").mkdir()
    machine.stand_in("srun", answer)
    machine.stand_in("scontrol")
    machine.environment["SLURM_JOB_ID"] = "17"
    command = ["jaxcoder", "train", "--workdir=runs"]
    result = machine.run("slurm.sbatch", str(LAUNCH), "runs", *command)
    assert result.returncode == status
    queued = [["scontrol", "requeue", "17"]] if again else []
    assert machine.calls() == [["srun", "--kill-on-bad-exit=1", "--label", *command], *queued]


def test_a_job_that_is_cancelled_is_not_queued_again(machine):
    """scancel sends TERM to the steps and to the script itself."""
    (machine.folder / "runs").mkdir()
    machine.stand_in("srun", "trap 'exit 0' TERM; echo ready; sleep 60 & wait")
    machine.stand_in("scontrol")
    machine.environment["SLURM_JOB_ID"] = "17"
    process = machine.start(
        "slurm.sbatch", str(LAUNCH), "runs", "jaxcoder", "train", "--workdir=runs"
    )
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 75, "saved"
    assert [call[0] for call in machine.calls()] == ["srun"]


def test_without_a_workdir_a_job_is_done_when_it_ends(machine):
    machine.stand_in("srun")
    machine.stand_in("scontrol")
    assert machine.run("slurm.sbatch", str(LAUNCH), "", "jaxcoder", "evaluate").returncode == 0
    assert len(machine.calls()) == 1
