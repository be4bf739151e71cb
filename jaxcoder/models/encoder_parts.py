"""What an encoder is made of: embedding, convolution, layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcoder.models.attention import Sight
from jaxcoder.models.encoder_options import DTYPES, EncoderOptions
from jaxcoder.models.layers import LayerNorm, Product, dropout, dropout_key, gelu, leading, weight
from jaxcoder.models.layout import Layout
from jaxcoder.models.self_attention import SelfAttention


class Convolution(nn.Module):
    """A convolution over the whole document, which padding and other documents do not enter.

    One product with all taps, then shifted sums: on 2 CPU cores faster than XLA's convolution.
    """

    options: EncoderOptions

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, segments_BxT: jax.Array) -> jax.Array:
        """Returns x + GELU(convolution(x) + bias)."""
        options, dtype = self.options, DTYPES[self.options.dtype]
        taps, width, length = options.convolution, options.width, x_BxTxD.shape[1]
        initializer = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", (0, 1))
        shape = (taps, width, width)
        kernel = weight(self, "kernel", initializer, shape, (None, "width", None)).astype(dtype)
        bias = weight(self, "bias", nn.initializers.zeros, (width,), (None,)).astype(dtype)
        inner = jnp.where((segments_BxT != 0)[..., None], x_BxTxD, 0)
        y = leading(bias, 3)
        for tap in range(taps):  # token t takes tap k from token t + k − (taps − 1) / 2
            offset = tap - taps // 2
            before, after = max(-offset, 0), max(offset, 0)
            product = jnp.einsum("btd,de->bte", inner, kernel[tap])
            shifted = jnp.pad(product, ((0, 0), (before, after), (0, 0)))[:, after : after + length]
            if segments_BxT.dtype != jnp.bool_ and offset:
                other = jnp.pad(segments_BxT, ((0, 0), (before, after)))[:, after : after + length]
                shifted = jnp.where((other == segments_BxT)[..., None], shifted, 0)
            y = y + shifted
        return x_BxTxD + gelu(y)


class Layer(nn.Module):
    """A block of attention, then feed-forward, each with residual and layer norm.

    bert normalises after each of the two; modernbert before, but for the attention of the first
    layer, and its feed-forward part is gated (GeGLU; Shazeer, arXiv:2002.05202).

    Attributes:
      options: the encoder's.
      sight: what a token sees.
      implementation: what computes the attention, see `attention.attention`.
      layout: how the arrays lie on the devices.
    """

    options: EncoderOptions
    sight: Sight
    implementation: str
    layout: Layout

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        segments_BxT: jax.Array,
        rotary: tuple[jax.Array, jax.Array] | None,
        first: jax.Array | bool,
    ) -> jax.Array:
        """Returns the next states.

        Args:
          x_BxTxD: states.
          segments_BxT: see `Encoder`.
          rotary: of modernbert's positions, else None.
          first: whether this is the encoder's first layer, bool scalar.
        """
        if self.options.family == "bert":
            x_BxTxD = x_BxTxD + self._drop(self._attend(x_BxTxD, segments_BxT, None))
            x_BxTxD = self._norm("attention_norm")(x_BxTxD)
            inner = gelu(self._product("feedforward_in", True)(x_BxTxD))
            x_BxTxD = x_BxTxD + self._drop(self._product("feedforward_out", False)(inner))
            return self._norm("output_norm")(x_BxTxD)
        y_BxTxD = jnp.where(first, x_BxTxD, self._norm("attention_norm")(x_BxTxD))
        x_BxTxD = x_BxTxD + self._drop(self._attend(y_BxTxD, segments_BxT, rotary))
        y_BxTxD = self._norm("feedforward_norm")(x_BxTxD)
        inner = gelu(self._product("feedforward_in", True)(y_BxTxD))
        inner = self._drop(inner * self._product("feedforward_gate", True)(y_BxTxD))
        return x_BxTxD + self._product("feedforward_out", False)(inner)

    def _attend(
        self,
        x_BxTxD: jax.Array,
        segments_BxT: jax.Array,
        rotary: tuple[jax.Array, jax.Array] | None,
    ) -> jax.Array:
        options = self.options
        return SelfAttention(
            width=options.width,
            heads=options.heads,
            sight=self.sight,
            biases=options.family == "bert",
            dropout_rate=options.attention_rate,
            implementation=self.implementation,
            layout=self.layout,
            dtype=DTYPES[options.dtype],
            name="attention",
        )(x_BxTxD, segments_BxT, rotary)

    def _product(self, name: str, into: bool) -> Product:
        options = self.options
        shape, axes = (options.width, options.feedforward), ("width", "feedforward")
        if not into:
            shape, axes = shape[::-1], axes[::-1]
        biases = int(options.family == "bert")
        return Product("", shape, axes, biases, dtype=DTYPES[options.dtype], name=name)

    def _norm(self, name: str) -> LayerNorm:
        return norm(self.options, name)

    def _drop(self, x: jax.Array) -> jax.Array:
        return dropout(dropout_key(self, self.options.dropout), x, self.options.dropout)


def norm(options: EncoderOptions, name: str) -> LayerNorm:
    """A layer norm of the encoder; modernbert's have no bias."""
    return LayerNorm(
        options.norm_epsilon, DTYPES[options.dtype], options.family == "bert", name=name
    )


class Embedding(nn.Module):
    """Token and, in bert, position and token type tables, summed, normalised and dropped out."""

    options: EncoderOptions

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array, position_BxT: jax.Array) -> jax.Array:
        """Returns states [B, T, D]; positions int32 [B or 1, T] count from a document's start."""
        options = self.options
        normal = nn.initializers.truncated_normal(0.02)
        rows = -(-options.vocab_size // options.vocab_multiple) * options.vocab_multiple
        table = weight(self, "word", normal, (rows, options.width), ("vocabulary", None))
        x_BxTxD = table[tokens_BxT]
        if options.family == "bert":
            positions = options.max_positions or options.window + options.position_offset
            position = weight(self, "position", normal, (positions, options.width), (None, None))
            x_BxTxD = x_BxTxD + position[position_BxT % options.window + options.position_offset]
            if options.token_types:
                shape = (options.token_types, options.width)
                types = weight(self, "token_type", normal, shape, (None, None))
                x_BxTxD = x_BxTxD + types[:1, None]
        x_BxTxD = norm(options, "norm")(x_BxTxD)
        return dropout(dropout_key(self, options.dropout), x_BxTxD, options.dropout)
