"""The log of a training run: `train_metrics.jsonl` and TensorBoard's files."""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import jax
import numpy as np

from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import UserError
from jaxcoder.whole_file import write_bytes
from jaxcoder.workdir import Workdir

B = TypeVar("B")


class TrainLog:
    """Writes one line of numbers at a time. Numbers only: no text of a note can reach it."""

    def __init__(self, workdir: Workdir, step: int, *, pending: bool = False):
        """Opens the log, and forgets the lines after a step: a killed run does those steps again.

        Args:
          workdir: of the run.
          step: of the checkpoint that the run goes on from; 0 for a new run.
          pending: whether that step has yet to be evaluated; a line of its evaluation goes too.
        """
        from tensorboardX import SummaryWriter  # it imports torch, seconds long, where there is one

        path = workdir.train_metrics
        kept = []
        if path.exists():
            # A killed run's last line may be cut short: without newline, and its step comes again.
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    numbers = json.loads(line)
                    again = pending and not any(name.startswith("train/") for name in numbers)
                    if numbers["step"] <= step - again:
                        kept.append(line)
        write_bytes(path, "".join(kept).encode())
        # A bucket cannot append: there the lines are kept, and written whole at each save.
        self._path, self._kept = path, kept
        self._file = None if "://" in os.fspath(path) else path.open("a")
        # purge_step hides in TensorBoard what a killed run wrote after its last checkpoint.
        self._board = SummaryWriter(str(workdir.tensorboard), purge_step=step + 1, flush_secs=10)

    def write(self, step: int, numbers: Mapping[str, float], group: str) -> None:
        """Writes one line.

        Args:
          step: optimiser steps done.
          numbers: by name; those that are not finite become null in the JSON line.
          group: `train` or the name of the evaluated split; stands before the names, with a slash.
        """
        named = {f"{group}/{name}": float(value) for name, value in numbers.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in named.items()}
        line = json.dumps({"step": step, **finite}) + "\n"
        if self._file is None:
            self._kept.append(line)
        else:
            self._file.write(line)
            self._file.flush()
        for name, value in named.items():
            self._board.add_scalar(name, value, step)

    def save(self) -> None:
        """Puts the lines where a kill cannot reach them; called with each checkpoint."""
        if self._file is None:
            write_bytes(self._path, "".join(self._kept).encode())

    def __enter__(self) -> "TrainLog":
        return self

    def __exit__(self, *_: object) -> None:
        """Writes what is left."""
        self.save()
        if self._file is not None:
            self._file.close()
        self._board.close()


class Window:
    """The steps since the last line of the log: their means, their speed, and whether all is well.

    Nothing waits for the devices before a window is closed. Every process has the same one.
    """

    EXPLODED = 1000.0
    """A loss so many times the mean of the window before is no longer training."""
    NAMED = 32
    """Records of a batch that a message names, of each split."""

    def __init__(
        self,
        step: int,
        records_of: Callable[[int], Mapping[str, Sequence[int]]],
        checkpoints: Checkpoints,
    ) -> None:
        """Begins with the step after `step`.

        Args:
          step: steps done.
          records_of: from the number of a batch, from 0, to the numbers of its records by split.
          checkpoints: of the run: what is left when all is not well.
        """
        self._step, self._records_of, self._checkpoints = step, records_of, checkpoints
        self._steps: list[tuple[Mapping[str, jax.Array], int]] = []
        self._usual = math.inf
        self._since, self._waited = time.monotonic(), 0.0

    def take(self, feed: Iterator[B]) -> B:
        """Takes the next batch; counts how long the devices stood still for it.

        A step runs behind the loop's back: to wait for a batch costs nothing as long as the devices
        have a step to do. A wait counts in whole where the last step is done when the batch comes,
        though it may have ended only then: the devices stood still for no longer than that.
        """
        began = time.monotonic()
        batch = next(feed)
        waited = time.monotonic() - began
        last = self._steps[-1][0]["loss"] if self._steps else None
        if last is None or last.is_ready():  # type: ignore[attr-defined]  # it has, unsaid
            self._waited += waited
        return batch

    def add(self, metrics: Mapping[str, jax.Array], tokens: int) -> None:
        """Takes a step.

        Args:
          metrics: float32 scalars, `loss`, `grad_norm`, `documents` and `tokens` among them.
          tokens: of the batch, padding included.
        """
        self._steps.append((metrics, tokens))

    def restart(self) -> None:
        """Begins to count the time anew."""
        self._since, self._waited = time.monotonic(), 0.0

    def close(self) -> dict[str, float]:
        """Waits for the steps, and begins the next window.

        Returns:
          The means of the metrics; the rates at which the steps went, in wall time;
          `padding_share`, the share in [0, 1] of the tokens; and `waiting_share`, the share in
          [0, 1] of the time for which the devices stood still for a batch, at most: see `take`.

        Raises:
          UserError: a loss or a gradient that is no number, or a loss that has exploded.
          UserError, StorageError: the last checkpoint was not written; see `Checkpoints.check`.
        """
        self._checkpoints.check()
        metrics = jax.device_get([metrics for metrics, _ in self._steps])
        elapsed = time.monotonic() - self._since  # after device_get: the steps are done now
        for number, each in enumerate(metrics, start=self._step):
            self._check(number, float(each["loss"]), float(each["grad_norm"]))
        numbers = {key: float(np.mean([m[key] for m in metrics])) for key in metrics[0]}
        documents, tokens = (sum(float(m[key]) for m in metrics) for key in ("documents", "tokens"))
        computed, waited = sum(size for _, size in self._steps), self._waited
        self._step, self._steps, self._usual = self._step + len(metrics), [], numbers["loss"]
        self.restart()
        return numbers | {
            "documents_per_second": documents / elapsed,
            "tokens_per_second": tokens / elapsed,
            "padding_share": 1 - tokens / computed,
            "waiting_share": waited / elapsed,
        }

    def _check(self, number: int, loss: float, gradient: float) -> None:
        limit = self.EXPLODED * (self._usual or math.inf)  # of a batch without anything to learn
        if math.isfinite(loss) and math.isfinite(gradient) and loss <= limit:
            return
        last, records = self._checkpoints.step("last"), self._records_of(number)
        named = "; ".join(f"{split} {self._named(records[split])}" for split in records)
        raise UserError(
            f"step {number + 1}: loss {loss:.4g}, gradient norm {gradient:.4g}; expected numbers, "
            f"and no loss of {self.EXPLODED:g} times the mean before ({self._usual:.4g}). In its "
            f"batch are the records {named}. "
            + ("No checkpoint yet" if last is None else f"The checkpoint of step {last} is whole")
            + "; lower config.optim.learning_rate, then run the same command"
        )

    def _named(self, records: Sequence[int]) -> str:
        more = f" and {len(records) - self.NAMED} more" if len(records) > self.NAMED else ""
        return ", ".join(map(str, records[: self.NAMED])) + more


def peak_memory() -> float:
    """The most memory that this process has had, GiB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
