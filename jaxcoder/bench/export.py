"""`jaxcoder bench export`: one coder in JAX, PyTorch and onnxruntime, on the same documents.

The workdir's best checkpoint is exported to both formats, which are timed and weighed. Then each
of the three computes the logits of the same padded batches, float32, with as many threads as it
takes by itself. The passes alternate, and the fastest of each counts; the first, in which JAX
compiles, does not.
"""

import functools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxcoder import entry
from jaxcoder.errors import UserError
from jaxcoder.export import sample
from jaxcoder.export.__main__ import missing_library, restore
from jaxcoder.export.parity import Reference, padded
from jaxcoder.workdir import Workdir

_MULTIPLE = 64
"""Padded lengths are multiples of it, so that few programs are compiled."""

Batch = tuple[np.ndarray, np.ndarray]
Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main(argv: Sequence[str]) -> None:
    """Prints documents a second, export time and folder size."""
    parser = entry.Parser(prog="jaxcoder bench export", description=__doc__)
    parser.add_argument("--workdir", required=True, help="folder of `jaxcoder train`")
    parser.add_argument("--data_dir", default="", help="where the records lie")
    parser.add_argument("--documents", type=int, default=64, help="of the validation split")
    parser.add_argument("--batch", type=int, default=8, help="documents computed at a time")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes of each")
    options = parser.parse_args(argv)
    for name in ("documents", "batch", "repeats"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: expected at least 1")
    for name in ("pytorch", "onnx"):
        if library := missing_library(name):
            raise UserError(f"needs {library}, which is not installed; pip install jaxcoder[onnx]")
    workdir = Workdir(options.workdir)
    coder = restore(workdir)
    drawn = sample.draw(workdir, coder, options.data_dir, options.documents)
    if drawn.without:
        print(f"{drawn.origin}: {drawn.without}")
    reference = Reference(coder, drawn.contacts)
    batches = _batches(reference.documents, options.batch)
    with tempfile.TemporaryDirectory() as scratch:
        runs = {"JAX": _jax(reference), **_exported(reference, pathlib.Path(scratch))}
        times = _times(runs, batches, options.repeats)
    count, tokens = len(reference.documents), sum(map(len, reference.documents))
    print(
        f"{count} {drawn.origin}, {tokens / count:.0f} tokens each on average, in batches of "
        f"{options.batch}, float32, {os.cpu_count()} CPU cores"
    )
    print(f"{'':<14}{'documents/s':>12}{'/ JAX':>8}")
    for name, seconds in times.items():
        print(f"{name:<14}{count / seconds:>12.1f}{times['JAX'] / seconds:>8.2f}")


def _batches(documents: Sequence[np.ndarray], size: int) -> list[Batch]:
    """Documents of like length together, padded alike for all."""
    ordered = sorted(documents, key=len)
    batches = []
    for start in range(0, len(ordered), size):
        tokens_BxT, length_B = padded(ordered[start : start + size])
        spare = -tokens_BxT.shape[1] % _MULTIPLE
        batches.append((np.pad(tokens_BxT, ((0, 0), (0, spare))), length_B))
    return batches


def _jax(reference: Reference) -> Run:
    params = jax.device_put(reference.params)
    return functools.partial(reference.logits, params=params)


def _exported(reference: Reference, scratch: pathlib.Path) -> dict[str, Run]:
    """Exports to both formats, says what that cost, and returns what computes with them."""
    from jaxcoder.export import onnx, pytorch  # an extra

    runs: dict[str, Run] = {}
    for name, module in (("PyTorch", pytorch), ("onnxruntime", onnx)):
        folder = scratch / name
        folder.mkdir()
        started = time.perf_counter()
        written = module.write(folder, reference, name)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
        print(
            f"{written.format}: exported and compared in {seconds:.0f} s, {size:.1f} MiB; logits "
            f"differ by at most {written.parity.logits:.1g}"
        )
        runs[name] = module.logits_of(folder)
    return runs


def _times(runs: dict[str, Run], batches: Sequence[Batch], repeats: int) -> dict[str, float]:
    """Seconds of the fastest pass of each."""
    best = dict.fromkeys(runs, float("inf"))
    for number in range(repeats + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            for batch in batches:
                run(*batch)
            if number:  # the first pass is a warm-up
                best[name] = min(best[name], time.perf_counter() - started)
    return best


if __name__ == "__main__":
    entry.run(main)
