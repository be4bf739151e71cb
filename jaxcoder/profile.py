"""The profile of a run: a trace of a few of its steps, by jax.profiler."""

import contextlib
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

HELP = (
    "Steps whose trace process 0 leaves in WORKDIR/profile, for XProf or TensorBoard: the first in "
    "a row that compile nothing. 0 for none."
)
"""Of the flag --profile_steps."""


class Profile:
    """Traces some steps of a run. Use as a context manager around the loop."""

    def __init__(
        self,
        folder: epath.Path,
        steps: int,
        run: range,
        length_of: Callable[[int], int],
        say: Callable[[str], None],
    ) -> None:
        """Decides which steps; traces nothing yet.

        Args:
          folder: where the trace goes; a bucket will do.
          steps: how many; 0 for none.
          run: numbers of the steps that are left.
          length_of: from a step's number to the length of its batch, which decides whether it
            compiles.
          say: is told where there are not so many steps in a row that compile nothing: a run that
            goes on with the same command may have but a few left.
        """
        self._folder = folder
        self._traced = _settled(steps, run, length_of) if steps else range(0)
        self._running: contextlib.ExitStack | None = None
        if len(self._traced) < steps:
            say(f"--profile_steps = {steps}: no trace, the run has not so many steps left")

    def begin(self, step: int) -> None:
        """Before the batch of a step is taken."""
        if step not in self._traced:
            return
        if self._running is None:
            with contextlib.ExitStack() as running:
                local = running.enter_context(tempfile.TemporaryDirectory())
                running.callback(self._copy, pathlib.Path(local))
                running.enter_context(jax.profiler.trace(local))
                self._running = running.pop_all()
        self._step = jax.profiler.StepTraceAnnotation("train", step_num=step)
        self._step.__enter__()

    def end(self, step: int, result: Any) -> None:
        """After a step has been handed to the devices.

        Args:
          step: its number.
          result: arrays that it computes; after the last traced step they are waited for.
        """
        if step not in self._traced:
            return
        self._step.__exit__(None, None, None)
        if step == self._traced[-1]:
            jax.block_until_ready(result)
            self.__exit__()

    def _copy(self, local: pathlib.Path) -> None:
        for path in filter(pathlib.Path.is_file, local.rglob("*")):
            there = self._folder / path.relative_to(local).as_posix()
            there.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(path).copy(there, overwrite=True)

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        """Writes what has been traced."""
        running, self._running = self._running, None
        if running is not None:
            running.close()


def _settled(steps: int, run: range, length_of: Callable[[int], int]) -> range:
    """The first so many steps in a row that compile nothing, or none."""
    met: set[int] = set()
    first = run.start
    for step in run:
        if (length := length_of(step)) not in met:
            met.add(length)
            first = step + 1
        elif step - first + 1 == steps:
            return range(first, step + 1)
    return range(0)
