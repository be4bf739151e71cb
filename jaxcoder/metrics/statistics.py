"""Sufficient statistics of all metrics, gathered on the devices batch by batch.

Axes beside the usual ones: E thresholds of the grid; C = E + 1 bins between them, bin c holding
what exceeds exactly c thresholds; D = E + 1 rules: each threshold, and last the decision, which may
differ by label or by group; G groups of documents (specialties); S shards of a batch's rows, each
with its own counts until the end.
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
    """Counts by label, int32: exact up to 2³¹ documents.

    Attributes:
      seen: [S, 2, L, C], documents whose probability of the label is in the bin; those without
        gold codes apart, and first.
      positive: [S, L, C], those of them that have the label.
      assigned: [S, L], documents to which the decision gives the label.
      hits: [S, L], those of them that have it.
    """

    seen: jax.Array
    positive: jax.Array
    assigned: jax.Array
    hits: jax.Array


@flax.struct.dataclass
class DocumentSums:
    """Sums over documents.

    Attributes:
      hits: int32 [S, D], predictions that are gold.
      predicted: int32 [S, D], predictions.
      exact: int32 [S, D], documents whose predicted set is their gold set.
      jaccard: float32 [S, D].
      exact_occurring: int32 [S, E], documents with gold codes whose predicted set is their gold
        set, where only labels that occur in the split are predicted.
      counts: int32 [S, 4]: documents, documents with gold codes, gold codes, gold codes outside
        the label space.
      measures: float32 [S, 9]: those of `ranking.MEASURES`, and the loss.
      measures_occurring: float32 [S, 8]: those of `ranking.MEASURES` among labels that occur in
        the split.
      group_hits: int32 [S, G, E], as `hits`, by group.
      group_predicted: int32 [S, G, E], likewise.
      group_gold: int32 [S, G], gold codes.
    """

    hits: jax.Array
    predicted: jax.Array
    exact: jax.Array
    jaccard: jax.Array
    exact_occurring: jax.Array
    counts: jax.Array
    measures: jax.Array
    measures_occurring: jax.Array
    group_hits: jax.Array
    group_predicted: jax.Array
    group_gold: jax.Array


@flax.struct.dataclass
class Outcomes:
    """What became of each document of a batch by the decision; meaningless on padding rows.

    Attributes:
      counts: int32 [B, 4], see `measures.OUTCOME_COUNTS`.
      measures: float32 [B, 10], see `measures.OUTCOME_MEASURES`.
    """

    counts: jax.Array
    measures: jax.Array


def _confidence(probabilities_BxL: jax.Array, assigned_BxL: jax.Array) -> jax.Array:
    """Sums log p over assigned labels and log(1 − p) over the others, float32 [B], finite."""
    # A label of probability 1 that is not assigned, as at threshold 1, counts as the number before
    # 1. That of an assigned one is rounded by 6e-8 at most, which is all that its log loses.
    below_one = np.nextafter(np.float32(1), np.float32(0))
    return jnp.sum(
        jnp.where(
            assigned_BxL,
            jnp.log(probabilities_BxL),
            jnp.log1p(-jnp.minimum(probabilities_BxL, below_one)),
        ),
        axis=1,
    )


def _above(bins_BxL: jax.Array, weight_L: jax.Array, edges: int) -> jax.Array:
    """Returns how many labels of each document are above each threshold, int32 [B, E].

    Args:
      bins_BxL: int32 in [0, C).
      weight_L: int32, what a label counts.
      edges: E.
    """
    rows_Bx1 = jnp.arange(bins_BxL.shape[0])[:, None]
    histogram_BxC = jnp.zeros((bins_BxL.shape[0], edges + 1), jnp.int32)
    histogram_BxC = histogram_BxC.at[rows_Bx1, bins_BxL].add(weight_L[None])
    # Above threshold e are the bins after e: what exceeds more than e thresholds.
    return jnp.cumsum(histogram_BxC[:, ::-1], axis=1)[:, ::-1][:, 1:]


def _scatter(total: jax.Array, index: jax.Array, count: jax.Array) -> jax.Array:
    """Adds counts at places of a flattened array; three times as fast on a CPU as by axis."""
    flat = total.reshape(-1).at[index.reshape(-1)]
    return flat.add(count.reshape(-1), mode="promise_in_bounds").reshape(total.shape)


def _update(
    labels_state: LabelCounts,
    documents_state: DocumentSums,
    probabilities_BxL: jax.Array,
    loss_B: jax.Array,
    labels_BxK: jax.Array,
    missing_B: jax.Array,
    mask_B: jax.Array,
    group_B: jax.Array,
    edges_E: jax.Array,
    decision: jax.Array,
    occurring_L: jax.Array,
) -> tuple[LabelCounts, DocumentSums, Outcomes]:
    """Adds a batch, or a shard of one, to statistics whose shard axis has length 1."""
    num_labels, edges = probabilities_BxL.shape[1], edges_E.shape[0]
    # How many thresholds a probability exceeds, strictly.
    bins_BxL = jnp.searchsorted(edges_E, probabilities_BxL, side="left").astype(jnp.int32)
    valid_BxK = (labels_BxK >= 0) & mask_B[:, None]
    slots_BxK = jnp.maximum(labels_BxK, 0)
    gold_bins_BxK = jnp.take_along_axis(bins_BxL, slots_BxK, axis=1)
    real_B = mask_B.astype(jnp.int32)
    gold_B = jnp.sum(valid_BxK, axis=1, dtype=jnp.int32) + missing_B * real_B

    limit = decision[group_B] if decision.shape[0] > 1 else decision
    assigned_BxL = (probabilities_BxL > limit) & mask_B[:, None]
    hit_BxK = jnp.take_along_axis(assigned_BxL, slots_BxK, axis=1) & valid_BxK

    bins = edges + 1
    coded_Bx1 = (gold_B > 0).astype(jnp.int32)[:, None]
    places_BxL = (coded_Bx1 * num_labels + jnp.arange(num_labels)[None]) * bins + bins_BxL
    labels_state = LabelCounts(
        seen=_scatter(
            labels_state.seen, places_BxL, jnp.broadcast_to(real_B[:, None], places_BxL.shape)
        ),
        positive=_scatter(
            labels_state.positive,
            slots_BxK * bins + gold_bins_BxK,
            valid_BxK.astype(jnp.int32),
        ),
        assigned=labels_state.assigned + jnp.sum(assigned_BxL, axis=0, dtype=jnp.int32)[None],
        hits=_scatter(labels_state.hits, slots_BxK, hit_BxK.astype(jnp.int32)),
    )

    above_BxKxE = valid_BxK[..., None] & (gold_bins_BxK[..., None] > jnp.arange(edges)[None, None])
    above_BxE = jnp.sum(above_BxKxE, axis=1, dtype=jnp.int32)
    occurring_BxE = _above(bins_BxL, occurring_L.astype(jnp.int32), edges)
    decided_Bx1 = [jnp.sum(x, axis=1, dtype=jnp.int32)[:, None] for x in (hit_BxK, assigned_BxL)]
    each_BxE = above_BxE, _above(bins_BxL, jnp.ones_like(occurring_L, jnp.int32), edges)
    hits_BxD, predicted_BxD = (
        jnp.concatenate(pair, axis=1) for pair in zip(each_BxE, decided_Bx1, strict=True)
    )
    union_BxD = predicted_BxD + gold_B[:, None] - hits_BxD
    # Nothing gold and nothing predicted is agreement.
    jaccard_BxD = jnp.where(union_BxD > 0, hits_BxD / jnp.maximum(union_BxD, 1), 1.0)
    only_gold_BxE = (occurring_BxE == above_BxE) & (above_BxE == gold_B[:, None])

    ranks_BxK = ranking.gold_ranks(probabilities_BxL, labels_BxK)
    measures = ranking.ranking_measures(ranks_BxK, valid_BxK, gold_B)
    measures_BxR = jnp.stack([*measures.values(), loss_B], axis=-1)
    among_BxL = jnp.where(occurring_L[None], probabilities_BxL, -1.0)
    ranks_BxK = ranking.gold_ranks(among_BxL, labels_BxK)
    occurring = ranking.ranking_measures(ranks_BxK, valid_BxK, gold_B)
    counts_Bx4 = jnp.stack(
        [real_B, (gold_B > 0).astype(jnp.int32), gold_B, missing_B * real_B], axis=-1
    )

    def add(total: jax.Array, value: jax.Array) -> jax.Array:
        value = jnp.where(mask_B[:, None], value, 0)
        return total.at[0].add(jnp.sum(value, axis=0, dtype=total.dtype))

    def add_by_group(total: jax.Array, value: jax.Array) -> jax.Array:
        if not total.shape[1]:
            return total
        return total.at[0, group_B].add(jnp.where(mask_B[:, None], value, 0))

    state = documents_state
    documents_state = DocumentSums(
        hits=add(state.hits, hits_BxD),
        predicted=add(state.predicted, predicted_BxD),
        exact=add(state.exact, union_BxD == hits_BxD),
        jaccard=add(state.jaccard, jaccard_BxD),
        exact_occurring=add(state.exact_occurring, only_gold_BxE & (gold_B > 0)[:, None]),
        counts=add(state.counts, counts_Bx4),
        measures=add(state.measures, measures_BxR),
        measures_occurring=add(state.measures_occurring, jnp.stack([*occurring.values()], axis=-1)),
        group_hits=add_by_group(state.group_hits, each_BxE[0]),
        group_predicted=add_by_group(state.group_predicted, each_BxE[1]),
        group_gold=add_by_group(state.group_gold[..., None], gold_B[:, None])[..., 0],
    )
    counts = (gold_B, missing_B, predicted_BxD[:, -1], hits_BxD[:, -1])
    confidence_B = _confidence(probabilities_BxL, assigned_BxL)
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
        in_specs=(rows.spec,) * 8 + (whole,) * 3,
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
      seen: [L, C], documents whose probability of the label is in the bin.
      seen_uncoded: [L, C], those of them without gold codes.
      positive: [L, C]; see `LabelCounts`.
      assigned: [L].
      hits: [L].
      occurring: bool [L], labels that occur in the split.
      documents: a `DocumentSums` of NumPy arrays.
    """

    edges: np.ndarray
    seen: np.ndarray
    seen_uncoded: np.ndarray
    positive: np.ndarray
    assigned: np.ndarray
    hits: np.ndarray
    occurring: np.ndarray
    documents: Any


def _zero_labels(shards: int, labels: int, edges: int) -> LabelCounts:
    bins = jnp.zeros((shards, 2, labels, edges + 1), jnp.int32)
    decided = jnp.zeros((shards, labels), jnp.int32)
    return LabelCounts(seen=bins, positive=bins[:, 0], assigned=decided, hits=decided)


def _zero_documents(shards: int, groups: int, edges: int) -> DocumentSums:
    counts = jnp.zeros((shards, edges + 1), jnp.int32)
    measures = jnp.zeros((shards, len(ranking.MEASURES) + 1), jnp.float32)
    grouped = jnp.zeros((shards, groups, edges), jnp.int32)
    return DocumentSums(
        hits=counts,
        predicted=counts,
        exact=counts,
        jaccard=counts.astype(jnp.float32),
        exact_occurring=counts[..., 1:],
        counts=jnp.zeros((shards, 4), jnp.int32),
        measures=measures,
        measures_occurring=measures[..., 1:],
        group_hits=grouped,
        group_predicted=grouped,
        group_gold=grouped[..., 0],
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

    def __init__(
        self,
        edges: np.ndarray,
        num_labels: int,
        rows: NamedSharding,
        *,
        decision: np.ndarray | None = None,
        occurring: np.ndarray | None = None,
        groups: int = 0,
    ) -> None:
        """Starts at zero.

        Args:
          edges: float32 [E] ascending, from `grid.threshold_grid`.
          num_labels: L.
          rows: sharding of the rows of a batch, as from `sharding.batch_sharding`.
          decision: float32, the threshold that a label's probability has to exceed to be assigned:
            [1, L] by label, [G, 1] by group, [1, 1] for all; None is 0.5.
          occurring: bool [L], labels that occur in the split; None is all of them.
          groups: G, by which predictions are counted too.
        """
        axes = rows.spec[0] if len(rows.spec) else None
        names = (axes,) if isinstance(axes, str) else tuple(axes or ())
        shards = int(np.prod([rows.mesh.shape[name] for name in names], dtype=int))
        self._rows = NamedSharding(rows.mesh, PartitionSpec(axes))
        everywhere = NamedSharding(rows.mesh, PartitionSpec())
        decision = np.full((1, 1), 0.5, np.float32) if decision is None else decision
        occurring = np.ones(num_labels, bool) if occurring is None else occurring
        self._whole = jax.device_put((edges, decision, occurring), everywhere)
        self._edges, self._occurring = edges, occurring
        zero_labels = _zeros(_zero_labels, (shards, num_labels, len(edges)), self._rows)
        self._zero_documents = _zeros(_zero_documents, (shards, groups, len(edges)), self._rows)
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
        group_B: jax.Array,
    ) -> Outcomes:
        """Adds a batch of global arrays, all with their rows split alike.

        Args:
          probabilities_BxL: float32 in [0, 1].
          loss_B: float32.
          labels_BxK: int32, the gold labels, each once, −1 for padding.
          missing_B: int32, gold codes outside the label space.
          mask_B: bool, false on padding rows.
          group_B: int32 in [0, G); without meaning where there are no groups.

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
            group_B,
            *self._whole,
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
        return Totals(
            edges=self._edges,
            seen=labels.seen[0] + labels.seen[1],
            seen_uncoded=labels.seen[0],
            positive=labels.positive,
            assigned=labels.assigned,
            hits=labels.hits,
            occurring=self._occurring,
            documents=documents,
        )
