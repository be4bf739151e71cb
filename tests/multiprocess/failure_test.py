"""Processes that are told to end, or killed, at any moment."""

import json
import shutil
import signal
import time

import pytest

from jaxcoder.workdir import Workdir

pytestmark = pytest.mark.slow

LONG = {"train.total": "30 steps", "train.evaluate_every": "15 steps"}
LONG |= {"train.checkpoint_every": "5 steps"}


@pytest.fixture(scope="module")
def uninterrupted(one, run, train, folder):
    run(*train("uninterrupted", **LONG))
    return Workdir(folder / "uninterrupted")


def saved(workdir):
    return [path.name for path in workdir.checkpoints.glob("*") if path.name.isdigit()]


def wait_for(job, workdir, step):
    """Returns when a checkpoint of this step or a later one is there."""
    while not any(int(name) >= step for name in saved(workdir)):
        assert all(process.poll() is None for process in job.processes), "it ended by itself"
        time.sleep(0.05)


def steps(workdir):
    return [json.loads(line)["step"] for line in workdir.train_metrics.read_text().splitlines()]


def test_told_to_end_all_save_the_same_step_and_another_mesh_goes_on(
    uninterrupted, start, run, train, folder, assert_same
):
    """Process 1 alone is told; then two processes are three devices less."""
    workdir = Workdir(folder / "told")
    job = start(*train("told", **LONG))
    wait_for(job, workdir, 5)
    job.processes[1].send_signal(signal.SIGTERM)
    (status, out, _), (other_status, _, _) = job.wait()
    assert status == other_status == 0
    assert "told to end, saved at step" in out and not workdir.finished.exists()
    step = int(out.partition("saved at step ")[2].split()[0])
    assert str(step) in saved(workdir) and 5 <= step < 30
    run(*train("told", **LONG), processes=1, devices=1)
    assert workdir.finished.exists()
    assert_same(workdir, uninterrupted)


def tell_once_they_have_met(job):
    """SIGTERM to all, long before there is anything to save."""
    assert any("2 processes with 4 devices" in line for line in job.processes[0].stderr)
    for process in job.processes:
        process.send_signal(signal.SIGTERM)


def test_told_to_end_before_the_first_step_all_save_early(one, start, train, folder):
    job = start(*train("told_early", **LONG))
    tell_once_they_have_met(job)
    (status, out, _), (other_status, _, _) = job.wait()
    assert status == other_status == 0
    step = int(out.partition("told to end, saved at step ")[2].split()[0])
    assert saved(Workdir(folder / "told_early")) == [str(step)] and step < 20


def test_told_to_end_an_evaluation_just_ends(one, start):
    job = start("evaluate", f"--workdir={one.path}", "--split=validation")
    tell_once_they_have_met(job)
    assert [status for status, _, _ in job.wait()] == [-signal.SIGTERM] * 2
    assert not (one.evaluation("validation") / "metrics.json").exists()


@pytest.mark.parametrize("victim", [0, 1])
def test_one_killed_the_other_ends_and_both_go_on(
    uninterrupted, start, run, train, folder, assert_same, victim
):
    workdir = Workdir(folder / f"killed_{victim}")
    job = start(*train(f"killed_{victim}", **LONG))
    wait_for(job, workdir, 5)
    job.processes[victim].kill()
    since = time.monotonic()
    statuses = [status for status, _, _ in job.wait()]
    assert statuses[victim] == -signal.SIGKILL and statuses[1 - victim] != 0
    assert time.monotonic() - since < 90, "a process that waits for a dead one ends"
    assert not workdir.finished.exists()
    run(*train(f"killed_{victim}", **LONG))
    assert_same(workdir, uninterrupted)
    shutil.rmtree(workdir.path)


def test_one_cannot_write_its_part_of_a_checkpoint_and_all_end(one, start, train, folder):
    """Process 1 may write no file; what one hears only of the other is that it is no longer there.

    With Orbax's own barrier this took 5 minutes, longer than a run here may.
    """
    impatient = "from jaxcoder import cli, distributed; distributed.HEARTBEAT_SECONDS = 10"
    (status, _, _), (failed, _, err) = start(
        *train("unwritten", **{"train.checkpoint_every": "1 step"}),
        before={1: ("bash", "-c", 'ulimit -f 0; exec "$@"', "-")},
        run=("-c", f"{impatient}; cli.main()"),
    ).wait()
    assert failed == 1 and status != 0
    workdir = Workdir(folder / "unwritten")
    # Threads of XLA may be printing, too: it need not begin its line, nor be the very last.
    error = f"jaxcoder train: error: {workdir.checkpoints / '1'}: was not written ("
    (line,) = [line for line in err.splitlines() if error in line]
    assert "File too large" in line and "goes on from the start" in line
    assert not saved(workdir)
