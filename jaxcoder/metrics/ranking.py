"""How high a document's gold codes stand among all codes."""

import jax
import jax.numpy as jnp

from jaxcoder.metrics.measures import RANKING as MEASURES


def gold_ranks(probabilities_BxL: jax.Array, labels_BxK: jax.Array) -> jax.Array:
    """Ranks each gold label, from 1; of equal probabilities the smaller label stands first.

    Args:
      probabilities_BxL: float32.
      labels_BxK: int32 label ids, −1 for padding.

    Returns:
      int32 [B, K]; meaningless where the label is −1.
    """
    ids_1xL = jnp.arange(probabilities_BxL.shape[-1])[None]
    own_BxK = jnp.take_along_axis(probabilities_BxL, jnp.maximum(labels_BxK, 0), axis=1)
    slots = labels_BxK.shape[1]

    def rank(slot: jax.Array, ranks_KxB: jax.Array) -> jax.Array:
        label_Bx1, own_Bx1 = labels_BxK[:, slot][:, None], own_BxK[:, slot][:, None]
        before_BxL = jnp.where(
            ids_1xL < label_Bx1, probabilities_BxL >= own_Bx1, probabilities_BxL > own_Bx1
        )
        return ranks_KxB.at[slot].set(1 + jnp.sum(before_BxL, axis=1, dtype=jnp.int32))

    # Slot by slot, so that [B, K, L] does not exist, and no further than the last that any uses.
    used = jnp.max(jnp.where(labels_BxK >= 0, jnp.arange(1, slots + 1)[None], 0), initial=0)
    ranks_KxB = jnp.ones((slots, labels_BxK.shape[0]), jnp.int32)
    return jax.lax.fori_loop(0, used, rank, ranks_KxB).T


def ranking_measures(
    ranks_BxK: jax.Array, valid_BxK: jax.Array, gold_B: jax.Array
) -> dict[str, jax.Array]:
    """Computes the ranking measures of each document.

    Args:
      ranks_BxK: from `gold_ranks`.
      valid_BxK: bool, which slots hold a gold label.
      gold_B: int32, gold codes, those outside the label space included: they are never found.

    Returns:
      Those of `MEASURES`, float32 [B] in [0, 1]; 0 for documents without gold codes.
    """
    gold = jnp.maximum(gold_B, 1).astype(jnp.float32)

    depths = (5, 8, 10, 15)
    depth_BxD = jnp.concatenate(
        [jnp.broadcast_to(jnp.array(depths), (len(gold_B), 4)), gold_B[:, None]], axis=1
    )
    within_BxKxD = valid_BxK[..., None] & (ranks_BxK[..., None] <= depth_BxD[:, None])
    *columns, among_gold = jnp.sum(within_BxKxD, axis=1, dtype=jnp.float32).T
    found = dict(zip(depths, columns, strict=True))
    measures = {f"recall_at_{k}": found[k] / gold for k in (5, 10, 15)}
    measures |= {f"precision_at_{k}": found[k] / k for k in (5, 8, 15)}
    measures["r_precision"] = among_gold / gold
    # Average precision: at each gold code found, the share of gold codes down to there.
    no_later_BxKxK = valid_BxK[:, None, :] & (ranks_BxK[:, None, :] <= ranks_BxK[:, :, None])
    precision_BxK = jnp.sum(no_later_BxKxK, axis=-1) / ranks_BxK.astype(jnp.float32)
    measures["map"] = jnp.sum(jnp.where(valid_BxK, precision_BxK, 0.0), axis=-1) / gold
    return {name: measures[name] for name in MEASURES}
