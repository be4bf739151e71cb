"""Objectives: what a training step improves, the codes of documents or the words of a text."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp

from jaxcoder import losses, masking
from jaxcoder.models import coder, masked_lm
from jaxcoder.models.layout import WHOLE, Layout

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Params = dict[str, Any]
_Self = TypeVar("_Self", bound="Objective")


class Objective(Protocol):
    """A model and its loss."""

    def on(self: _Self, layout: Layout) -> tuple[_Self, str]:
        """Says on what devices it is computed.

        Returns:
          The objective there, and what computes its attention, for people.

        Raises:
          ValueError: attention that the devices cannot compute.
        """

    def init(self, rng: jax.Array) -> Params:
        """Makes float32 parameters."""

    def logical_axes(self) -> Params:
        """Their tree with a tuple of logical axis names in place of each array."""

    def keep_frozen(self, before: Params, after: Params) -> Params:
        """The parameters `after` an update, what is frozen as it was `before`."""

    def loss(self, params: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """The loss of a batch, and float32 scalars, `documents` and `tokens` among them."""

    def evaluate(self, params: Params, batch: Batch) -> dict[str, jax.Array]:
        """What evaluation wants to know of a batch, each array with its rows."""


@dataclasses.dataclass(frozen=True)
class Coding:
    """Which codes a document has, and where they stand.

    Attributes:
      model: the coder.
      options: of the loss.
      layout: how attention is cut for the devices.
    """

    model: coder.CoderOptions
    options: losses.LossOptions
    layout: Layout = WHOLE

    def on(self, layout: Layout) -> tuple["Coding", str]:
        """See `Objective`."""
        attention = self.model.encoder.attention_in(layout)
        return dataclasses.replace(self, layout=layout), attention

    def init(self, rng: jax.Array) -> Params:
        """See `Objective`."""
        return coder.init(self.model, rng)

    def logical_axes(self) -> Params:
        """See `Objective`."""
        return coder.logical_axes(self.model)

    def keep_frozen(self, before: Params, after: Params) -> Params:
        """See `Objective`."""
        return coder.keep_frozen(self.model, before, after)

    def loss(self, params: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """Computes the loss of a batch.

        Args:
          params: of the coder.
          batch: `tokens` int32 [B, T], `length` int32 [B], `labels` int32 [B, K], `_mask` bool [B],
            and for evidence losses `evidence` int32 [B, E, 4]; other arrays are ignored.
          rng: of the dropout.

        Returns:
          The loss, and float32 scalars: those of `losses.coder_loss`, `documents` and `tokens`.
        """
        logits_BxL, log_attention_BxKxT = coder.apply(
            self.model,
            params,
            batch["tokens"],
            batch["length"],
            focus_BxK=batch["labels"] if self.options.needs_attention else None,
            rng=rng,
            layout=self.layout,
        )
        loss, metrics = losses.coder_loss(logits_BxL, log_attention_BxKxT, batch, self.options)
        return loss, metrics | {
            "documents": jnp.sum(batch["_mask"], dtype=jnp.float32),
            "tokens": jnp.sum(batch["length"] * batch["_mask"], dtype=jnp.float32),
        }

    def evaluate(self, params: Params, batch: Batch) -> dict[str, jax.Array]:
        """Scores a batch.

        Args:
          params: of the coder.
          batch: `tokens`, `length`, `_mask` and, for the loss, `labels`; see `loss`.

        Returns:
          `logits` float32 [B, L]; and with labels `targets` float32 [B, L] in {0, 1} and `loss`
          float32 [B], summed over labels, 0 on padding rows.
        """
        logits_BxL, _ = coder.apply(
            self.model, params, batch["tokens"], batch["length"], layout=self.layout
        )
        result = {"logits": logits_BxL}
        if "labels" in batch:
            targets_BxL = losses.multi_hot(batch["labels"], logits_BxL.shape[-1])
            loss_B = losses.document_loss(logits_BxL, targets_BxL)
            result |= {"targets": targets_BxL, "loss": jnp.where(batch["_mask"], loss_B, 0.0)}
        return result


@dataclasses.dataclass(frozen=True)
class MaskedWords:
    """Which words of a text are hidden (masked language modelling; Devlin et al., 2019).

    Attributes:
      model: the masked language model.
      options: what is hidden.
      vocabulary: of the tokenizer.
      layout: how attention is cut for the devices.
    """

    model: masked_lm.MaskedLMOptions
    options: masking.MaskingOptions
    vocabulary: masking.Vocabulary
    layout: Layout = WHOLE

    def on(self, layout: Layout) -> tuple["MaskedWords", str]:
        """See `Objective`."""
        attention = self.model.encoder.attention_in(layout, packed=True)
        return dataclasses.replace(self, layout=layout), attention

    def init(self, rng: jax.Array) -> Params:
        """See `Objective`."""
        return masked_lm.init(self.model, rng)

    def logical_axes(self) -> Params:
        """See `Objective`."""
        return masked_lm.logical_axes(self.model)

    def keep_frozen(self, before: Params, after: Params) -> Params:
        """See `Objective`."""
        return masked_lm.keep_frozen(self.model, before, after)

    def loss(self, params: Params, batch: Batch, rng: jax.Array) -> tuple[jax.Array, Metrics]:
        """Computes the loss of a batch: the cross-entropy, averaged over its hidden tokens.

        Args:
          params: of the masked language model.
          batch: `tokens`, `segments` int32 [B, T] and `row` int32 [B]; see `packed_batches`.
          rng: of masks and dropout.

        Returns:
          The loss, and float32 scalars: `loss` in nats a hidden token, `masked_accuracy` and
          `masked_share` of the tokens that might be hidden, both in [0, 1], `documents` (pieces)
          and `tokens`.
        """
        mask_key, dropout_key = jax.random.split(rng)
        masked = self._mask(mask_key, batch)
        loss, correct = masked_lm.score(
            *(self.model, params, masked, batch["segments"]), rng=dropout_key, layout=self.layout
        )
        hidden = jnp.sum(masked.hidden_BxM, dtype=jnp.float32)
        candidates = jnp.sum(masked.candidates_B, dtype=jnp.float32)
        loss = loss / jnp.maximum(hidden, 1.0)
        return loss, {
            "loss": loss,
            "masked_accuracy": correct / jnp.maximum(hidden, 1.0),
            "masked_share": hidden / jnp.maximum(candidates, 1.0),
            "documents": jnp.sum(jnp.max(batch["segments"], axis=1), dtype=jnp.float32),
            "tokens": jnp.sum(batch["segments"] != 0, dtype=jnp.float32),
        }

    def evaluate(self, params: Params, batch: Batch) -> dict[str, jax.Array]:
        """Scores a batch, with the same masks whenever a row of the same number comes.

        Returns:
          Float32 [B]: `loss`, summed over the row's hidden tokens, how many are `hidden`, and of
          them `correct`.
        """
        masked = self._mask(jax.random.key(0, impl="threefry2x32"), batch)
        loss_B, correct_B = masked_lm.score(
            *(self.model, params, masked, batch["segments"]), by_row=True, layout=self.layout
        )
        hidden_B = jnp.sum(masked.hidden_BxM, axis=1, dtype=jnp.float32)
        return {"loss": loss_B, "correct": correct_B, "hidden": hidden_B}

    def _mask(self, key: jax.Array, batch: Batch) -> masking.Masked:
        return masking.mask(
            *(key, batch["row"], batch["tokens"], batch["segments"]),
            *(self.vocabulary, self.options),
        )
