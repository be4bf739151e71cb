"""The coder: encoder and label attention, behind pure `init` and `apply`."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcoder.models import encoder
from jaxcoder.models.encoder import DTYPES, Encoder, EncoderOptions
from jaxcoder.models.label_attention import HeadOptions, LabelAttention
from jaxcoder.models.layers import named_axes
from jaxcoder.models.layout import WHOLE, Layout

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CoderOptions:
    """The whole model: what makes states of tokens, and what makes logits of states."""

    encoder: EncoderOptions = EncoderOptions()
    head: HeadOptions = HeadOptions()


class Coder(nn.Module):
    """Tokens to logits; use `init` and `apply` of this file."""

    options: CoderOptions

    @nn.compact
    def __call__(
        self,
        tokens_BxT: jax.Array,
        length_B: jax.Array,
        focus_BxK: jax.Array | None,
        layout: Layout,
    ) -> tuple[jax.Array, jax.Array | None]:
        """See `apply`."""
        dtype = DTYPES[self.options.encoder.dtype]
        valid_BxT = jnp.arange(tokens_BxT.shape[1])[None] < length_B[:, None]
        h_BxTxD = Encoder(self.options.encoder, layout, name="encoder")(tokens_BxT, valid_BxT)
        head = LabelAttention(self.options.head, dtype, name="head")
        return head(h_BxTxD, valid_BxT, focus_BxK, layout)


def _init(options: CoderOptions, rng: jax.Array) -> Any:
    tokens_BxT, length_B = jnp.zeros((1, 1), jnp.int32), jnp.ones((1,), jnp.int32)
    return Coder(options).init({"params": rng}, tokens_BxT, length_B, None, WHOLE)["params"]


def init(options: CoderOptions, rng: jax.Array) -> Params:
    """Makes float32 parameters: a plain nested dict with the groups `encoder` and `head`.

    Args:
      options: the model.
      rng: a random key.
    """
    return nn.meta.unbox(_init(options, rng))


def logical_axes(options: CoderOptions) -> Params:
    """Returns the parameters' tree with a tuple of logical axis names in place of each array."""
    return named_axes(lambda rng: _init(options, rng))


def keep_frozen(options: CoderOptions, before: Params, after: Params) -> Params:
    """Returns the parameters `after` an update, what is frozen as it was `before`."""
    frozen = encoder.keep_frozen(options.encoder, before["encoder"], after["encoder"])
    return {**after, "encoder": frozen}


def apply(
    options: CoderOptions,
    params: Params,
    tokens_BxT: jax.Array,
    length_B: jax.Array,
    *,
    focus_BxK: jax.Array | None = None,
    rng: jax.Array | None = None,
    layout: Layout = WHOLE,
) -> tuple[jax.Array, jax.Array | None]:
    """Computes the logits of documents.

    Args:
      options: the model.
      params: as from `init`.
      tokens_BxT: int32, token ids; what stands at padding does not matter.
      length_B: int32, real tokens of each document; 0 on a padding row.
      focus_BxK: int32 label ids whose attention is wanted, −1 for none.
      rng: random key of the dropout; None for no dropout.
      layout: how attention is cut for the devices.

    Returns:
      logits float32 [B, L]; and None, or with focus the natural logarithm of the attention of these
      labels, float32 [B, K, T]: about −1e9 on padding, meaningless where the label is −1.
    """
    rngs = None if rng is None else {"dropout": rng}
    result: tuple[jax.Array, jax.Array | None] = Coder(options).apply(  # type: ignore[assignment]
        {"params": params}, tokens_BxT, length_B, focus_BxK, layout, rngs=rngs
    )
    return result
