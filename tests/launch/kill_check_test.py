"""launch/kill_check.py: it kills what it says, waits for what it must, and sees a difference."""

import json
import random
import time

import jax
import numpy as np
import psutil
import pytest

from jaxcoder.errors import UserError
from jaxcoder.workdir import Workdir
from launch import kill_check
from launch.kill_check import Pace

# A run of N processes that saves a checkpoint every 50 ms and goes on from the last,
# until it is told to end; at the latest after 400.
RUN = """
last=$(ls run/checkpoints | sort -n | tail -1)
for ((step = ${{last:-0}} + 1; step < 400; step++)); do
  {end} && break
  sleep 0.05
  mkdir -p run/checkpoints/$step
done
echo {{}} >run/finished.json
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The workdir of a stand-in for training, and its supervised command."""
    monkeypatch.chdir(tmp_path)
    workdir = Workdir(tmp_path / "run")
    workdir.checkpoints.mkdir(parents=True)
    here = str(kill_check.LAUNCH)

    def command(end):
        (tmp_path / "run.sh").write_text(RUN.format(end=end))
        supervised = [f"{here}/supervise.sh", "--wait=0", "--tries=9", str(workdir.path)]
        return [*supervised, f"{here}/local.sh", "--grace=1", "2", "bash", "run.sh"]

    return workdir, command


def test_each_kill_is_one_more_start_and_the_run_ends_whole(run, tmp_path, capsys):
    workdir, command = run
    kill_check.kill(
        command("((step > 9 && $(grep -c 'again in' log) == 3))"),
        workdir,
        tmp_path / "log",
        3,
        Pace(0.3, 0.1),
        random.Random(0),
    )
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        *(f"kill {number}" for number in (1, 2, 3)),
    ]
    log = (tmp_path / "log").read_text()
    assert log.count("supervise: ended with status 137") == log.count("again in") == 3
    assert (workdir.path / "finished.json").exists()


@pytest.mark.parametrize(("kills", "interval"), [(5, 0.1), (1, 1.5)])  # no start; nobody to kill
def test_a_run_that_ends_too_early_says_so(run, tmp_path, kills, interval):
    workdir, command = run
    pace, rng = Pace(0.1, interval), random.Random(0)
    with pytest.raises(UserError, match="more steps"):
        kill_check.kill(command("((step > 3))"), workdir, tmp_path / "log", kills, pace, rng)


def test_what_a_process_forks_is_not_taken_for_it(tmp_path):
    (tmp_path / "forks.sh").write_text("(sleep 60; true) & (sleep 60; true) & wait")
    command = [
        f"{kill_check.LAUNCH}/local.sh",
        *("--grace=1", "2", "bash", str(tmp_path / "forks.sh")),
    ]
    with kill_check._started(command, tmp_path / "log") as run:
        while len(psutil.Process(run.pid).children(recursive=True)) < 12:
            time.sleep(0.05)
        processes = kill_check._processes(run)
        parents = [each.parent().cmdline()[1] for each in processes]
    assert parents == [command[0]] * 2


def test_the_pace_of_an_undisturbed_run(run, tmp_path):
    workdir, command = run
    pace = kill_check.time_of(command("((step > 9))"), workdir, tmp_path / "log")
    assert pace.first > 0 and pace.interval > 0
    with pytest.raises(UserError, match="checkpoint_every; it ends with: no such config"):
        kill_check.time_of(
            ["bash", "-c", "echo no such config; exit 2"],
            Workdir(tmp_path / "other"),
            tmp_path / "log",
        )


def test_differences_of_parameters_and_of_logs(tmp_path):
    trees = [{"w": np.arange(3.0), "b": np.zeros(2)} for _ in range(2)]
    assert kill_check.largest(*trees) == 0
    trees[1]["w"][2] += 0.25
    assert kill_check.largest(*jax.tree.map(np.asarray, trees)) == 0.25
    broken = {"a": np.zeros(2), "b": np.array([np.nan])}
    assert np.isnan(kill_check.largest(broken, broken))
    logs = []
    for number, losses in enumerate(([4.0, 2.0, 1.0], [4.0, 2.5])):
        logs.append(tmp_path / str(number))
        lines = [{"step": step, "train/loss": loss} for step, loss in enumerate(losses)]
        logs[-1].write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert kill_check.apart(logs[0], logs[0]) == (0, 0)
    assert kill_check.apart(*logs) == (pytest.approx(0.25), 1)
    logs[1].write_text(json.dumps({"step": 0, "train/loss": None}))  # as NaN is logged
    assert np.isnan(kill_check.apart(*logs)[0])
