r"""Trains a coder on the contacts that a config names, and evaluates it along the way.

    jaxcoder train --config configs/demo.py --workdir runs/demo
    jaxcoder train --config configs/codiesp.py:language=en --workdir runs/en \
        --config.train.total='5 epochs'

What is missing under the config's data_dir (contact records, token records) is built first. A run
that was killed goes on when the same command is given again: from its last checkpoint, with the
same batches, the same dropout and the same log; also on other devices or more or fewer processes.
SIGTERM saves before it ends the run; an evaluation that was due then comes first when it goes on.
The workdir then holds all that evaluate and predict need, and finished.json once the run is over.

On several hosts, the same command on each, with --distributed (Cloud TPU, GKE, SLURM); the records
are built before. launch/README.md goes through it.
"""

import contextlib
import dataclasses
import functools
import sys
import time

import jax
from absl import flags, logging
from etils import epath
from tqdm import tqdm

from jaxcoder import (
    batches,
    config_flag,
    distributed,
    entry,
    evaluate,
    experiment,
    profile,
    sharding,
    split_pass,
    start,
    steps,
)
from jaxcoder.baseline import fit_evidence_lexicon
from jaxcoder.batch_plan import plan_evaluation
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import UserError
from jaxcoder.experiment import Experiment, PretrainExperiment
from jaxcoder.progress import Progress
from jaxcoder.records import builder as records_builder
from jaxcoder.records.runner import Local
from jaxcoder.scorer import model_score
from jaxcoder.tokens import builder as tokens_builder
from jaxcoder.tokens.builder import TokenData
from jaxcoder.train_log import TrainLog, Window, peak_memory
from jaxcoder.workdir import Workdir

_BAR = ("loss", "documents_per_second", "tokens_per_second", "padding_share", "waiting_share")


def define_flags() -> None:
    """Declares the command's flags."""
    entry.define_config_flag(Experiment)
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; a run that it holds is continued.", required=True
    )
    flags.DEFINE_integer("profile_steps", 0, profile.HELP, lower_bound=0)
    distributed.define_flags()


def main() -> None:
    """Trains, and closes what is open whatever happens."""
    distributed.start()
    with contextlib.ExitStack() as exits:
        _train(exits)


def _train(exits: contextlib.ExitStack) -> None:
    """The run. The order in the loop is a contract: batch, step, log, evaluate, save."""
    workdir = Workdir(flags.FLAGS.workdir)
    kept = workdir.read_config() if workdir.begun else None
    config = start.resolved(flags.FLAGS.config.to_dict(), config_flag.given(start.INIT), kept)
    options = experiment.read(config)
    lead = jax.process_index() == 0
    started = time.monotonic()

    ################################# Data #################################

    data = data_of(workdir, options, goes_on=kept is not None)
    plan = batches.TrainingPlan(data, options.batches, options.seed)
    if lead and (plan.slots.labels_dropped or plan.slots.evidence_dropped):
        logging.info(
            "config.batches.max_labels and max_evidence drop %d labels and %d evidence spans",
            *(plan.slots.labels_dropped, plan.slots.evidence_dropped),
        )
    codes = split_pass.split_codes(data, "validation")

    total_steps, warmup_steps, evaluate_every, checkpoint_every, log_every = experiment.schedule(
        options.train, per_epoch=plan.steps_per_epoch, batch=plan.contacts_per_step
    )

    ########################## Model and optimiser #########################

    try:
        mesh = sharding.make_mesh(**dataclasses.asdict(options.mesh))
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None
    shards = sharding.shard_count(mesh, sharding.DEFAULT_RULES.batch)
    _, judged = plan_evaluation(data.lengths("validation"), options.batches)
    batches.check_rows([*plan.bucket_lengths, *judged], options.batches, shards)
    optim_options = dataclasses.replace(
        options.optim,
        total_steps=total_steps,
        warmup_steps=warmup_steps,
    )
    model = experiment.fitted_model(
        options, data.tokenizer.vocab_size, data.tokenizer.pad_id, len(data.label_space)
    )
    try:
        jitted = steps.make_steps(mesh, model, options.loss, optim_options)
    except ValueError as error:
        raise UserError(f"config.mesh does not fit config.model: {error}") from None
    if lead:
        logging.info("attention: %s", jitted.attention)

    ############################ Start, or go on ###########################

    lexicon = fit_evidence_lexicon(data, options) if lead and options.fusion.enabled else None
    for change in workdir.check(config, data) if lead else ():
        logging.info("changed since this run was last started: %s", change)
    decisive, larger = options.train.metric, options.train.metric != "loss"
    if lead and (lock := workdir.lock()):
        exits.callback(lock.close)
    checkpoints = Checkpoints(workdir.checkpoints)
    progress = Progress(step=0, label_space=data.label_space.hash, metric=decisive)
    last = checkpoints.step("last")
    if last is None:
        state = jitted.init(options.seed)
        where, say = jitted.state_shapes.params, logging.info if lead else logging.debug
        params = start.initialised(state.params, where, model, data.label_space, say)
        state = dataclasses.replace(state, params=params)
    else:
        shapes = steps.to_items(jitted.state_shapes, "coder", jitted.state_shapes.params)
        progress, items = checkpoints.restore(last, shapes, progress.label_space)
        state = steps.from_items(items, "coder")
        logging.info("going on from step %d of %d", last, total_steps)
    if progress.metric != decisive:
        raise UserError(
            f"config.train.metric = {decisive!r}: this run's best checkpoint was chosen by "
            f"{progress.metric!r}; set it back, or train in a new workdir"
        )
    if lead:  # after all that may refuse to go on
        if lexicon is not None:
            workdir.write_lexicon(lexicon)
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
    if progress.step < total_steps:
        logging.info(
            "training %d steps, evaluated every %d; the first batch of each of %d lengths compiles",
            *(total_steps - progress.step, evaluate_every, len(plan.bucket_lengths)),
        )
    share = sharding.share_of(jitted.batch_sharding)

    def evaluated(state: steps.TrainState, progress: Progress) -> Progress:
        """The progress after an evaluation on validation, which the log then has."""
        summary = evaluate.evaluate(
            model_score(jitted, jitted.evaluation_params(state)),
            batches.evaluation_batches(data, "validation", options.batches, share),
            codes,
            data.label_space,
            jitted.batch_sharding,
        )
        scores, step = summary.metrics, progress.step
        if log:
            log.write(step, scores, "validation")
            shown = ", ".join(f"{key} {scores[key]:.4f}" for key in ("loss", "micro_f1", "map"))
            bar.write(f"step {step} of {total_steps}: validation {shown}", file=sys.stderr)
        return progress.judged(scores[decisive], larger, scores["threshold"])

    if progress.pending:  # since the run was told to end
        progress = evaluated(state, progress)
        if lead:
            checkpoints.amend(progress)
    put = functools.partial(sharding.put_batch, rows=jitted.batch_sharding)
    feed = plan.batches(progress.step, share, put)
    window = Window(progress.step, plan.contacts_at, checkpoints)
    preemption = exits.enter_context(distributed.Preemption())
    traced, left = flags.FLAGS.profile_steps if lead else 0, range(progress.step, total_steps)
    trace = profile.Profile(
        workdir.profile, traced, left, lambda number: plan.at(number).length, logging.info
    )
    exits.enter_context(trace)
    preempted = False
    while progress.step < total_steps and not _out_of_patience(progress, options.train.patience):
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
            if log:
                log.write(step, numbers, "train")
                bar.set_postfix({key: f"{numbers[key]:.3g}" for key in _BAR})

        if due and preempted:  # an evaluation may take longer than there is time to save
            progress = dataclasses.replace(progress, pending=True)
        elif due:
            progress = evaluated(state, progress)

        if saving:
            coder = jitted.evaluation_params(state)
            checkpoints.save(progress, steps.to_items(state, "coder", coder))
            if log:
                log.save()
            window.restart()  # the time of an evaluation or a checkpoint is not training's
        if preempted:
            break

    ############################### Leave it ###############################

    checkpoints.close()
    bar.close()
    over = not progress.pending and (
        progress.step == total_steps or _out_of_patience(progress, options.train.patience)
    )
    if lead and over:
        workdir.finish(progress.step)
    if lead and not over:
        print(preemption.message(workdir.path, progress.step, total_steps))
    elif lead:
        seconds = time.monotonic() - started
        early = (
            f" ({options.train.patience} evaluations without improvement end a run)"
            if progress.step < total_steps
            else ""
        )
        verdict = (
            "not evaluated yet"
            if progress.best_value is None
            else f"best at step {progress.best_step} "
            f"({decisive} {progress.best_value:.4f} on validation)"
        )
        print(
            f"{workdir.path}: {progress.step} of {total_steps} steps{early}, {verdict}; "
            f"{seconds:.0f} s, peak memory {peak_memory():.1f} GiB"
        )


def data_of(workdir: Workdir, options: Experiment | PretrainExperiment, goes_on: bool) -> TokenData:
    """Opens the token records of a run; as `prepare`.

    Args:
      workdir: of the run.
      options: its experiment.
      goes_on: whether the workdir has checkpoints: then a published tokenizer need not be there.
    """
    tokenizer = options.tokens.tokenizer.path
    if goes_on and tokenizer and not epath.Path(tokenizer).exists():
        logging.info("%s is gone; going on with the token records of this run", tokenizer)
        return workdir.open_tokens(options.data_dir)
    return prepare(options)


def prepare(options: Experiment | PretrainExperiment) -> TokenData:
    """Opens the token records of an experiment; builds what is missing where one process runs.

    A worker that has the records and not the extract they were made of needs it no more.

    Raises:
      UserError: something is missing on a pod, with the command that builds it; or a mistake in the
        source's files or in the options.
    """
    there = (epath.Path(options.data_dir) / "contact_records").exists()
    if jax.process_count() > 1 or (there and not records_builder.at_hand(options.records)):
        return tokens_builder.open_built(options.records, options.tokens, options.data_dir)
    logging.info("opening the records below %s; what is missing is built", options.data_dir)
    all_cores = Local(0)
    contacts = records_builder.build(
        options.records.open(),
        options.data_dir,
        say=logging.info,
        source_dir=options.records.source_dir,
        runner=all_cores,
    )
    return tokens_builder.build(
        contacts, options.data_dir, options.tokens, say=logging.info, runner=all_cores
    )


def _out_of_patience(progress: Progress, patience: int) -> bool:
    return 0 < patience <= progress.evaluations_since_best


if __name__ == "__main__":
    entry.launch(define_flags, main, __doc__)
