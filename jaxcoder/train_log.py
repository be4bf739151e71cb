"""The log of a training run: `train_metrics.jsonl` and TensorBoard's files."""

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from jaxcoder.whole_file import write_bytes
from jaxcoder.workdir import Workdir


class TrainLog:
    """Writes one line of numbers at a time. Numbers only: no text of a note can reach it."""

    def __init__(self, workdir: Workdir, step: int):
        """Opens the log, and forgets the lines after a step: a killed run does those steps again.

        Args:
          workdir: of the run.
          step: of the checkpoint that the run goes on from; 0 for a new run.
        """
        from tensorboardX import SummaryWriter  # it imports torch, seconds long, where there is one

        path = workdir.train_metrics
        kept = []
        if path.exists():
            # A killed run's last line may be cut short: without newline, and its step comes again.
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n") and json.loads(line)["step"] <= step:
                    kept.append(line)
        write_bytes(path, "".join(kept).encode())
        self._file = path.open("a")
        # purge_step hides in TensorBoard what a killed run wrote after its last checkpoint.
        self._board = SummaryWriter(str(workdir.tensorboard), purge_step=step + 1, flush_secs=10)
        self._since = time.monotonic()

    def seconds(self) -> float:
        """Returns the seconds since the last call, or since the log was opened."""
        now = time.monotonic()
        elapsed, self._since = now - self._since, now
        return elapsed

    def write(self, step: int, numbers: Mapping[str, float], group: str) -> None:
        """Writes one line.

        Args:
          step: optimiser steps done.
          numbers: by name; those that are not finite become null in the JSON line.
          group: `train` or the name of the evaluated split; stands before the names, with a slash.
        """
        named = {f"{group}/{name}": float(value) for name, value in numbers.items()}
        finite = {name: value if math.isfinite(value) else None for name, value in named.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        for name, value in named.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> "TrainLog":
        return self

    def __exit__(self, *_: object) -> None:
        """Writes what is left."""
        self._file.close()
        self._board.close()


def mean(
    recent: Sequence[tuple[Mapping[str, jax.Array], int]], seconds: Callable[[], float]
) -> dict[str, float]:
    """The means of some steps, and the rates at which they went.

    Args:
      recent: of each step its metrics, `documents` and `tokens` among them, and the size of its
        batch in tokens, padding included.
      seconds: how long they took; called when they are done.
    """
    metrics = jax.device_get([metrics for metrics, _ in recent])
    elapsed = seconds()  # after device_get: the steps are done now
    numbers = {key: float(np.mean([m[key] for m in metrics])) for key in metrics[0]}
    documents, tokens = (sum(float(m[key]) for m in metrics) for key in ("documents", "tokens"))
    computed = sum(size for _, size in recent)
    return numbers | {
        "documents_per_second": documents / elapsed,
        "tokens_per_second": tokens / elapsed,
        "padding_share": 1 - tokens / computed,
    }


def peak_memory() -> float:
    """The most memory that this process has had, GiB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
