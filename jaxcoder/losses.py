"""The training loss: which codes, and where in the document they stand."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

GOLD, SILVER = 0, 1  # provenance of evidence
# The logarithm of no attention at all: spans of padding, and labels without a span.
_NOTHING = -1e9


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """What the training loss is made of.

    Attributes:
      evidence_weight: weight of the attention loss on gold evidence; 0 leaves it out.
      silver_weight: weight of the attention loss on silver evidence; 0 leaves it out.
      label_smoothing: ε in [0, 1): targets are ε/2 and 1 − ε/2 instead of 0 and 1.
    """

    evidence_weight: float = 0.0
    silver_weight: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("evidence_weight", "silver_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing = {self.label_smoothing}: expected [0, 1)")

    @property
    def needs_attention(self) -> bool:
        """Whether the loss looks at the label attention."""
        return self.evidence_weight > 0 or self.silver_weight > 0


def multi_hot(labels_BxK: jax.Array, num_labels: int) -> jax.Array:
    """Returns float32 [B, L], 1 at the label ids and 0 elsewhere; −1 is padding.

    Compared, not scattered: with labels split over a mesh it needs no communication.
    """
    ids_L = jnp.arange(num_labels)
    return jnp.any(labels_BxK[:, :, None] == ids_L[None, None], axis=1).astype(jnp.float32)


def document_loss(
    logits_BxL: jax.Array, targets_BxL: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Returns the sigmoid cross-entropy of each document, summed over labels, float32 [B]."""
    targets_BxL = targets_BxL * (1 - label_smoothing) + label_smoothing / 2
    return jnp.sum(jax.nn.softplus(logits_BxL) - logits_BxL * targets_BxL, axis=-1)


def evidence_loss(
    log_attention_BxKxT: jax.Array,
    labels_BxK: jax.Array,
    evidence_BxEx4: jax.Array,
    provenance: int,
) -> tuple[jax.Array, jax.Array]:
    """Sums −log of the attention mass on the union of a label's spans.

    Args:
      log_attention_BxKxT: float32, natural logarithms, of the labels in `labels_BxK`.
      labels_BxK: int32 label ids, −1 for padding.
      evidence_BxEx4: int32 (slot in `labels_BxK`, first token, token after the last, provenance);
        slot −1 for padding.
      provenance: which evidence counts.

    Returns:
      The sum over labels that have a span, and the number of these labels, both float32.
    """
    length, slots = log_attention_BxKxT.shape[-1], labels_BxK.shape[-1]
    slot, start, end, kind = jnp.moveaxis(evidence_BxEx4, -1, 0)
    token_1x1xT = jnp.arange(length)[None, None]
    inside_BxExT = (token_1x1xT >= start[..., None]) & (token_1x1xT < end[..., None])
    inside_BxExT &= ((kind == provenance) & (slot >= 0))[..., None]
    owner_BxExK = slot[..., None] == jnp.arange(slots)[None, None]
    # A product, so that [B, K, E, T] does not exist; a token in two spans still counts once.
    covered_BxKxT = jnp.einsum(
        "bek,bet->bkt", owner_BxExK.astype(jnp.float32), inside_BxExT.astype(jnp.float32)
    )
    real_BxKxT = log_attention_BxKxT > _NOTHING / 2  # a span outside the document is none
    inside_BxKxT = (covered_BxKxT > 0) & (labels_BxK >= 0)[..., None] & real_BxKxT
    has_BxK = jnp.any(inside_BxKxT, axis=-1)
    mass_BxK = jax.nn.logsumexp(jnp.where(inside_BxKxT, log_attention_BxKxT, _NOTHING), axis=-1)
    return -jnp.sum(jnp.where(has_BxK, mass_BxK, 0.0)), jnp.sum(has_BxK, dtype=jnp.float32)


def coder_loss(
    logits_BxL: jax.Array,
    log_attention_BxKxT: jax.Array | None,
    batch: Mapping[str, jax.Array],
    options: LossOptions,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the training loss of a batch.

    The cross-entropy is summed over labels, so that its size does not fall as the label space
    grows, and averaged over the real documents; the mean over labels is this divided by L. The
    evidence losses are means over the positive labels of the batch that have a span.

    Args:
      logits_BxL: float32.
      log_attention_BxKxT: of the labels in `batch["labels"]`; None where no evidence counts.
      batch: `labels` int32 [B, K] (−1 padding), `_mask` bool [B], and with evidence `evidence`
        int32 [B, E, 4].
      options: the weights.

    Returns:
      The loss, and a dict of float32 scalars: `loss`, `bce` and, where weighted, `evidence_loss`
      and `silver_loss`.
    """
    mask_B = batch["_mask"].astype(jnp.float32)
    targets_BxL = multi_hot(batch["labels"], logits_BxL.shape[-1])
    loss_B = document_loss(logits_BxL, targets_BxL, options.label_smoothing)
    loss = bce = jnp.sum(loss_B * mask_B) / jnp.maximum(jnp.sum(mask_B), 1.0)
    metrics = {"bce": bce}
    if log_attention_BxKxT is not None:
        labels_BxK = jnp.where(batch["_mask"][:, None], batch["labels"], -1)
        for name, kind, factor in (
            ("evidence_loss", GOLD, options.evidence_weight),
            ("silver_loss", SILVER, options.silver_weight),
        ):
            if factor > 0:
                total, count = evidence_loss(
                    log_attention_BxKxT, labels_BxK, batch["evidence"], kind
                )
                metrics[name] = total / jnp.maximum(count, 1.0)
                loss = loss + factor * metrics[name]
    return loss, {"loss": loss, **metrics}
