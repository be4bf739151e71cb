"""launch/tpu.sh against stand-ins for gcloud: which commands, in which order."""

import re

import pytest

from tests.launch.conftest import starts

PLACE = ["--zone=us-west4-a", "--project=p"]
WHERE = ["--zone=us-west4-a", "--project=p", "--type=v5litepod-16"]
RUN = ["--bucket=gs://b", "--workdir=gs://b/runs/x", "--poll=0"]
TRAIN = ["--", "jaxcoder", "train", "--config.train.total='5 epochs'"]
TRAIN += ["--workdir=gs://b/runs/x", "--distributed"]
D = ["--distributed"]
COUNT = ["--", "jaxcoder", "tokens", "--config", "configs/demo.py"]  # makes records: no run
TPUS = ["gcloud", "compute", "tpus"]
CREATE = "gcloud compute tpus queued-resources create"
DELETE = "gcloud compute tpus queued-resources delete"
DESCRIBE = "gcloud compute tpus queued-resources describe"
SSH = "gcloud compute tpus queued-resources ssh"


def test_asks_for_a_queued_resource(machine):
    machine.stand_in("gcloud")
    assert machine.run("tpu.sh", "create", "icd", *WHERE, "--spot").returncode == 0
    assert machine.calls() == [
        [*TPUS, "queued-resources", "create", "icd", *PLACE, "--accelerator-type=v5litepod-16"]
        + ["--spot", "--node-id=icd", "--runtime-version=v2-alpha-tpuv5-lite"]
    ]


def test_asks_for_several_slices(machine):
    machine.stand_in("gcloud")
    machine.run("tpu.sh", "create", "icd", *WHERE, "--slices=2")
    assert machine.calls()[0][-3:-1] == ["--node-count=2", "--node-prefix=icd"]


def test_makes_a_tpu_vm_at_once(machine):
    machine.stand_in("gcloud")
    machine.run("tpu.sh", "create", "icd", *PLACE, "--type=v5p-8", "--direct")
    assert machine.calls() == [
        [*TPUS, "tpu-vm", "create", "icd", *PLACE, "--accelerator-type=v5p-8"]
        + ["--version=v2-alpha-tpuv5"]
    ]


def test_sets_all_workers_up_with_what_is_committed(machine):
    machine.stand_in("gcloud")
    machine.stand_in("git")
    assert machine.run("tpu.sh", "setup", "icd", *PLACE, "--bucket=gs://b").returncode == 0
    status, archive, copy, ssh = machine.calls()
    assert "status" in status and archive[-1] == "HEAD" and "archive" in archive
    assert copy[:3] == ["gcloud", "storage", "cp"] and copy[-1] == "gs://b/launch/icd.tar.gz"
    assert ssh[:-1] == [*SSH.split(), "icd", "--node=all", *PLACE, "--worker=all"]
    steps = ssh[-1].removeprefix("--command=").splitlines()
    assert steps[0] == "set -e"
    assert "gcloud storage cp gs://b/launch/icd.tar.gz code.tar.gz" in steps
    assert steps[-1] == "gcloud storage rsync --recursive gs://b/data data"


def test_a_step_of_the_set_up_that_fails_ends_it(machine):
    machine.stand_in("git")
    machine.stand_in("gcloud", "exit 1")
    assert machine.run("tpu.sh", "setup", "icd", *PLACE, "--bucket=gs://b").returncode == 1
    assert starts(machine.calls(), 3)[2:] == ["gcloud storage cp"]


def test_the_worker_starts_exactly_the_command_given(machine):
    """Runs what the worker is sent, with a stand-in for systemd that runs its command."""
    machine.stand_in("gcloud")
    machine.run("tpu.sh", "run", "icd", *PLACE, "--workdir=gs://b/runs/x", *TRAIN)
    (call,) = machine.calls()
    machine.log.write_text("")
    machine.stand_in("systemctl", "exit 3")  # it is not active
    machine.stand_in("sudo")
    machine.shell(call[-1].removeprefix("--command="))
    _, _, unit = machine.calls()
    assert unit[:3] == ["sudo", "systemd-run", "--unit=jaxcoder"]
    assert unit[-8:] == ["/usr/bin/env", "launch/supervise.sh", "gs://b/runs/x", *TRAIN[1:]]
    assert "--property=KillMode=mixed" in unit
    assert "--property=SuccessExitStatus=75" in unit, "told to stop and saved is no failure"


def test_a_run_that_runs_is_not_started_twice(machine):
    machine.stand_in("gcloud")
    machine.run("tpu.sh", "run", "icd", *PLACE, *COUNT)
    (call,) = machine.calls()
    machine.log.write_text("")
    machine.stand_in("systemctl")  # it is active
    machine.stand_in("sudo")
    said = machine.shell(call[-1].removeprefix("--command="))
    assert said == "runs already: not started again\n"
    assert starts(machine.calls(), 2) == ["systemctl is-active"]


@pytest.mark.parametrize("action", ["run", "babysit"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jaxcoder", "train", "--workdir", "gs://b/runs/y", "--distributed"], "runs/y: expected"),
        (["jaxcoder", "train", "--workdir=gs://b/runs/y", "--distributed"], "runs/y: expected"),
        (["jaxcoder", "train", "--workdir", "gs://b/runs/x"], "needs --distributed"),
        ([".venv/bin/jaxcoder", "pretrain", "--workdir", "gs://b/runs/x/"], "needs --distributed"),
        (["jaxcoder", "evaluate", "--workdir=gs://b/runs/x", "--distributed"], "runs once"),
        (["python", "-mjaxcoder.train", "--workdir=gs://b/runs/x"], "needs --distributed"),
        (["jaxcoder", "train", "-workdir=gs://b/runs/y", "-distributed"], "runs/y: expected"),
        (
            ["jaxcoder", "train", "--workdir=gs://b/runs/x", "--distributed", "--nodistributed"],
            "--d",
        ),
        (["env", "A=1", "jaxcoder", "train", "--workdir=gs://b/runs/x"], "needs --distributed"),
        (["python", "-m", "jaxcoder.pretrain", "--workdir=gs://b/runs/x"], "needs --distributed"),
        (["python", "-m", "jaxcoder.cli", "train", "--workdir=gs://b/runs/x"], "--distributed"),
        (["jaxcoder", "train", "--workdir=gs://b/runs/x", "--distributed=False"], "--distributed"),
        (["jaxcoder", "train", "--distributed"], "needs --workdir gs://b/runs/x"),
        (["jaxcoder", "train", "--workdir=gs://b/runs/x", "--dry-run"], "before COMMAND"),
        (["srun", "--label", "jaxcoder", "train", "--workdir=gs://b/runs/x"], "--distributed"),
        (["jaxcoder", "learning_curve", "--workdir", "gs://b/runs/x"], "runs once"),
        (["python", "train.py", "--workdir", "gs://b/runs/y"], "runs/y: expected the same"),
        (["jaxcoder", "train", "--data", "/data/jaxcoder", "--workdir=gs://b/y"], "gs://b/y: exp"),
        (
            ["jaxcoder", "train", "--data", "a/jaxcoder", "--workdir", "gs://b/runs/x"],
            "--distributed",
        ),
        (["jaxcoder", "train", "--workdir", "gs://b/jaxcoder", "--config=x"], "jaxcoder: expected"),
    ],
)
def test_refuses_a_command_that_would_not_be_one_run(machine, action, words, message):
    machine.stand_in("gcloud")
    result = machine.run("tpu.sh", action, "icd", *WHERE, *RUN, "--", *words)
    assert (result.returncode, machine.calls()) == (2, [])
    assert message in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workdir=gs://b/x"], ["jaxcoder", "train", "--workdir", "gs://b/x/", "--distributed"]),
        (["--workdir=gs://b/x"], ["jaxcoder", "train", "-workdir=gs://b/x", "--distributed=1"]),
        (["--workdir=gs://b/x"], ["jaxcoder", "train", "--help"]),
        (
            ["--workdir=gs://jaxcoder"],
            ["jaxcoder", "train", "--distributed", "-workdir=gs://jaxcoder"],
        ),
        (["--workdir=gs://b/x"], ["python", "-m", "jaxcoder", "train", "--workdir=gs://b/x"] + D),
        (
            ["--workdir=gs://b/x"],
            ["env", "A=1", "bin/jaxcoder", "train", "--workdir", "gs://b/x"] + D,
        ),
        ([], ["jaxcoder", "evaluate", "--workdir", "gs://b/x", "--distributed"]),
        ([], COUNT[1:]),
        ([], ["gcloud", "storage", "rsync", "--dry-run", "a", "gs://b/a"]),
    ],
)
def test_takes_a_command_however_it_is_spelled(machine, options, words):
    machine.stand_in("gcloud")
    result = machine.run("tpu.sh", "run", "icd", *PLACE, *options, "--", *words)
    assert (result.returncode, len(machine.calls())) == (0, 1), result.stderr


def test_a_run_that_nobody_watches_is_refused(machine):
    """Without a supervisor one that was preempted ends as one that is finished does."""
    machine.stand_in("gcloud")
    result = machine.run("tpu.sh", "run", "icd", *PLACE, *TRAIN)
    assert (result.returncode, machine.calls()) == (2, [])
    assert "needs --workdir=gs://b/runs/x before the -- too" in result.stderr


def test_follows_one_worker_and_stops_all(machine):
    machine.stand_in("gcloud")
    machine.run("tpu.sh", "follow", "icd", *PLACE)
    machine.run("tpu.sh", "stop", "icd", *PLACE)
    follow, stop = machine.calls()
    assert "--node=0" in follow and "--worker=0" in follow and "journalctl" in follow[-1]
    assert "--node=all" in stop and "--worker=all" in stop
    assert stop[-1] == "--command=sudo systemctl stop jaxcoder"


def test_deletes_what_is_named_and_lets_gcloud_ask(machine):
    machine.stand_in("gcloud")
    machine.run("tpu.sh", "delete", "icd", *PLACE)
    assert machine.calls() == [[*DELETE.split(), "icd", *PLACE, "--force"]]


# Answers of a cloud whose slice is preempted once, and whose run then finishes.
_CLOUD = """
case "$*" in
  *storage\\ ls*) [ -e finished ] ;;
  *describe*)
    state=$(sed -n "$(($(cat looks 2>/dev/null || echo 0) + 1))p" states)
    echo $(($(cat looks 2>/dev/null || echo 0) + 1)) >looks
    if [ "$state" = NONE ]; then echo 'ERROR: NOT_FOUND: Resource' >&2; exit 1; fi
    if [ "$state" = BROKEN ]; then echo 'ERROR: no network' >&2; exit 1; fi
    if [ "$state" = LAST ]; then touch finished; echo ACTIVE; else echo "$state"; fi
    ;;
  *is-active\\ jaxcoder\\ *) cat units; true ;;
  *systemd-run*) echo active >units ;;
  *delete*) echo inactive >units ;;
esac
"""


def babysit(machine, states, units="inactive", options=()):
    (machine.folder / "states").write_text("\n".join(states) + "\n")
    (machine.folder / "units").write_text(units + "\n")
    machine.stand_in("gcloud", _CLOUD)
    machine.stand_in("git")
    return machine.run("tpu.sh", "babysit", "icd", *WHERE, *RUN, *options, *TRAIN)


def kinds(machine):
    """What was done to the cloud, without the looks."""
    done = []
    for call in machine.calls():
        line = " ".join(call)
        if call[0] == "gcloud" and "describe" not in call and "storage" not in call:
            if "systemd-run" in line:
                done.append("run")
            elif "uv venv" in line:
                done.append("setup")
            elif "is-active" not in line:
                done.append(call[4])
    return done


def test_babysits_a_preempted_run_until_it_is_finished(machine):
    states = ["NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "ACTIVE", "SUSPENDING"]
    states += ["SUSPENDED", "DELETING", "NONE", "ACTIVE", "ACTIVE", "LAST"]
    result = babysit(machine, states)
    assert result.returncode == 0, result.stderr
    turn = ["create", "setup", "run"]
    assert kinds(machine) == [*turn, "delete", *turn]
    assert "finished: gs://b/runs/x/finished.json" in result.stderr
    assert "tpu.sh delete icd --zone=us-west4-a --project=p" in result.stderr  # it still costs


def test_babysit_never_forces_a_deletion(machine):
    babysit(machine, ["SUSPENDED", "FAILED", "LAST"])
    deletions = [call for call in machine.calls() if "delete" in call]
    assert len(deletions) == 2
    assert all("--force" not in call for call in deletions)


def test_babysit_touches_nothing_while_gcloud_cannot_say(machine):
    result = babysit(machine, ["BROKEN", "BROKEN", "LAST"], units="active")
    assert (result.returncode, kinds(machine)) == (0, [])
    assert "no network" in result.stderr


def test_babysit_leaves_a_run_that_has_failed_for_good(machine):
    result = babysit(machine, ["ACTIVE"], units="active\nfailed")
    assert (result.returncode, kinds(machine)) == (1, [])
    assert "failed for good" in result.stderr


def test_babysit_gives_up_where_no_slice_comes(machine):
    result = babysit(machine, ["FAILED"] * 9, options=["--tries=3"])
    assert (result.returncode, kinds(machine)) == (1, ["delete"] * 3)
    assert "giving up" in result.stderr


def test_babysit_gives_up_where_the_run_does_not_stay_up(machine):
    (machine.folder / "states").touch()
    machine.stand_in("git", "exit 1")  # the set-up fails
    (machine.folder / "states").write_text("ACTIVE\n" * 9)
    (machine.folder / "units").write_text("inactive\n")
    machine.stand_in("gcloud", _CLOUD)
    result = machine.run("tpu.sh", "babysit", "icd", *WHERE, *RUN, "--tries=3", *TRAIN)
    assert result.returncode == 1
    assert "may still cost" in result.stderr


@pytest.mark.parametrize("action", ["create", "setup", "run", "follow", "stop", "delete"])
@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_dry_run_prints_a_script_that_calls_what_a_run_calls(machine, action, direct):
    def without_folder(calls):
        return [[re.sub(r"[^\s=]*/code", "code", word) for word in call] for call in calls]

    machine.stand_in("gcloud")
    machine.stand_in("git")
    arguments = [action, "icd", *WHERE, *RUN, *direct]
    assert machine.run("tpu.sh", *arguments, *TRAIN).returncode == 0
    called = without_folder(call for call in machine.calls() if "status" not in call)
    assert called
    machine.log.write_text("")
    result = machine.run("tpu.sh", *arguments, "--dry-run", *TRAIN)
    assert result.returncode == 0
    assert [call for call in machine.calls() if "status" not in call] == []
    assert without_folder(machine.would_call(result.stdout)) == called


@pytest.mark.parametrize("direct", [[], ["--direct"]])
def test_dry_run_of_babysit_prints_all_that_it_may_call(machine, direct):
    machine.stand_in("gcloud")
    machine.stand_in("git")
    result = machine.run("tpu.sh", "babysit", "icd", *WHERE, *RUN, *direct, "--dry-run", *TRAIN)
    assert result.returncode == 0
    assert starts(machine.calls(), 1) == ["git"], "the status of the checkout"
    calls = [call for call in machine.would_call(result.stdout) if call[:3] == TPUS]
    assert {call[3] for call in calls} == {"tpu-vm" if direct else "queued-resources"}
    assert [call[4] for call in calls] == ["describe", "create", "ssh", "ssh", "delete"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--type=v5litepod-16"], "needs --zone"),
        (PLACE, "needs --type"),
        (["--zone", "us-west4-a"], "options are written --name=value"),
        (["--zone=us-west4", "--type=v4-8"], "expected such as us-west4-a"),
        (["--zone=us-south1-ai1b"], "needs --type"),
        ([*PLACE, "--type=v9-8"], "--version"),
        ([*PLACE, "--type=v5e-16"], "expected such as v5litepod-16"),
        ([*PLACE, "--type=v4-8", "--slices=0"], "expected a whole number from 1"),
        ([*PLACE, "--type=v4-8", "--poll=often"], "expected a whole number from 0"),
        ([*PLACE, "--type=v4-8", "--tries=0"], "expected a whole number from 1"),
        ([*PLACE, "--type=v4-8", "--slices=2", "--direct"], "the queue"),
        ([*PLACE, "--type=v4-8", "--workdir=runs/x"], "expected gs://"),
    ],
)
def test_says_what_is_missing(machine, options, message):
    machine.stand_in("gcloud")
    result = machine.run("tpu.sh", "create", "icd", *options)
    assert (result.returncode, machine.calls()) == (2, [])
    assert message in result.stderr
