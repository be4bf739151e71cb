r"""Compiles the training step for a TPU slice, on a machine that has none.

    python -m launch.compile_check --config configs/population.py --topology v5e:4x4
    python -m launch.compile_check --config configs/population.py --topology v5e:16x16 --slices 2 \
        --batch 1024 --labels 8192 --tokens 4096 --max_hbm_share 0.85 --max_collective_share 0.1
    python -m launch.compile_check --config configs/population.py --topology v5e:4x4 --sweep

The step is that of `jaxcoder train`, or `jaxcoder pretrain` for a config of it, with the TPU's
attention kernels and the config's mesh. What data would decide comes from the flags. libtpu, the
compiler, is needed: pip install -e '.[tpu]'. Compiling takes a minute to several, and up to 3 GB.

Memory, operations and collectives are the compiler's own; times are not measured. The floor is
what the chip's peaks allow; the estimate adds the compiler's cycles, the attention kernels at half
the peak, and the collectives at the network's bandwidth, as if nothing overlapped.

Exit status: 0; 1 when it does not fit or breaks a budget, in a sweep any of its programs (those
that were too large on the way to the largest batch not counted); 2 after a mistake in the flags.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from absl import flags

from jaxcoder import config_flag, entry, experiment, packed_batches, start
from jaxcoder.errors import UserError
from jaxcoder.experiment import Experiment, MeshOptions, PretrainExperiment
from jaxcoder.whole_file import write_json
from launch import chips, program, report
from launch.program import Sizes
from launch.report import Report

_TRIES = 3  # steps towards the largest batch
_PARTS = ("batch", "layouts", "scaling")
_SCALES = {  # 16, 256 and 512 chips, as slices and how many of them
    2: (("4x4", 1), ("16x16", 1), ("16x16", 2)),
    3: (("2x2x4", 1), ("4x8x8", 1), ("8x8x8", 1)),
}


def define_flags() -> None:
    """Declares the command's flags."""
    entry.define_config_flag(_kind(sys.argv[1:]))
    flags.DEFINE_string(
        "topology", None, "Slice to compile for: v4, v5e, v5p or v6e and its sizes.", required=True
    )
    flags.DEFINE_integer("slices", 1, "How many such slices.")
    flags.DEFINE_integer(
        "batch", 0, "Rows of a batch, over all chips; 0 for those that the config gives."
    )
    flags.DEFINE_integer("tokens", 0, "Tokens of a row; 0 for the config's longest document.")
    flags.DEFINE_integer("labels", 8192, "Labels of the label space.")
    flags.DEFINE_integer("vocab", 0, "Tokens of the tokenizer; 0 for those that the config wants.")
    flags.DEFINE_float("max_hbm_share", 0.0, "Budget: peak of usable memory, as 0.85; 0 for none.")
    flags.DEFINE_float(
        "max_collective_share", 0.0, "Budget: collectives of the step, as 0.10; 0 for none."
    )
    flags.DEFINE_bool(
        "sweep", False, "Largest batch, layouts and 16 to 512 chips instead of one program."
    )
    flags.DEFINE_list("parts", list(_PARTS), "Of a sweep: batch, layouts, scaling.")
    flags.DEFINE_string("json", "", "File for the numbers.")


def main() -> None:
    """Checks, prints, and ends with the status that the budgets give."""
    values = flags.FLAGS
    topology = chips.parse(values.topology, values.slices)
    if unknown := set(values.parts) - set(_PARTS):
        raise UserError(f"--parts {min(unknown)}: expected some of {', '.join(_PARTS)}")
    chips.prepare()
    options = _options()
    print(", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib", "libtpu")))
    if values.sweep:
        # Once each, though several parts yield it.
        reports = list({id(each): each for each in _sweep(options, topology)}.values())
        print("\n".join(report.table(reports)))
    else:
        reports = [_check(options, topology)]
        print("\n".join(reports[0].lines()), flush=True)
    broken = _broken(reports)
    if values.json:
        write_json(values.json, [each.as_json() for each in reports])
    if broken:
        print("\n".join(broken), file=sys.stderr)
        sys.exit(1)


def _broken(reports: Sequence[Report]) -> list[str]:
    """A line for each program that does not fit or breaks a budget; of several it says which."""
    values, lines = flags.FLAGS, []
    for each in reports:
        if faults := each.faults(values.max_hbm_share, values.max_collective_share):
            mesh = ", ".join(map(str, each.mesh.values()))
            which = f"{each.topology}, mesh ({mesh}), {each.rows} rows: " if values.sweep else ""
            lines.append(f"broken: {which}{'; '.join(faults)}")
    return lines


def _kind(arguments: Sequence[str]) -> type[Experiment] | type[PretrainExperiment]:
    """Which command the config is of: that of pretraining alone packs its rows."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in ("--config", "-config"):
            packs = "packing" in config_flag.load(value if equals else following)
            return PretrainExperiment if packs else Experiment
    return Experiment


def _options() -> Experiment | PretrainExperiment:
    config = start.resolved(flags.FLAGS.config.to_dict(), config_flag.given(start.INIT))
    kind = PretrainExperiment if "packing" in config else Experiment
    return experiment.read(config, kind)


def _sizes(options: Experiment | PretrainExperiment) -> Sizes:
    values = flags.FLAGS
    vocabulary = values.vocab or options.tokens.tokenizer.vocab_size
    if isinstance(options, PretrainExperiment):
        tokens = packed_batches.row_length(options.packing, options.model.encoder)
        return Sizes(values.batch or options.packing.rows, tokens, vocabulary, 1)
    tokens = values.tokens or options.tokens.serialise.max_tokens
    rows = values.batch or options.batches.rows(tokens)
    slots = (options.batches.max_labels or 64, options.batches.max_evidence or 256)
    return Sizes(rows, tokens, vocabulary, values.labels, *slots)


def _check(
    options: Experiment | PretrainExperiment,
    topology: chips.Topology,
    mesh: MeshOptions | None = None,
    rows: int = 0,
) -> Report:
    sizes = _sizes(options)
    sizes = dataclasses.replace(sizes, rows=rows or sizes.rows)
    encoder = options.model.encoder
    task = "pretraining" if "packing" in flags.FLAGS.config else f"{sizes.labels} labels"
    what = (
        f"{encoder.family}, {encoder.layers} layers of width {encoder.width}, {sizes.tokens} "
        f"tokens, {task}, vocabulary {sizes.vocabulary}, {encoder.dtype}"
    )
    mesh = mesh or options.mesh
    return program.check(options, mesh, sizes, topology, chips.devices(topology), what)


def _sweep(options: Experiment | PretrainExperiment, topology: chips.Topology) -> Iterator[Report]:
    """Programs side by side; says which one comes, as each takes minutes."""
    parts, rows = flags.FLAGS.parts, _sizes(options).rows

    @functools.cache  # parts share a program
    def compiled(topology: chips.Topology, mesh: MeshOptions, rows: int) -> Report | None:
        try:
            found = _check(options, topology, mesh, rows)
        except UserError as error:  # a layout that does not divide the model
            print(f"left out: {str(error)[:200]}…", flush=True)
            return None
        print("\n".join([*found.lines(), ""]), flush=True)
        return found

    def check(topology: chips.Topology, mesh: MeshOptions | None, rows: int) -> Report | None:
        return compiled(topology, mesh or options.mesh, rows)

    if "layouts" in parts:
        part = min(16, topology.chips // topology.slices)
        for mesh in (MeshOptions(), MeshOptions(fsdp=part), MeshOptions(tensor=min(4, part))):
            if found := check(topology, mesh, rows):
                yield found
    if "batch" in parts:
        hbm = topology.chip.hbm * (flags.FLAGS.max_hbm_share or 1.0)
        yield from _largest(check, topology, rows, hbm)
    if "scaling" in parts:
        for shape, slices in _SCALES[len(topology.sizes)]:
            larger = chips.parse(f"{topology.chip.name}:{shape}", slices)
            if found := check(larger, None, rows * larger.chips // topology.chips):
                yield found


def _largest(check: Any, topology: chips.Topology, rows: int, hbm: float) -> Iterator[Report]:
    """The largest batch within the memory: it grows with rows, nearly along a line."""

    def fits(found: Report | None) -> bool:
        return found is not None and not found.error and found.memory.peak <= hbm

    best, next_ = check(topology, None, rows), check(topology, None, 2 * rows)
    if not (fits(best) and fits(next_)):
        if best:
            yield best
        return
    limit = math.inf  # rows that are known not to fit
    for _ in range(_TRIES):
        slope = (next_.memory.peak - best.memory.peak) / (next_.rows - best.rows)
        best = next_
        free = hbm - best.memory.peak
        while True:
            most = min(best.rows + free / max(slope, 1.0), limit - rows) // rows * rows
            if most < 1.1 * best.rows:
                yield best
                return
            next_ = check(topology, None, int(most))
            if fits(next_):
                break
            limit, slope = most, 1.2 * slope
    yield next_


if __name__ == "__main__":
    entry.launch(define_flags, main, __doc__)
