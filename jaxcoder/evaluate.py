"""Evaluates a coder on a split: `jaxcoder evaluate --workdir DIR --split test`."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxcoder import sharding
from jaxcoder.metrics import grid, statistics
from jaxcoder.metrics.summary import Summary, summarise
from jaxcoder.records.codes import LabelSpace
from jaxcoder.steps import Steps

HostBatch = Mapping[str, np.ndarray]
Score = Callable[[HostBatch], tuple[jax.Array, jax.Array]]
"""From a batch to probabilities float32 [B, L] and loss float32 [B], rows split over devices."""

_sigmoid = jax.jit(jax.nn.sigmoid)


class Writer(Protocol):
    """What takes the probabilities of each batch beside the metrics."""

    def write(self, batch: HostBatch, probabilities_BxL: jax.Array) -> None:
        """Takes a batch."""


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """What metrics need of a split's records beside the batches.

    Attributes:
      missing: number of contacts by gold code outside the label space.
      specialties: the names that occur, sorted; `unknown` where a contact has none.
      specialty: int32 [N], index into `specialties` by record number.
    """

    missing: Mapping[str, int]
    specialties: tuple[str, ...]
    specialty: np.ndarray


def read_facts(records: Iterable[Mapping[str, Any]]) -> SplitFacts:
    """Reads a split's records once.

    Args:
      records: token records in the order of their numbers.
    """
    missing: collections.Counter[str] = collections.Counter()
    names: list[str] = []
    for record in records:
        missing.update(str(code) for code in record["missing_codes"])
        names.append(str(record["specialty"]) or "unknown")
    specialties = tuple(sorted(set(names))) or ("unknown",)
    index = {name: number for number, name in enumerate(specialties)}
    return SplitFacts(dict(missing), specialties, np.array([index[n] for n in names], np.int32))


def model_score(steps: Steps, params: Any) -> Score:
    """Returns the scores of a model; made anew for new parameters, it compiles nothing anew.

    Args:
      steps: the jitted steps.
      params: as from `steps.evaluation_params`.
    """

    def score(batch: HostBatch) -> tuple[jax.Array, jax.Array]:
        wanted = {key: batch[key] for key in ("tokens", "length", "labels", "_mask")}
        result = steps.evaluate(params, sharding.put_batch(wanted, steps.batch_sharding))
        return _sigmoid(result["logits"]), result["loss"]

    return score


def evaluate(
    score: Score,
    batches: Iterable[HostBatch],
    facts: SplitFacts,
    label_space: LabelSpace,
    rows: NamedSharding,
    *,
    threshold: float | None = None,
    writer: Writer | None = None,
) -> Summary:
    """Computes all metrics in one pass over a split.

    Memory does not grow with the number of contacts. With several processes each gives its own rows
    of every batch, and all get the same metrics.

    Args:
      score: the coder.
      batches: of one pass, with `labels`, `missing`, `_mask`, `index` and what `score` wants.
      facts: of the same split.
      label_space: what the coder predicts.
      rows: sharding of the rows of a batch.
      threshold: probability that an assigned code exceeds, in [0, 1]; None tunes it on these very
        batches, for micro-F1, to a resolution of at most 0.004 (0.016 with more than 8,192 labels).
      writer: takes each batch's probabilities.

    Returns:
      The metrics; the threshold is one of them.
    """
    edges = grid.threshold_grid(len(label_space), threshold)
    groups = len(facts.specialties)
    accumulator = statistics.Accumulator(edges, len(label_space), groups, rows)
    waiting: collections.deque[jax.Array] = collections.deque()
    for batch in batches:
        probabilities_BxL, loss_B = score(batch)
        index_B = np.maximum(batch["index"], 0)
        gold = {key: batch[key] for key in ("labels", "missing", "_mask")}
        gold["specialty"] = facts.specialty[index_B] if len(facts.specialty) else index_B
        placed = sharding.put_batch(gold, rows)
        accumulator.update(
            probabilities_BxL,
            loss_B,
            placed["labels"],
            placed["missing"],
            placed["_mask"],
            placed["specialty"],
        )
        if writer is not None:
            writer.write(batch, probabilities_BxL)
        # At most three batches on the devices: dispatch would run far ahead of a slow one.
        waiting.append(loss_B)
        if len(waiting) > 2:
            waiting.popleft().block_until_ready()
    return summarise(
        accumulator.totals(),
        codes=label_space.codes,
        descriptions=label_space.descriptions,
        missing=facts.missing,
        groups=facts.specialties,
        threshold=threshold,
    )
