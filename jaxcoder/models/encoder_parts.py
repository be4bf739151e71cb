"""What an encoder is made of: embedding, convolution, layers."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxcoder.models.attention import Sight
from jaxcoder.models.encoder_options import DTYPES, EncoderOptions
from jaxcoder.models.layers import (
    LayerNorm,
    Product,
    dropout,
    dropout_key,
    gelu,
    leading,
    spread,
    weight,
)
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _narrow_rows(table_VxD: jax.Array, tokens_BxT: jax.Array, layout: Layout) -> jax.Array:
    return table_VxD[tokens_BxT]


def _narrow_rows_forward(table: jax.Array, tokens: jax.Array, layout: Layout) -> tuple[Any, ...]:
    return table[tokens], (tokens, table[:, :0])  # the latter for its rows and type


def _narrow_rows_backward(
    layout: Layout, residuals: tuple[jax.Array, ...], gradient: jax.Array
) -> tuple[jax.Array, None]:
    tokens_BxT, like = residuals

    def of_a_device(tokens_BxT: jax.Array, gradient_BxTxD: jax.Array) -> jax.Array:
        # A frequent token has thousands of terms: too many for a sum in bfloat16.
        sums_VxD = jnp.zeros((len(like), gradient_BxTxD.shape[-1]), jnp.float32)
        sums_VxD = sums_VxD.at[tokens_BxT].add(gradient_BxTxD.astype(jnp.float32))
        sums_VxD = sums_VxD.astype(like.dtype)
        return jax.lax.psum(sums_VxD, layout.batch_axes) if layout.batch > 1 else sums_VxD

    if layout.batch > 1:
        assert layout.mesh is not None
        rows = PartitionSpec(layout.batch_axes)
        of_a_device = jax.shard_map(
            of_a_device, mesh=layout.mesh, in_specs=(rows, rows), out_specs=PartitionSpec()
        )
    return of_a_device(tokens_BxT, gradient), None


_narrow_rows.defvjp(_narrow_rows_forward, _narrow_rows_backward)


def rows_of(table_VxD: jax.Array, tokens_BxT: jax.Array, layout: Layout) -> jax.Array:
    """Returns table[tokens], float32 [B, T, D].

    The gradient of a bfloat16 table is summed in float32 on each device, and then over the devices
    in bfloat16: see `OptimOptions.gradients`.
    """
    if table_VxD.dtype == jnp.float32:
        return table_VxD[tokens_BxT]
    return _narrow_rows(table_VxD, tokens_BxT, layout).astype(jnp.float32)


class Embedding(nn.Module):
    """Token and, in bert, position and token type tables, summed, normalised and dropped out."""

    options: EncoderOptions
    layout: Layout

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array, position_BxT: jax.Array) -> jax.Array:
        """Returns states [B, T, D]; positions int32 [B or 1, T] count from a document's start."""
        options = self.options
        normal = nn.initializers.truncated_normal(0.02)
        rows = -(-options.vocab_size // options.vocab_multiple) * options.vocab_multiple
        table = weight(self, "word", normal, (rows, options.width), ("vocabulary", None))
        x_BxTxD = rows_of(table, tokens_BxT, self.layout)
        if options.family == "bert":
            positions = options.max_positions or options.window + options.position_offset
            position = weight(self, "position", normal, (positions, options.width), (None, None))
            place = position[position_BxT % options.window + options.position_offset]
            if len(place) == 1:  # rows of one document each: the same positions
                place = spread(place[0], len(x_BxTxD))
            x_BxTxD = x_BxTxD + place
            if options.token_types:
                shape = (options.token_types, options.width)
                types = weight(self, "token_type", normal, shape, (None, None))
                x_BxTxD = x_BxTxD + types[:1, None]
        x_BxTxD = norm(options, "norm")(x_BxTxD)
        return dropout(dropout_key(self, options.dropout), x_BxTxD, options.dropout)
