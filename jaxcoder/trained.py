"""A trained coder, read back from its workdir."""

import dataclasses
import math
import sys
from typing import Any

import jax

from jaxcoder import experiment, sharding
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import UserError
from jaxcoder.experiment import Experiment
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.layout import Layout
from jaxcoder.records.codes import LabelSpace
from jaxcoder.steps import Steps, make_steps
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon
from jaxcoder.tokens.tokenizer import load_tokenizer
from jaxcoder.tuned import Tuned
from jaxcoder.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class TrainedCoder:
    """What it takes to code documents.

    Attributes:
      experiment: the config that it was trained with.
      label_space: what its labels are.
      tokenizer: the one that it was trained with.
      model: the shape of the coder.
      step: of the checkpoint.
      tuned: threshold and fusion for this checkpoint; None where they have yet to be tuned.
      threshold: `tuned`'s, or the network's own at training's last evaluation.
      lexicon: to be fused with the network; None where the network stands alone.
      steps: jitted for the devices of this machine.
      params: for `steps.evaluate`.
    """

    experiment: Experiment
    label_space: LabelSpace
    tokenizer: Any
    model: CoderOptions
    step: int
    tuned: Tuned | None
    threshold: float
    lexicon: EvidenceLexicon | None
    steps: Steps
    params: Any


def restore(
    workdir: Workdir, which: str = "best", *, alone: bool = False, exact: bool = False
) -> TrainedCoder:
    """Reads a coder from a workdir.

    Args:
      workdir: of a training run, finished or not.
      which: the `best` checkpoint or the `last`.
      alone: the network alone, whatever the config fuses it with.
      exact: in float32 and without the kernels of an accelerator, whatever the config says.

    Raises:
      UserError: there is no checkpoint, or config, label space or tokenizer do not fit it.
    """
    options = workdir.read_experiment()
    label_space = workdir.read_label_space()
    tokenizer = load_tokenizer(workdir.tokenizer)
    checkpoints = Checkpoints(workdir.checkpoints, read_only=True)
    step = checkpoints.step(which)
    if step is None:
        raise UserError(f"{workdir.checkpoints}: holds no checkpoint yet; train first, or wait")
    model = experiment.fitted_model(
        options, tokenizer.vocab_size, tokenizer.pad_id, len(label_space)
    )
    encoder = model.encoder
    if exact:
        encoder = dataclasses.replace(encoder, dtype="float32", attention="xla")
    mesh = _mesh(options)
    try:
        encoder.attention_in(Layout.on(mesh))
    except ValueError as error:  # trained on other hardware
        print(f"config.model.encoder.{error}; this machine chooses", file=sys.stderr)
        encoder = dataclasses.replace(encoder, attention="auto")
    model = dataclasses.replace(model, encoder=encoder)
    steps = make_steps(mesh, model, options.loss, options.optim)
    shapes = {"coder": steps.state_shapes.params}
    progress, items = checkpoints.restore(step, shapes, label_space.hash)
    checkpoints.close()
    tuned = workdir.tuned.read(step)
    fused = options.fusion.enabled and not alone
    if tuned is not None and (tuned.fusion is not None) != fused:
        tuned = None  # the config has been changed since
    if tuned is None and not fused and progress.best_step == step:
        # The best checkpoint is saved right after the evaluation that found it to be the best.
        tuned = Tuned(progress.threshold)
    return TrainedCoder(
        options,
        label_space,
        tokenizer,
        model,
        step,
        tuned,
        tuned.threshold if tuned else progress.threshold,
        EvidenceLexicon.load(workdir.lexicon) if fused else None,
        steps,
        items["coder"],
    )


def _mesh(options: Experiment) -> jax.sharding.Mesh:
    """The config's mesh where it fits this machine, else as many devices as divide a batch."""
    batches = options.batches
    rows = batches.row_multiple if batches.tokens else batches.documents
    try:
        mesh = sharding.make_mesh(**dataclasses.asdict(options.mesh))
        if rows % sharding.shard_count(mesh, sharding.ShardingRules().batch) == 0:
            return mesh
    except ValueError:  # trained on other hardware
        pass
    if jax.process_count() > 1:
        raise UserError(
            f"config.mesh = {dataclasses.asdict(options.mesh)}, {rows} rows a batch: do not fit "
            f"{len(jax.devices())} devices; run it as one process, which uses as many as fit"
        )
    devices = jax.devices()
    return sharding.make_mesh(devices=devices[: math.gcd(len(devices), rows)])
