"""launch/supervise.sh: again until finished, and not for ever."""

import os
import pathlib
import signal

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"

# A run that saves a checkpoint at each start: it fails, is preempted, is preempted, finishes.
RUN = """
started=$(ls runs/checkpoints | wc -l)
mkdir runs/checkpoints/$((started + 1))00
case $started in
  0) exit 1 ;;
  3) touch runs/finished.json ;;
esac
"""


@pytest.fixture
def checkpoints(machine):
    folder = machine.folder / "runs" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def supervise(machine, *arguments):
    return machine.run("supervise.sh", "--wait=0", *arguments)


def test_starts_again_until_the_run_is_finished(machine, checkpoints):
    result = supervise(machine, "runs", "bash", "-c", RUN)
    assert result.returncode == 0
    assert sorted(path.name for path in checkpoints.iterdir()) == ["100", "200", "300", "400"]
    said = [line.split(";")[0] for line in result.stderr.splitlines()]
    assert said == [
        "supervise: ended with status 1 at step 100",
        "supervise: was preempted at step 200",
        "supervise: was preempted at step 300",
        "supervise: finished: runs/finished.json",
    ]


def test_a_finished_run_is_not_started(machine, checkpoints):
    (machine.folder / "runs" / "finished.json").touch()
    result = supervise(machine, "runs", "touch", "never")
    assert result.returncode == 0
    assert not (machine.folder / "never").exists()


@pytest.mark.parametrize(("command", "status"), [("exit 9", 9), ("exit 0", 75)])
def test_gives_up_where_nothing_is_gained(machine, checkpoints, command, status):
    # What is still being written is no checkpoint.
    body = f"echo x >>starts; mkdir runs/checkpoints/$RANDOM.orbax-checkpoint-tmp; {command}"
    result = supervise(machine, "--tries=3", "runs", "bash", "-c", body)
    assert result.returncode == status
    assert (machine.folder / "starts").read_text() == "x\nx\nx\n"
    assert "giving up" in result.stderr


def test_progress_resets_the_count_of_failures(machine, checkpoints):
    body = "echo x >>starts; [ $(wc -l <starts) != 3 ] || mkdir runs/checkpoints/1; exit 1"
    supervise(machine, "--tries=3", "runs", "bash", "-c", body)
    assert (machine.folder / "starts").read_text() == "x\n" * 6


@pytest.mark.parametrize("once", [[], ["--once"]])
@pytest.mark.parametrize("body", ["exit 2", "exec ./missing", "exec ./starts"])
def test_a_mistake_in_the_command_is_not_repeated(machine, checkpoints, body, once):
    result = supervise(machine, *once, "runs", "bash", "-c", f"echo x >>starts; {body}")
    assert result.returncode == 2
    assert (machine.folder / "starts").read_text() == "x\n"


def test_refuses_to_watch_another_folder_than_the_run_writes(machine, checkpoints):
    result = supervise(machine, "runs", "jaxcoder", "train", "--workdir", "other")
    assert (result.returncode, "other: expected the same" in result.stderr) == (2, True)


def test_one_folder_may_be_spelled_in_several_ways(machine, checkpoints):
    machine.stand_in("jaxcoder", "touch runs/finished.json")
    here = machine.folder
    for spelled in ("./runs", str(here / "runs"), "runs/", ".//runs/.", f"{here}/./runs"):
        result = supervise(machine, spelled, "jaxcoder", "train", "--workdir", "runs")
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["evaluate", "predict", "learning_curve"])
def test_what_runs_once_is_nothing_to_supervise(machine, checkpoints, command):
    """Of a finished run it would not even be started."""
    (machine.folder / "runs" / "finished.json").touch()
    result = supervise(machine, "runs", "jaxcoder", command, "--workdir=runs")
    assert (result.returncode, f"{command}: runs once" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("command", "status"), [("exit 0", 75), ("exit 3", 3), ("touch runs/finished.json", 0)]
)
def test_once_tells_a_scheduler_what_to_do(machine, checkpoints, command, status):
    assert supervise(machine, "--once", "runs", "bash", "-c", command).returncode == status


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_signal_lets_the_run_save_once_and_starts_nothing_again(
    machine, checkpoints, sent, whole_group
):
    body = (
        'trap "sleep 0.3; echo saved >>saves; mkdir runs/checkpoints/100; exit 0" TERM;'
        "echo ready; sleep 60 & wait"
    )
    process = machine.start("supervise.sh", "runs", "bash", "-c", body)
    assert process.stdout.readline() == "ready\n"
    (os.killpg if whole_group else os.kill)(process.pid, sent)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 75
    assert (machine.folder / "saves").read_text() == "saved\n"
    assert "saved at step 100" in err


def test_a_signal_is_heard_while_it_waits(machine, checkpoints):
    process = machine.start("supervise.sh", "--wait=60", "runs", "bash", "-c", "exit 1")
    assert "again in 60 s" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 75


def test_what_a_run_leaves_behind_is_ended(machine, checkpoints):
    # Its output would stay open, and this would wait for it in vain.
    assert supervise(machine, "runs", "bash", "-c", "sleep 60 & exit 2").returncode == 2


def test_supervises_local_processes(machine, checkpoints):
    # The first turn is preempted, the second finishes.
    body = "[ ! -d runs/checkpoints/1 ] || touch runs/finished.json; sleep 0.2; "
    body += "mkdir -p runs/checkpoints/1"
    result = supervise(machine, "runs", str(LAUNCH / "local.sh"), "2", "bash", "-c", body, "-")
    assert result.returncode == 0


def test_a_workdir_that_cannot_be_listed_is_said(machine, checkpoints):
    machine.stand_in("python3", "exit 1")
    result = supervise(machine, "--tries=1", "gs://bucket/run", "bash", "-c", "exit 4")
    assert result.returncode == 4
    assert "gs://bucket/run: cannot be listed" in result.stderr


def test_a_bucket_is_listed_by_jaxcoders_own_library(machine):
    machine.stand_in("python3", "echo config.json; echo finished.json")
    result = supervise(machine, "gs://bucket/run", "touch", "never")
    assert result.returncode == 0
    assert machine.calls() == [["python3", "-", "gs://bucket/run"]]
