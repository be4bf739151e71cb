"""The step of a config, compiled for chips that are not there."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcoder import experiment, sharding, steps
from jaxcoder.errors import UserError
from jaxcoder.experiment import Experiment, MeshOptions, PretrainExperiment
from jaxcoder.masking import Vocabulary
from jaxcoder.models.masked_lm import MaskedLMOptions
from jaxcoder.objectives import MaskedWords
from launch import flops, hlo
from launch.chips import Topology
from launch.report import Memory, Report


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What data decide in a run.

    Attributes:
      rows: of a batch, over all chips.
      tokens: T, of a row.
      vocabulary: V, of the tokenizer.
      labels: L, of the label space.
      label_slots: K, labels that a document has at most.
      evidence_slots: E, evidence spans that it has at most.
    """

    rows: int
    tokens: int
    vocabulary: int
    labels: int
    label_slots: int = 64
    evidence_slots: int = 256


def check(
    options: Experiment | PretrainExperiment,
    mesh_options: MeshOptions,
    sizes: Sizes,
    topology: Topology,
    devices: Sequence[Any],
    what: str,
) -> Report:
    """Compiles the step that a run of these options takes, and reads what came out.

    Args:
      options: the experiment.
      mesh_options: how its mesh is cut.
      sizes: what data decide.
      topology: of the devices.
      devices: from `chips.devices`.
      what: said of it in the report.

    Raises:
      UserError: options that do not fit the mesh.
    """
    try:
        mesh = sharding.make_mesh(**dataclasses.asdict(mesh_options), devices=devices)
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None
    count = sharding.shard_count(mesh, sharding.DEFAULT_RULES.batch)
    if sizes.rows % count:
        raise UserError(
            f"--batch {sizes.rows}: the mesh {dict(mesh.shape)} splits rows over {count} chips; "
            "expected a multiple of them"
        )
    try:
        jitted, shapes = _step(options, mesh, sizes)
    except ValueError as error:
        raise UserError(f"config.mesh does not fit config.model: {error}") from None
    batch = {
        name: jax.ShapeDtypeStruct((sizes.rows, *shape), dtype, sharding=jitted.batch_sharding)
        for name, (shape, dtype) in shapes.items()
    }
    start = time.monotonic()
    traced = jitted.train.trace(jitted.state_shapes, batch)  # type: ignore[attr-defined]
    report = Report(
        what, topology, dict(mesh.shape), sizes.rows, jitted.attention, time.monotonic() - start
    )
    try:
        compiled = traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        text = " ".join(str(error).split())
        if "RESOURCE_EXHAUSTED" not in text:
            raise
        text = text.removeprefix("RESOURCE_EXHAUSTED: ")[:400]
        return dataclasses.replace(report, error=text, seconds=time.monotonic() - start)
    seconds = time.monotonic() - start
    sums = flops.count(traced.jaxpr)
    memory = compiled.memory_analysis()
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return dataclasses.replace(
        report,
        seconds=seconds,
        memory=Memory(
            memory.argument_size_in_bytes,
            memory.temp_size_in_bytes + kept,
            memory.generated_code_size_in_bytes,
        ),
        products=sums.products / topology.chips,
        kernels=sums.kernels / topology.chips,
        program=hlo.read(compiled.as_text()),
    )


Shapes = dict[str, tuple[tuple[int, ...], Any]]


def _step(
    options: Experiment | PretrainExperiment, mesh: jax.sharding.Mesh, sizes: Sizes
) -> tuple[steps.Steps, Shapes]:
    """The jitted steps, and of each array of a batch the shape without its rows."""
    if isinstance(options, PretrainExperiment):
        encoder = options.model.encoder
        if not encoder.init:
            encoder = dataclasses.replace(encoder, vocab_size=sizes.vocabulary)
        flags = np.zeros(encoder.vocab_size, bool)
        objective = MaskedWords(
            MaskedLMOptions(encoder), options.masking, Vocabulary(flags, flags, 0)
        )
        row = ((sizes.tokens,), jnp.int32)
        return steps.jit_steps(mesh, objective, options.optim), {
            **{"tokens": row, "segments": row, "row": ((), jnp.int32)},
        }
    pad_id = options.model.encoder.pad_id
    model = experiment.fitted_model(options, sizes.vocabulary, pad_id, sizes.labels)
    number = ((), jnp.int32)
    return steps.make_steps(mesh, model, options.loss, options.optim), {
        "tokens": ((sizes.tokens,), jnp.int32),
        "labels": ((sizes.label_slots,), jnp.int32),
        "evidence": ((sizes.evidence_slots, 4), jnp.int32),
        **{"length": number, "missing": number, "index": number, "_mask": ((), jnp.bool_)},
    }
