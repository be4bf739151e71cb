"""Time and memory of a piece of work, in a process of its own and those that it begins."""

import atexit
import contextlib
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxcoder.errors import UserError

_EVERY = 0.5  # seconds between two looks


class Footprint(NamedTuple):
    """What a piece of work took.

    Attributes:
      seconds: wall time, the start of its process left out.
      peak: most bytes at one time in all its processes; pages that they share count once.
      result: what it returned.
    """

    seconds: float
    peak: int
    result: Any


def measure(work: Callable[..., Any], *arguments: Any) -> Footprint:
    """Runs a piece of work in a new process, and watches it and its children. Linux alone.

    Args:
      work: a function of a module; what it returns is pickled.
      *arguments: of it, picklable.

    Raises:
      RuntimeError: the process ended without a result.
      UserError: the work did.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, work, arguments))
    process.start()
    there.close()
    peak = 0
    while not here.poll(_EVERY):
        peak = max(peak, sum(map(_memory, _family(process.pid or 0))))
    try:
        answer = here.recv()
    except EOFError:
        raise RuntimeError("the process ended without a result") from None
    finally:
        process.join()
    if isinstance(answer, UserError):
        raise answer
    seconds, result = answer
    return Footprint(seconds, peak, result)


def _work(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    atexit.register(os._exit, 0)  # as `records.runner` does, and why
    started = time.perf_counter()
    try:
        result = work(*arguments)
    except UserError as error:  # a full disk, perhaps
        pipe.send(error)
    else:
        pipe.send((time.perf_counter() - started, result))


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    below: dict[int, list[int]] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            # The name, in brackets, may hold blanks.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            below.setdefault(parent, []).append(int(path.parent.name))
    family = [pid]
    for parent in family:
        family += below.get(parent, [])
    return family


def _memory(pid: int) -> int:
    """Bytes of a process, those of shared pages divided among those that share them."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0
