"""The masked language model: an encoder and what names its hidden tokens, behind pure functions."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcoder.models import encoder
from jaxcoder.models.encoder_options import DTYPES, EncoderOptions
from jaxcoder.models.encoder_parts import norm
from jaxcoder.models.layers import MASKED, Product, gelu, leading, named_axes, weight
from jaxcoder.models.layout import WHOLE, Layout

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class MaskedLMOptions:
    """The whole model; its head has the sizes of the encoder, and no options of its own."""

    encoder: EncoderOptions = EncoderOptions()


class _Head(nn.Module):
    """Dense, GELU, norm, and a product with the encoder's token table; modernbert has one bias."""

    options: EncoderOptions

    @nn.compact
    def __call__(self, h_BxMxD: jax.Array, word_VxD: jax.Array) -> jax.Array:
        """Returns logits float32 [B, M, V]; those of the rows that pad the table never win."""
        options, dtype = self.options, DTYPES[self.options.dtype]
        shape, biases = (options.width, options.width), int(options.family == "bert")
        dense = Product("", shape, ("width", None), biases, dtype=dtype, name="dense")
        x_BxMxD = norm(options, "norm")(gelu(dense(h_BxMxD)))
        logits_BxMxV = jnp.einsum(
            "bmd,vd->bmv", x_BxMxD, word_VxD.astype(dtype), preferred_element_type=jnp.float32
        )
        rows = len(word_VxD)
        bias_V = weight(self, "bias", nn.initializers.zeros, (rows,), ("vocabulary",))
        bias_V = jnp.where(jnp.arange(rows) < options.vocab_size, bias_V, MASKED)
        return logits_BxMxV + leading(bias_V, 3)


def _init_head(options: EncoderOptions, rng: jax.Array) -> Any:
    rows = -(-options.vocab_size // options.vocab_multiple) * options.vocab_multiple
    h_BxMxD, word_VxD = jnp.zeros((1, 1, options.width)), jnp.zeros((rows, options.width))
    return _Head(options).init({"params": rng}, h_BxMxD, word_VxD)["params"]


def init(options: MaskedLMOptions, rng: jax.Array) -> Params:
    """Makes float32 parameters: a plain nested dict with the groups `encoder` and `masked_lm`."""
    encoder_key, head_key = jax.random.split(rng)
    return {
        "encoder": encoder.init(options.encoder, encoder_key),
        "masked_lm": nn.meta.unbox(_init_head(options.encoder, head_key)),
    }


def logical_axes(options: MaskedLMOptions) -> Params:
    """Returns the parameters' tree with a tuple of logical axis names in place of each array."""
    return {
        "encoder": encoder.logical_axes(options.encoder),
        "masked_lm": named_axes(lambda rng: _init_head(options.encoder, rng)),
    }


def keep_frozen(options: MaskedLMOptions, before: Params, after: Params) -> Params:
    """Returns the parameters `after` an update, what is frozen as it was `before`."""
    frozen = encoder.keep_frozen(options.encoder, before["encoder"], after["encoder"])
    return {**after, "encoder": frozen}


def apply(
    options: MaskedLMOptions,
    params: Params,
    tokens_BxT: jax.Array,
    segments_BxT: jax.Array,
    place_BxM: jax.Array,
    *,
    rng: jax.Array | None = None,
    layout: Layout = WHOLE,
) -> jax.Array:
    """Computes the logits of the tokens at some places of documents, and of these alone.

    Args:
      options: the model.
      params: as from `init`.
      tokens_BxT: int32, with what is hidden replaced.
      segments_BxT: of `encoder.apply`.
      place_BxM: int32, places in the row.
      rng: random key of the dropout; None for no dropout.
      layout: how the arrays lie on the devices.

    Returns:
      logits float32 [B, M, V], V the rows of the token table.
    """
    h_BxTxD = encoder.apply(
        options.encoder, params["encoder"], tokens_BxT, segments_BxT, rng=rng, layout=layout
    )
    h_BxMxD = jnp.take_along_axis(h_BxTxD, place_BxM[..., None], axis=1)
    word_VxD = params["encoder"]["embedding"]["word"]
    logits_BxMxV: jax.Array = _Head(options.encoder).apply(  # type: ignore[assignment]
        {"params": params["masked_lm"]}, h_BxMxD, word_VxD
    )
    return logits_BxMxV
