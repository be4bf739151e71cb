r"""Pretrains an encoder on text alone: masked language modelling.

    jaxcoder pretrain --config configs/pretrain_codiesp.py --workdir runs/spanish \
        --config.records.source_dir=final_dataset_v4_to_publish
    jaxcoder train --config configs/codiesp.py --workdir runs/codiesp \
        --config.records.source_dir=final_dataset_v4_to_publish \
        --config.model.encoder.init=runs/spanish/encoder

Contacts need no codes. Tokens are hidden, and the encoder learns to name them from what stands
around them in the same document; documents are packed side by side in full rows. With
--config.model.encoder.init=FOLDER it goes on from an encoder, published or pretrained.

WORKDIR/encoder is the best encoder so far, by its loss on held-out text: a folder of Hugging Face
with weights, config and tokenizer, which config.model.encoder.init of `jaxcoder train` takes. A run
that was killed goes on when the same command is given again; SIGTERM saves before it ends the run.
On several hosts, the same command on each, as for `jaxcoder train`.
"""

import contextlib
import dataclasses
import functools
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from tqdm import tqdm

from jaxcoder import (
    config_flag,
    distributed,
    entry,
    experiment,
    packed_batches,
    pretrained,
    profile,
    sharding,
    start,
    steps,
)
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import UserError
from jaxcoder.experiment import PretrainExperiment
from jaxcoder.masking import Vocabulary
from jaxcoder.models.masked_lm import MaskedLMOptions
from jaxcoder.objectives import MaskedWords
from jaxcoder.packed_batches import Packed
from jaxcoder.progress import Progress
from jaxcoder.steps import Steps, TrainState
from jaxcoder.tokens import words
from jaxcoder.tokens.data import TokenData
from jaxcoder.train import data_of
from jaxcoder.train_log import TrainLog, Window, peak_memory
from jaxcoder.workdir import Workdir

_BAR = ("loss", "masked_accuracy", "tokens_per_second", "padding_share", "waiting_share")
_ITEM = "masked_lm"  # of a checkpoint


def define_flags() -> None:
    """Declares the command's flags."""
    entry.define_config_flag(PretrainExperiment)
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; a run that it holds is continued.", required=True
    )
    flags.DEFINE_integer("profile_steps", 0, profile.HELP, lower_bound=0)
    distributed.define_flags()


def main() -> None:
    """Pretrains, and closes what is open whatever happens."""
    distributed.start()
    with contextlib.ExitStack() as exits:
        _pretrain(exits)


def _pretrain(exits: contextlib.ExitStack) -> None:
    """The run. The order in the loop is that of `train`: batch, step, log, evaluate, save."""
    workdir = Workdir(flags.FLAGS.workdir, PretrainExperiment)
    kept = workdir.read_config() if workdir.begun else None
    config = start.resolved(flags.FLAGS.config.to_dict(), config_flag.given(start.INIT), kept)
    options = experiment.read(config, PretrainExperiment)
    lead = jax.process_index() == 0
    started = time.monotonic()

    ################################# Data #################################

    data = data_of(workdir, options, goes_on=kept is not None)
    model = _fitted(options, data)
    length = packed_batches.row_length(options.packing, model.encoder)
    packing, held_out = options.packing, (options.packing.held_out,)
    rows = Packed(data, packing.splits, packing, length, options.seed)
    judged = Packed(data, held_out, packing, length, most=packing.held_out_documents)
    if lead:
        for what, packed in (("to train on", rows), (f"of {packing.held_out}", judged)):
            logging.info(
                "%s: %d documents (%d without text left out), %d tokens; %d batches, rows of %d",
                *(what, packed.documents, packed.without_text, packed.tokens),
                *(packed.steps_per_epoch, length),
            )
    total_steps, warmup_steps, evaluate_every, checkpoint_every, log_every = experiment.schedule(
        options.train, per_epoch=rows.steps_per_epoch, batch=rows.documents_per_step
    )

    ########################## Model and optimiser #########################

    try:
        mesh = sharding.make_mesh(**dataclasses.asdict(options.mesh))
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None
    shards = sharding.shard_count(mesh, sharding.DEFAULT_RULES.batch)
    packed_batches.check_rows(packing, shards)
    optim_options = dataclasses.replace(
        options.optim, total_steps=total_steps, warmup_steps=warmup_steps
    )
    vocabulary = _vocabulary(data, model.encoder.vocab_size, options.masking.whole_word)
    objective = MaskedWords(model, options.masking, vocabulary)
    try:
        jitted = steps.jit_steps(mesh, objective, optim_options)
    except ValueError as error:
        raise UserError(f"config.mesh does not fit config.model: {error}") from None
    if lead:
        logging.info("attention: %s", jitted.attention)

    ############################ Start, or go on ###########################

    for change in workdir.check(config, data) if lead else ():
        logging.info("changed since this run was last started: %s", change)
    if lead and (lock := workdir.lock()):
        exits.callback(lock.close)
    checkpoints = Checkpoints(workdir.checkpoints)
    progress = Progress(step=0, label_space=data.label_space.hash, metric="loss")
    last = checkpoints.step("last")
    if last is None:
        state = jitted.init(options.seed)
        where, say = jitted.state_shapes.params, logging.info if lead else logging.debug
        state = dataclasses.replace(state, params=_begun(state.params, where, model, say))
    else:
        shapes = steps.to_items(jitted.state_shapes, _ITEM, jitted.state_shapes.params)
        progress, items = checkpoints.restore(last, shapes, progress.label_space)
        state = steps.from_items(items, _ITEM)
        logging.info("going on from step %d of %d", last, total_steps)
    if lead:  # after all that may refuse to go on
        workdir.create(config, data)
    log = (
        exits.enter_context(TrainLog(workdir, progress.step, pending=progress.pending))
        if lead
        else None
    )

    ################################# Loop #################################

    bar = tqdm(
        total=total_steps,
        initial=progress.step,
        unit="step",
        disable=not (lead and sys.stderr.isatty()),
    )
    share = sharding.share_of(jitted.batch_sharding)
    speeds: list[float] = []
    accuracy = ""

    def evaluated(state: TrainState, progress: Progress) -> Progress:
        """The progress after an evaluation on held-out text, which the log then has."""
        nonlocal accuracy
        params = jitted.evaluation_params(state)
        scores, step = evaluate(jitted, params, judged), progress.step
        _check(scores, packing.held_out)
        progress = progress.judged(scores["loss"], larger=False)
        if log:
            log.write(step, scores, packing.held_out)
            shown = ", ".join(f"{key} {value:.4f}" for key, value in scores.items())
            bar.write(f"step {step} of {total_steps}: {packing.held_out} {shown}", file=sys.stderr)
        if progress.best_step == step:  # before the checkpoint, which says that this is there
            accuracy = f", masked accuracy {scores['masked_accuracy']:.4f}"
            whole = sharding.whole(params)
            if lead:
                pretrained.save(workdir.encoder, model.encoder, whole, data.tokenizer)
        return progress

    if progress.pending:  # since the run was told to end
        progress = evaluated(state, progress)
        if lead:
            checkpoints.amend(progress)
    put = functools.partial(sharding.put_batch, rows=jitted.batch_sharding)
    feed = rows.batches(progress.step, None, share, put)
    patience = options.train.patience or total_steps
    window = Window(progress.step, rows.documents_at, checkpoints)
    preemption = exits.enter_context(distributed.Preemption())
    traced, left = flags.FLAGS.profile_steps if lead else 0, range(progress.step, total_steps)
    trace = profile.Profile(workdir.profile, traced, left, lambda _: length, logging.info)
    exits.enter_context(trace)
    preempted = False
    while progress.step < total_steps and progress.evaluations_since_best < patience:
        trace.begin(progress.step)
        batch = window.take(feed)
        state, metrics = jitted.train(state, batch)
        trace.end(progress.step, metrics)
        window.add(metrics, batch["tokens"].size)
        progress = dataclasses.replace(progress, step=progress.step + 1)
        step = progress.step
        preempted = preemption.reached(step)
        due = step % evaluate_every == 0 or step == total_steps
        saving = due or step % checkpoint_every == 0 or preempted
        bar.update()

        if saving or step % log_every == 0:  # at each save, so that a resumed run logs the same
            numbers = window.close()
            speeds.append(numbers["tokens_per_second"])
            if log:
                log.write(step, numbers, "train")
                bar.set_postfix({key: f"{numbers[key]:.3g}" for key in _BAR})

        if due and preempted:  # an evaluation may take longer than there is time to save
            progress = dataclasses.replace(progress, pending=True)
        elif due:
            progress = evaluated(state, progress)

        if saving:
            params = jitted.evaluation_params(state)
            checkpoints.save(progress, steps.to_items(state, _ITEM, params))
            if log:
                log.save()
            window.restart()  # the time of an evaluation or a checkpoint is not training's
        if preempted:
            break

    ############################### Leave it ###############################

    checkpoints.close()
    bar.close()
    over = not progress.pending and (
        progress.step == total_steps or progress.evaluations_since_best >= patience
    )
    if lead and over:
        workdir.finish(progress.step)
    if lead and not over:
        print(preemption.message(workdir.path, progress.step, total_steps))
    elif lead:
        early = (
            f" ({patience} evaluations without improvement end a run)"
            if progress.step < total_steps
            else ""
        )
        verdict = (
            "not evaluated yet"
            if progress.best_value is None
            else f"best at step {progress.best_step} (loss {progress.best_value:.4f}{accuracy} on "
            f"{packing.held_out}): {workdir.encoder}"
        )
        speed = f"{statistics.median(speeds):,.0f} tokens/s, " if speeds else ""
        print(
            f"{workdir.path}: {progress.step} of {total_steps} steps{early}, {verdict}; {speed}"
            f"{time.monotonic() - started:.0f} s, peak memory {peak_memory():.1f} GiB"
        )


def evaluate(jitted: Steps, params: Any, judged: Packed) -> dict[str, float]:
    """Scores held-out text; its masks are the same every time, and for every model.

    Args:
      jitted: steps of `MaskedWords`.
      params: as from `evaluation_params`.
      judged: the text.

    Returns:
      `loss`, in nats a hidden token; `masked_accuracy`, share in [0, 1] of the hidden tokens that
      are the most probable one in their place; and `masked_tokens`, how many there are.
    """
    sums: dict[str, jax.Array] = {}
    share = sharding.share_of(jitted.batch_sharding)
    for batch in judged.batches(0, judged.steps_per_epoch, share):
        scores = jitted.evaluate(params, sharding.put_batch(batch, jitted.batch_sharding))
        # Row by row, so that no device waits for another: with the sum of all rows taken here, tens
        # of small programs waited for eight virtual devices of two cores, at times for ever.
        sums = {key: sums.get(key, 0.0) + value for key, value in scores.items()}
    numbers = {key: float(jnp.sum(value)) for key, value in sums.items()}
    hidden = max(numbers["hidden"], 1.0)
    return {
        "loss": numbers["loss"] / hidden,
        "masked_accuracy": numbers["correct"] / hidden,
        "masked_tokens": numbers["hidden"],
    }


def _check(scores: Mapping[str, float], held_out: str) -> None:
    """Raises UserError where scores cannot decide which encoder is best."""
    if not scores["masked_tokens"]:
        raise UserError(
            f"config.packing.held_out = {held_out!r}: of so little text nothing is hidden; choose "
            "a split with more, or a higher config.masking.rate"
        )
    if not math.isfinite(scores["loss"]):
        raise UserError(
            f"the loss on {held_out} is {scores['loss']}: the run has diverged; set a lower "
            "config.optim.learning_rate, and begin in a new --workdir"
        )


def _fitted(options: PretrainExperiment, data: TokenData) -> MaskedLMOptions:
    """The model with the sizes that the tokenizer decides; a checkpoint brings its own."""
    encoder = options.model.encoder
    if not encoder.init:
        encoder = dataclasses.replace(
            encoder, vocab_size=data.tokenizer.vocab_size, pad_id=data.tokenizer.pad_id
        )
    return MaskedLMOptions(encoder)


def _vocabulary(data: TokenData, rows: int, whole_word: bool) -> Vocabulary:
    """What masking has to know of a tokenizer's tokens, and of the rows that the table has more."""
    found = data.tokenizer.vocabulary()
    words.check(found, whole_word)
    spare = (0, rows - len(found.special))
    begins = np.zeros_like(found.special) if found.begins_word is None else found.begins_word
    return Vocabulary(
        np.pad(begins, spare), np.pad(found.special, spare, constant_values=True), found.mask_id
    )


def _begun(params: Any, shapes: Any, model: MaskedLMOptions, say: Callable[[str], None]) -> Any:
    """Random parameters, or those of the checkpoint that the config names.

    Args:
      params: random ones.
      shapes: the same as `jax.ShapeDtypeStruct` with shardings.
      model: the model.
      say: takes a line about what was read.
    """
    name = model.encoder.init
    if not name:
        return params
    loaded = {"encoder": pretrained.load(name, model.encoder, say)}
    head = pretrained.load_masked_lm(name, model.encoder)
    if head is None:
        say(f"{name} has nothing that predicts hidden tokens: this part starts anew")
    else:
        loaded["masked_lm"] = head
    return params | {key: jax.tree.map(start.put, loaded[key], shapes[key]) for key in loaded}


if __name__ == "__main__":
    entry.launch(define_flags, main, __doc__)
