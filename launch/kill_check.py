r"""Kills processes of a run at random moments, and compares its end to that of an undisturbed run.

    jaxcoder tokens --config configs/demo.py --data_dir data
    python -m launch.kill_check --folder runs/kills --kills 20 --processes 2 --devices 2 -- \
        jaxcoder train --config configs/demo.py --config.data_dir=data \
        --config.batches.row_multiple=4 --config.train.total='700 steps' \
        --config.train.checkpoint_every='10 steps' --config.train.evaluate_every='100 steps'

The command runs twice, each time as processes of this machine (launch/local.sh), in the workdirs
FOLDER/undisturbed and FOLDER/killed, which it is given. The second run has a supervisor
(launch/supervise.sh) that starts it again, and one of its processes, drawn at random, gets SIGKILL:
half of the times while it starts, the other half within two checkpoints after it has saved one.

Exit status: 0; 1 where parameters or losses differ by more than --tolerance; 2 after a mistake.
"""

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import psutil
from etils import epath

from jaxcoder import entry, trained
from jaxcoder.errors import UserError
from jaxcoder.workdir import Workdir

LAUNCH = pathlib.Path(__file__).parent
PyTree = Any
T = TypeVar("T")
_LOOK = 0.05  # seconds between two looks at a run


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast the undisturbed run was, in seconds.

    Attributes:
      first: to its first checkpoint.
      interval: from one checkpoint to the next.
    """

    first: float
    interval: float


def main(argv: Sequence[str]) -> None:
    """Runs both, prints each kill and the difference."""
    parser = entry.Parser(prog="python -m launch.kill_check", description=__doc__)
    parser.add_argument("--folder", required=True, help="of the two workdirs; it must be new")
    parser.add_argument("--kills", type=int, default=20, help="how many")
    parser.add_argument("--processes", type=int, default=2, help="of a run")
    parser.add_argument("--devices", type=int, default=2, help="of a process")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--tolerance", type=float, default=0.0, help="of the differences")
    parser.add_argument("command", nargs="+", help="after --; without --workdir")
    wanted = parser.parse_args(argv)
    folder = pathlib.Path(wanted.folder)
    if folder.exists():
        raise UserError(f"--folder {folder}: is there already; choose a new one, or remove it")
    folder.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the run would go on without us
    undisturbed, killed = (Workdir(folder / name) for name in ("undisturbed", "killed"))

    def local(workdir: Workdir) -> list[str]:
        options = [f"--devices={wanted.devices}", "--grace=10", str(wanted.processes)]
        return [str(LAUNCH / "local.sh"), *options, *wanted.command, f"--workdir={workdir.path}"]

    pace = time_of(local(undisturbed), undisturbed, folder / "undisturbed.log")
    print(
        f"undisturbed: {pace.first:.1f} s to its first checkpoint, then one in {pace.interval:.1f}",
        flush=True,
    )
    supervised = [
        *(str(LAUNCH / "supervise.sh"), "--wait=0", f"--tries={wanted.kills + 1}"),
        *(str(killed.path), *local(killed)),
    ]
    kill(supervised, killed, folder / "killed.log", wanted.kills, pace, random.Random(wanted.seed))
    params = [
        jax.device_get(trained.restore(each, "last").params) for each in (undisturbed, killed)
    ]
    parameters, (losses, lines) = (
        largest(*params),
        apart(undisturbed.train_metrics, killed.train_metrics),
    )
    print(
        f"{wanted.kills} kills: parameters differ by {parameters:.1e} at most, losses by "
        f"{losses:.1e}; {lines} lines of the log are of one run alone"
    )
    if not max(parameters, losses) <= wanted.tolerance or lines:  # NaN is not
        sys.exit(1)


def time_of(command: Sequence[str], workdir: Workdir, log: pathlib.Path) -> Pace:
    """Runs a command to its end.

    Args:
      command: of the run.
      workdir: where it saves.
      log: what it prints.

    Raises:
      UserError: it failed, or saved less than two checkpoints.
    """
    began, moments = time.monotonic(), dict[int, float]()
    with _started(command, log) as run:
        while run.poll() is None:
            for step in saved(workdir):
                moments.setdefault(step, time.monotonic())
            time.sleep(_LOOK)
    if run.returncode or len(moments) < 2:
        raise UserError(
            f"{log}: ended with status {run.returncode} and {len(moments)} checkpoints; expected 0 "
            f"and at least two, see config.train.checkpoint_every; it ends with: {_last_line(log)}"
        )
    first, last = min(moments.values()), max(moments.values())
    return Pace(first - began, (last - first) / (len(moments) - 1))


def kill(
    command: Sequence[str],
    workdir: Workdir,
    log: pathlib.Path,
    kills: int,
    pace: Pace,
    rng: random.Random,
) -> None:
    """Runs a supervised command, and kills one of its processes so many times.

    Args:
      command: of the run, with its supervisor.
      workdir: where it saves.
      log: what it prints.
      kills: how many.
      pace: of the undisturbed run.
      rng: of moments and processes.

    Raises:
      UserError: it ended before the last kill, or badly.
    """
    with _started(command, log) as run:
        for number in range(1, kills + 1):
            processes = _wait(lambda: _processes(run), run, number)
            before = max(saved(workdir), default=0)
            if rng.random() < 0.5:
                when, end = "as it starts", time.monotonic() + rng.random() * pace.first
                _wait(functools.partial(_beyond, workdir, before, end), run, number)
            else:
                when = "as it goes"
                _wait(functools.partial(_beyond, workdir, before), run, number)
                time.sleep(rng.random() * 2 * pace.interval)
            victim = rng.randrange(len(processes))
            try:
                processes[victim].kill()
            except psutil.NoSuchProcess:
                raise _too_short(run, number) from None
            psutil.wait_procs(processes)
            last = max(saved(workdir), default=0)
            print(f"kill {number}: process {victim}, {when}; saved: step {last}", flush=True)
        run.wait()
    if run.returncode:
        raise UserError(
            f"{log}: ended with status {run.returncode}, expected 0; it ends with: "
            f"{_last_line(log)}"
        )


def largest(one: PyTree, other: PyTree) -> float:
    """The largest difference of an element of two trees of arrays; NaN where one is NaN."""
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), one, other)
    return float(np.max(jax.tree.leaves(differences)))


def apart(log: epath.Path, other: epath.Path) -> tuple[float, int]:
    """Compares two logs of training.

    Returns:
      The largest difference of a loss, relative, NaN where one is NaN or no step is in both; and
      how many of them one log alone has.
    """
    one, two = _losses(log), _losses(other)
    both = one.keys() & two.keys()
    differences = [abs(two[key] / one[key] - 1) for key in both]
    return float(np.max(differences)) if both else math.nan, len(one.keys() ^ two.keys())


def saved(workdir: Workdir) -> list[int]:
    """Steps of the checkpoints that are whole."""
    return [int(path.name) for path in workdir.checkpoints.glob("*") if path.name.isdigit()]


def _last_line(log: pathlib.Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "nothing")


def _losses(log: epath.Path) -> dict[tuple[int, str], float]:
    lines = map(json.loads, log.read_text().splitlines())
    return {
        (line["step"], name): math.nan if value is None else value  # NaN is not JSON
        for line in lines
        for name, value in line.items()
        if name.endswith("/loss")
    }


@contextlib.contextmanager
def _started(command: Sequence[str], log: pathlib.Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run that does not outlive us."""
    with log.open("wb") as out:
        run = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield run
        finally:
            if run.poll() is None:
                run.terminate()
                run.wait()


def _beyond(workdir: Workdir, step: int, end: float = math.inf) -> bool:
    """Whether there is a later checkpoint, or a moment has come."""
    return time.monotonic() > end or max(saved(workdir), default=0) > step


def _processes(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The run's processes that are one of many, in their order; none before all are there."""
    found: dict[int, psutil.Process] = {}
    count = 0
    for each in psutil.Process(run.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            flags = dict(word.split("=", 1) for word in each.cmdline()[-2:] if "=" in word)
            if "--process" in flags:
                # What a process forks looks like it, and comes after it.
                found.setdefault(int(flags["--process"]), each)
                count = int(flags["--processes"])
    return [found[number] for number in sorted(found)] if len(found) == count else []


def _wait(look: Callable[[], T], run: subprocess.Popen[bytes], number: int) -> T:
    while not (seen := look()):
        if run.poll() is not None:
            raise _too_short(run, number)
        time.sleep(_LOOK)
    return seen


def _too_short(run: subprocess.Popen[bytes], number: int) -> UserError:
    return UserError(
        f"the run ended with status {run.wait()} before kill {number}; give it more steps "
        "(config.train.total), or ask for fewer --kills"
    )


if __name__ == "__main__":
    entry.run(main)
