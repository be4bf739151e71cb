r"""`jaxcoder bench epoch`: an epoch of a corpus with its real lengths, against PyTorch.

    jaxcoder bench epoch --config configs/codiesp.py \
        --config.records.source_dir=final_dataset_v4_to_publish

Both sides train the same coder on the same contacts, without dropout, evidence and mini-documents.
Ours has the batches of `jaxcoder train`, whose lengths are few and padding little; the other side
is PyTorch, eager, on batches of --batch documents in random order, padded to the longest of each,
as published code does. The two take turns, some seconds each; steps are counted, neither what
compiles nor the making of batches, for which there is `jaxcoder bench input`.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from absl import flags

from jaxcoder import batches, entry, experiment
from jaxcoder.batches import Batch, TrainingPlan
from jaxcoder.bench.train_step import jax_step
from jaxcoder.errors import UserError
from jaxcoder.experiment import Experiment
from jaxcoder.models.coder import CoderOptions
from jaxcoder.optim import OptimOptions
from jaxcoder.sharding import Share
from jaxcoder.tokens.data import TokenData
from jaxcoder.train import prepare

_WARM_UP = 2  # batches of PyTorch that are not counted
# Tokens of a turn. Step by step neither ran as it does alone: JAX a quarter slower.
_TURN = 50_000


def define_flags() -> None:
    """Declares the command's flags."""
    entry.define_config_flag(Experiment)
    flags.DEFINE_integer("batch", 8, "Documents in a batch of PyTorch.", lower_bound=1)
    flags.DEFINE_integer("contacts", 0, "Of the training split at most; 0 for all.", lower_bound=0)


def main(argv: Sequence[str]) -> None:
    """Prints tokens a second, padding not counted, its share, and the ratio."""
    entry.launch(define_flags, _bench, __doc__, argv)


@dataclasses.dataclass
class Side:
    """One way through the epoch.

    Attributes:
      step: takes a batch.
      feed: batches.
      seconds: that the steps took.
      real: tokens of documents in them.
      computed: these and padding.
    """

    step: Callable[[Batch], float]
    feed: Iterator[Batch]
    seconds: float = 0.0
    real: int = 0
    computed: int = 0

    def turn(self) -> bool:
        """Takes the steps of a turn; False when there are none left."""
        made, tokens = [], 0
        while tokens < _TURN and (batch := next(self.feed, None)) is not None:
            made.append(batch)
            tokens += int(batch["length"].sum())
            self.computed += batch["tokens"].size
        self.real += tokens
        started = time.perf_counter()
        for batch in made:
            self.step(batch)
        self.seconds += time.perf_counter() - started
        return bool(made)


def _bench() -> None:
    try:
        from jaxcoder.bench import torch_step  # an extra
    except ImportError:
        remedy = "pip install 'jaxcoder[torch]'"
        raise UserError(f"needs torch, which is not installed; {remedy}") from None
    wanted = flags.FLAGS
    options = experiment.read(wanted.config.to_dict())
    data = prepare(options)
    model = _without_dropout(
        experiment.fitted_model(
            options, data.tokenizer.vocab_size, data.tokenizer.pad_id, len(data.label_space)
        )
    )
    optim = OptimOptions(learning_rate=1e-4, schedule="constant")
    ours, params, _ = jax_step(model, optim)
    theirs = torch_step.make_step(model, params, optim, "eager")
    plan = TrainingPlan(data, dataclasses.replace(options.batches, mini_share=0.0), options.seed)
    _warm_up(ours, theirs, plan, _padded(data, plan, wanted.batch, 0))
    sides = {
        "JAX, buckets": Side(ours, _epoch(plan, wanted.contacts)),
        "torch, padded": Side(theirs, _padded(data, plan, wanted.batch, wanted.contacts)),
    }
    waiting = list(sides.values())
    while waiting:
        # The one that is behind, so that what else the machine does falls on both.
        side = min(waiting, key=lambda each: each.real)
        if not side.turn():
            waiting.remove(side)
    _report(data, sides)


def _warm_up(
    ours: Callable[[Batch], float],
    theirs: Callable[[Batch], float],
    plan: TrainingPlan,
    random: Iterator[Batch],
) -> None:
    """A batch of each of our lengths, which compiles, and some of the other side."""
    first: dict[int, int] = {}
    for step in range(plan.steps_per_epoch):
        first.setdefault(plan.at(step).length, step)
    for step in first.values():
        ours(next(plan.batches(step, Share())))
    for batch in itertools.islice(random, _WARM_UP):
        theirs(batch)


def _without_dropout(model: CoderOptions) -> CoderOptions:
    encoder = dataclasses.replace(
        model.encoder, dropout=0.0, attention_dropout=0.0, frozen=-1, init=""
    )
    return dataclasses.replace(model, encoder=encoder)


def _epoch(plan: TrainingPlan, contacts: int) -> Iterator[Batch]:
    seen = 0
    feed = plan.batches(0, Share())
    for _ in range(plan.steps_per_epoch):
        batch = next(feed)
        yield batch
        seen += int(batch["_mask"].sum())
        if contacts and seen >= contacts:
            return


def _padded(data: TokenData, plan: TrainingPlan, size: int, contacts: int) -> Iterator[Batch]:
    """Batches of documents in random order, padded to the longest of each."""
    source, count = data.batch_source("train"), len(data.lengths("train"))
    order = np.random.default_rng(0).permutation(count)[: contacts or count]
    for start in range(0, len(order), size):
        rows = [(int(number), source[int(number)]) for number in order[start : start + size]]
        longest = max(len(record["tokens"]) for _, record in rows)
        yield batches.make(rows, longest, plan.slots.labels, None)


def _report(data: TokenData, sides: Mapping[str, Side]) -> None:
    print(f"{data.name}: an epoch of the training split, {os.cpu_count()} CPU cores")
    print(f"{'':<16}{'tokens':>13}{'seconds':>9}{'tokens/s':>10}{'padding':>9}{'to torch':>10}")
    rates = {name: side.real / side.seconds for name, side in sides.items()}
    *_, last = rates.values()
    for name, side in sides.items():
        print(
            f"{name:<16}{side.real:>13,}{side.seconds:>9.1f}{rates[name]:>10,.0f}"
            f"{1 - side.real / side.computed:>9.1%}{rates[name] / last:>10.2f}"
        )


if __name__ == "__main__":
    entry.run(main)
