"""Sufficient statistics of all metrics, gathered on the devices batch by batch.

Axes beside the usual ones: E thresholds of the grid; C = E + 1 bins between them, bin c holding
what exceeds exactly c thresholds; S shards of a batch's rows, each with its own counts until the
end.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxcoder.metrics import ranking


@flax.struct.dataclass
class LabelCounts:
    """Counts by label and bin, int32 [S, L, C]: exact up to 2³¹ documents.

    Attributes:
      seen: documents whose probability of the label is in the bin.
      positive: those of them that have the label.
    """

    seen: jax.Array
    positive: jax.Array


@flax.struct.dataclass
class DocumentSums:
    """Sums over documents.

    Attributes:
      hits: int32 [S, E], predictions above a threshold that are gold.
      predicted: int32 [S, E], predictions above a threshold.
      exact: int32 [S, E], documents whose predicted set is their gold set.
      jaccard: float32 [S, E].
      counts: int32 [S, 4]: documents, documents with gold codes, gold codes, gold codes outside
      the label space.
      measures: float32 [S, 9]: those of `ranking.MEASURES`, and the loss.
    """

    hits: jax.Array
    predicted: jax.Array
    exact: jax.Array
    jaccard: jax.Array
    counts: jax.Array
    measures: jax.Array


@flax.struct.dataclass
class Outcomes:
    """What became of each document of a batch at one threshold; meaningless on padding rows.

    Attributes:
      counts: int32 [B, 4], see `OUTCOME_COUNTS`.
      measures: float32 [B, 10], see `OUTCOME_MEASURES`.
    """

    counts: jax.Array
    measures: jax.Array


OUTCOME_COUNTS = ("gold", "gold_outside", "predicted", "hits")
"""Gold codes, those of them outside the label space, predicted codes, predictions that are gold."""
OUTCOME_MEASURES = (*ranking.MEASURES, "loss", "confidence")
"""Measures of a document. `confidence` is the log of the probability that its predicted set is
exactly its gold set in the label space, if labels were independent."""


def _confidence(probabilities_BxL: jax.Array, threshold: jax.Array) -> jax.Array:
    """Sums log p over predicted labels and log(1 − p) over the others, float32 [B], finite."""
    # A label of probability 1 that is not predicted, as at threshold 1, counts as the number before
    # 1. That of a predicted one is rounded by 6e-8 at most, which is all that its log loses.
    below_one = np.nextafter(np.float32(1), np.float32(0))
    return jnp.sum(
        jnp.where(
            probabilities_BxL > threshold,
            jnp.log(probabilities_BxL),
            jnp.log1p(-jnp.minimum(probabilities_BxL, below_one)),
        ),
        axis=1,
    )


def _document_sums(
    bins_BxL: jax.Array, gold_bins_BxK: jax.Array, valid_BxK: jax.Array, edges: int
) -> tuple[jax.Array, jax.Array]:
    """Returns hits and predictions of each document above each threshold, int32 [B, E]."""
    rows_Bx1 = jnp.arange(bins_BxL.shape[0])[:, None]
    histogram_BxC = jnp.zeros((bins_BxL.shape[0], edges + 1), jnp.int32)
    histogram_BxC = histogram_BxC.at[rows_Bx1, bins_BxL].add(1)
    # Above threshold e are the bins after e: what exceeds more than e thresholds.
    predicted_BxE = jnp.cumsum(histogram_BxC[:, ::-1], axis=1)[:, ::-1][:, 1:]
    above_BxKxE = valid_BxK[..., None] & (gold_bins_BxK[..., None] > jnp.arange(edges)[None, None])
    return jnp.sum(above_BxKxE, axis=1, dtype=jnp.int32), predicted_BxE


def _update(
    labels_state: LabelCounts,
    documents_state: DocumentSums,
    probabilities_BxL: jax.Array,
    loss_B: jax.Array,
    labels_BxK: jax.Array,
    missing_B: jax.Array,
    mask_B: jax.Array,
    edges_E: jax.Array,
    at: jax.Array,
) -> tuple[LabelCounts, DocumentSums, Outcomes]:
    """Adds a batch, or a shard of one, to statistics whose shard axis has length 1."""
    num_labels, edges = probabilities_BxL.shape[1], edges_E.shape[0]
    # How many thresholds a probability exceeds, strictly.
    bins_BxL = jnp.searchsorted(edges_E, probabilities_BxL, side="left").astype(jnp.int32)
    valid_BxK = (labels_BxK >= 0) & mask_B[:, None]
    slots_BxK = jnp.maximum(labels_BxK, 0)
    gold_bins_BxK = jnp.take_along_axis(bins_BxL, slots_BxK, axis=1)
    real_B = mask_B.astype(jnp.int32)
    labels_state = LabelCounts(
        seen=labels_state.seen.at[0, jnp.arange(num_labels)[None], bins_BxL].add(real_B[:, None]),
        positive=labels_state.positive.at[0, slots_BxK, gold_bins_BxK].add(
            valid_BxK.astype(jnp.int32)
        ),
    )

    hits_BxE, predicted_BxE = _document_sums(bins_BxL, gold_bins_BxK, valid_BxK, edges)
    gold_B = jnp.sum(valid_BxK, axis=1, dtype=jnp.int32) + missing_B * real_B
    union_BxE = predicted_BxE + gold_B[:, None] - hits_BxE
    # Nothing gold and nothing predicted is agreement.
    jaccard_BxE = jnp.where(union_BxE > 0, hits_BxE / jnp.maximum(union_BxE, 1), 1.0)
    ranks_BxK = ranking.gold_ranks(probabilities_BxL, labels_BxK)
    measures = ranking.ranking_measures(ranks_BxK, valid_BxK, gold_B)
    measures_BxR = jnp.stack([*measures.values(), loss_B], axis=-1)
    counts_Bx4 = jnp.stack(
        [real_B, (gold_B > 0).astype(jnp.int32), gold_B, missing_B * real_B], axis=-1
    )

    def add(total: jax.Array, value: jax.Array) -> jax.Array:
        value = jnp.where(mask_B[:, None], value, 0)
        return total.at[0].add(jnp.sum(value, axis=0, dtype=total.dtype))

    state = documents_state
    documents_state = DocumentSums(
        hits=add(state.hits, hits_BxE),
        predicted=add(state.predicted, predicted_BxE),
        exact=add(state.exact, union_BxE == hits_BxE),
        jaccard=add(state.jaccard, jaccard_BxE),
        counts=add(state.counts, counts_Bx4),
        measures=add(state.measures, measures_BxR),
    )
    counts = (gold_B, missing_B, predicted_BxE[:, at], hits_BxE[:, at])
    confidence_B = _confidence(probabilities_BxL, edges_E[at])
    outcomes = Outcomes(
        jnp.stack(counts, axis=-1),
        jnp.concatenate([measures_BxR, confidence_B[:, None]], axis=1),
    )
    return labels_state, documents_state, outcomes


@functools.cache
def _sharded_update(
    rows: NamedSharding,
) -> Callable[..., tuple[LabelCounts, DocumentSums, Outcomes]]:
    """Returns `_update` jitted so that every shard counts its own rows, without communication."""
    whole = PartitionSpec()
    sharded = jax.shard_map(
        _update,
        mesh=rows.mesh,
        in_specs=(rows.spec,) * 7 + (whole,) * 2,
        out_specs=rows.spec,
        check_vma=False,
    )
    # The sharding is pinned so that the second batch does not compile anew.
    return jax.jit(sharded, out_shardings=rows, donate_argnums=(0, 1))


@functools.cache
def _over_shards(rows: NamedSharding) -> Callable[[Any], Any]:
    def total(state: Any) -> Any:
        return jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=x.dtype), state)

    return jax.jit(total, out_shardings=NamedSharding(rows.mesh, PartitionSpec()))


@dataclasses.dataclass(frozen=True)
class Totals:
    """The statistics of a whole split on the host, int64 and float64, without the shard axis.

    Attributes:
      edges: float32 [E], the thresholds.
      seen: [L, C]; see `LabelCounts`.
      positive: [L, C].
      documents: a `DocumentSums` of NumPy arrays.
    """

    edges: np.ndarray
    seen: np.ndarray
    positive: np.ndarray
    documents: Any


def _zero_labels(shards: int, labels: int, edges: int) -> LabelCounts:
    zeros = jnp.zeros((shards, labels, edges + 1), jnp.int32)
    return LabelCounts(zeros, zeros)


def _zero_documents(shards: int, edges: int) -> DocumentSums:
    counts = jnp.zeros((shards, edges), jnp.int32)
    return DocumentSums(
        hits=counts,
        predicted=counts,
        exact=counts,
        jaccard=jnp.zeros((shards, edges), jnp.float32),
        counts=jnp.zeros((shards, 4), jnp.int32),
        measures=jnp.zeros((shards, len(ranking.MEASURES) + 1), jnp.float32),
    )


@functools.cache
def _zeros(make: Callable[..., Any], shape: tuple[int, ...], rows: NamedSharding) -> Any:
    return jax.jit(functools.partial(make, *shape), out_shardings=rows)


class Accumulator:
    """Gathers the statistics of a split."""

    # Of documents × labels between two readings of the sums by document, so that int32 counts
    # predictions exactly and float32 adds few enough numbers to keep six digits.
    WINDOW = 2**30
    WINDOW_DOCUMENTS = 2**16

    def __init__(self, edges: np.ndarray, num_labels: int, rows: NamedSharding, at: int = 0):
        """Starts at zero.

        Args:
          edges: float32 [E] ascending, from `grid.threshold_grid`.
          num_labels: L.
          rows: sharding of the rows of a batch, as from `sharding.batch_sharding`.
          at: number in [0, E) of the threshold that documents' outcomes are told at.
        """
        axes = rows.spec[0] if len(rows.spec) else None
        names = (axes,) if isinstance(axes, str) else tuple(axes or ())
        shards = int(np.prod([rows.mesh.shape[name] for name in names], dtype=int))
        self._rows = NamedSharding(rows.mesh, PartitionSpec(axes))
        whole = NamedSharding(rows.mesh, PartitionSpec())
        self._edges, self._at = jax.device_put((edges, np.int32(at)), whole)
        self._host_edges = edges
        zero_labels = _zeros(_zero_labels, (shards, num_labels, len(edges)), self._rows)
        self._zero_documents = _zeros(_zero_documents, (shards, len(edges)), self._rows)
        self._labels_state, self._documents_state = zero_labels(), self._zero_documents()
        self._documents = 0
        self._sums: DocumentSums | None = None

    def update(
        self,
        probabilities_BxL: jax.Array,
        loss_B: jax.Array,
        labels_BxK: jax.Array,
        missing_B: jax.Array,
        mask_B: jax.Array,
    ) -> Outcomes:
        """Adds a batch of global arrays, all with their rows split alike.

        Args:
          probabilities_BxL: float32 in [0, 1].
          loss_B: float32.
          labels_BxK: int32, the gold labels, each once, −1 for padding.
          missing_B: int32, gold codes outside the label space.
          mask_B: bool, false on padding rows.

        Returns:
          What became of each of its documents.
        """
        batch, num_labels = probabilities_BxL.shape
        if (
            self._documents + batch > self.WINDOW_DOCUMENTS
            or (self._documents + batch) * num_labels > self.WINDOW
        ):
            self._flush()
        self._documents += batch
        self._labels_state, self._documents_state, outcomes = _sharded_update(self._rows)(
            self._labels_state,
            self._documents_state,
            probabilities_BxL,
            loss_B,
            labels_BxK,
            missing_B,
            mask_B,
            self._edges,
            self._at,
        )
        return outcomes

    def _flush(self) -> DocumentSums:
        read = jax.device_get(_over_shards(self._rows)(self._documents_state))
        wide = jax.tree.map(
            lambda x: x.astype(np.int64 if x.dtype == np.int32 else np.float64), read
        )
        self._sums = wide if self._sums is None else jax.tree.map(np.add, self._sums, wide)
        self._documents_state = self._zero_documents()
        self._documents = 0
        return self._sums

    def totals(self) -> Totals:
        """Returns the statistics of all batches so far."""
        documents = self._flush()
        labels = jax.device_get(_over_shards(self._rows)(self._labels_state))
        return Totals(self._host_edges, labels.seen, labels.positive, documents)
