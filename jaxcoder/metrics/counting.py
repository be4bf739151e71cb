"""What a batch adds to the sufficient statistics of all metrics, counted on the devices.

Axes beside the usual ones: E thresholds of the grid; C = E + 1 bins between them, bin c holding
what exceeds exactly c thresholds; D = E + 1 rules: each threshold, and last the decision, which may
differ by label or by group; G groups of documents (specialties); S shards of a batch's rows, each
with its own counts until the end.
"""

import flax
import jax
import jax.numpy as jnp
import numpy as np

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


def zero_labels(shards: int, labels: int, edges: int) -> LabelCounts:
    """Counts at zero, for S shards, L labels and E thresholds."""
    bins = jnp.zeros((shards, 2, labels, edges + 1), jnp.int32)
    decided = jnp.zeros((shards, labels), jnp.int32)
    return LabelCounts(seen=bins, positive=bins[:, 0], assigned=decided, hits=decided)


def zero_documents(shards: int, groups: int, edges: int) -> DocumentSums:
    """Sums at zero, for S shards, G groups and E thresholds."""
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


def update(
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
    """Adds a batch, or a shard of one, to statistics whose shard axis has length 1.

    Args:
      labels_state: so far; it may be donated.
      documents_state: likewise.
      probabilities_BxL: float32 in [0, 1].
      loss_B: float32.
      labels_BxK: int32, the gold labels, each once, −1 for padding.
      missing_B: int32, gold codes outside the label space.
      mask_B: bool, false on padding rows.
      group_B: int32 in [0, G).
      edges_E: float32, the thresholds, ascending.
      decision: float32 [1, L], [G, 1] or [1, 1], what an assigned label's probability exceeds.
      occurring_L: bool, labels that occur in the split.

    Returns:
      The new statistics, and what became of each document.
    """
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
