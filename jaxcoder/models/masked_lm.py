"""The masked language model: an encoder and what names its hidden tokens, behind pure functions."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcoder.masking import Masked
from jaxcoder.models import encoder, vocabulary_loss
from jaxcoder.models.encoder_options import DTYPES, EncoderOptions
from jaxcoder.models.encoder_parts import norm
from jaxcoder.models.layers import MASKED, Product, gelu, named_axes, weight
from jaxcoder.models.layout import WHOLE, Layout
from jaxcoder.models.vocabulary_loss import naming_loss

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class MaskedLMOptions:
    """The whole model; its head has the sizes of the encoder, and no options of its own."""

    encoder: EncoderOptions = EncoderOptions()


class _Head(nn.Module):
    """Dense, GELU and norm before the product with the encoder's token table, and its bias."""

    options: EncoderOptions

    @nn.compact
    def __call__(self, h_BxMxD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns states [B, M, D] and the bias [V]; rows that pad the token table never win."""
        options = self.options
        shape, biases = (options.width, options.width), int(options.family == "bert")
        dtype = DTYPES[options.dtype]
        dense = Product("", shape, ("width", None), biases, dtype=dtype, name="dense")
        x_BxMxD = norm(options, "norm")(gelu(dense(h_BxMxD)))
        rows = -(-options.vocab_size // options.vocab_multiple) * options.vocab_multiple
        bias_V = weight(self, "bias", nn.initializers.zeros, (rows,), ("vocabulary",))
        return x_BxMxD, jnp.where(jnp.arange(rows) < options.vocab_size, bias_V, MASKED)


def _init_head(options: EncoderOptions, rng: jax.Array) -> Any:
    return _Head(options).init({"params": rng}, jnp.zeros((1, 1, options.width)))["params"]


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


def logits(
    options: MaskedLMOptions,
    params: Params,
    tokens_BxT: jax.Array,
    segments_BxT: jax.Array,
    place_BxM: jax.Array,
) -> jax.Array:
    """Computes the logits of the tokens at some places of documents, without dropout.

    Args:
      options: the model.
      params: as from `init`.
      tokens_BxT: int32, with what is hidden replaced.
      segments_BxT: of `encoder.apply`.
      place_BxM: int32, places in the row.

    Returns:
      logits float32 [B, M, V], V the rows of the token table.
    """
    x_BxMxD, bias_V = _states(options, params, tokens_BxT, segments_BxT, place_BxM, None, WHOLE)
    word_VxD = params["encoder"]["embedding"]["word"].astype(x_BxMxD.dtype)
    logits_BxMxV = jnp.einsum("bmd,vd->bmv", x_BxMxD, word_VxD, preferred_element_type=jnp.float32)
    return logits_BxMxV + bias_V[None, None]


def score(
    options: MaskedLMOptions,
    params: Params,
    masked: Masked,
    segments_BxT: jax.Array,
    *,
    by_row: bool = False,
    rng: jax.Array | None = None,
    layout: Layout = WHOLE,
) -> tuple[jax.Array, jax.Array]:
    """Scores how well hidden tokens are named.

    Args:
      options: the model.
      params: as from `init`.
      masked: rows with hidden tokens.
      segments_BxT: of `encoder.apply`.
      by_row: whether each row is summed for itself.
      rng: random key of the dropout; None for no dropout.
      layout: how the arrays lie on the devices.

    Returns:
      The loss in nats and the number of tokens that are the most probable ones in their places,
      summed over the hidden tokens: float32 scalars, or by row [B].
    """
    place_BxM, target_BxM, hidden_BxM = masked.place_BxM, masked.target_BxM, masked.hidden_BxM
    x_BxMxD, bias_V = _states(
        options, params, masked.tokens_BxT, segments_BxT, place_BxM, rng, layout
    )
    word_VxD = params["encoder"]["embedding"]["word"]
    if options.encoder.frozen >= 0:
        word_VxD = jax.lax.stop_gradient(word_VxD)
    parts = vocabulary_loss.parts(len(target_BxM), target_BxM.shape[1], len(bias_V), layout)
    if not by_row:
        return naming_loss(x_BxMxD, word_VxD, bias_V, target_BxM, hidden_BxM, parts)

    def of_row(x_MxD: jax.Array, target_M: jax.Array, hidden_M: jax.Array) -> Any:
        return naming_loss(x_MxD[None], word_VxD, bias_V, target_M[None], hidden_M[None], parts)

    scores: tuple[jax.Array, jax.Array] = jax.vmap(of_row)(x_BxMxD, target_BxM, hidden_BxM)
    return scores


def _states(
    options: MaskedLMOptions,
    params: Params,
    tokens_BxT: jax.Array,
    segments_BxT: jax.Array,
    place_BxM: jax.Array,
    rng: jax.Array | None,
    layout: Layout,
) -> tuple[jax.Array, jax.Array]:
    """The states at some places [B, M, D], ready for the product with the table, and its bias."""
    h_BxTxD = encoder.apply(
        options.encoder, params["encoder"], tokens_BxT, segments_BxT, rng=rng, layout=layout
    )
    h_BxMxD = jnp.take_along_axis(h_BxTxD, place_BxM[..., None], axis=1)
    states: tuple[jax.Array, jax.Array] = _Head(options.encoder).apply(  # type: ignore[assignment]
        {"params": params["masked_lm"]}, h_BxMxD
    )
    return states
