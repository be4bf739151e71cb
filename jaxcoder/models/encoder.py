"""The encoder: tokens of a document in, one state a token out."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcoder.models.attention import WindowAttention
from jaxcoder.models.layers import LayerNorm, Product, dropout, dropout_key, gelu, leading, weight

FAMILIES = ("bert",)
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """The shape of an encoder.

    Attributes:
      family: `bert` (BERT, RoBERTa): learned positions, post-norm, erf GELU.
      vocab_size: tokens of the tokenizer (V).
      width: of a token state (D).
      layers: number of blocks.
      heads: attention heads (H); they divide `width`.
      feedforward: inner width of the feed-forward part (F).
      window: W; longer documents are cut in windows of so many tokens that see only themselves.
      max_positions: rows of the position table; 0 for `window + position_offset`.
      position_offset: position of a window's first token: 0 for BERT, pad_id + 1 for RoBERTa.
      token_types: rows of the token type table, of which row 0 is added; 0 for no table.
      pad_id: the token of padding. Masks come from lengths, never from it.
      norm_epsilon: 1e-12 in BERT, 1e-5 in RoBERTa.
      dropout: share of states dropped, in [0, 1).
      attention_dropout: share of attention weights dropped; −1 for the same as `dropout`.
      convolution: width in tokens of a convolution over the document after the embedding, odd; 0
        for none. It is the one part that sees over window borders.
      dtype: of activations, `float32` or `bfloat16`; parameters and softmax are float32.
      remat: recompute each layer in the backward pass instead of storing its activations.
      unroll: layers compiled one by one instead of as a loop; 0 for all where there are up to 4.
      vocab_multiple: the token table is padded to a multiple of it, so that a mesh can split it.
    """

    family: str = "bert"
    vocab_size: int = 8000
    width: int = 256
    layers: int = 2
    heads: int = 4
    feedforward: int = 1024
    window: int = 256
    max_positions: int = 0
    position_offset: int = 0
    token_types: int = 0
    pad_id: int = 0
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = -1.0
    convolution: int = 0
    dtype: str = "float32"
    remat: bool = False
    unroll: int = 0
    vocab_multiple: int = 8

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family = {self.family!r}: expected one of {', '.join(FAMILIES)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype = {self.dtype!r}: expected one of {', '.join(DTYPES)}")
        for name in ("vocab_size", "width", "heads", "feedforward", "window", "vocab_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        for name in ("layers", "position_offset", "token_types", "unroll", "max_positions"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 0")
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads}: expected a divisor of width = {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}: expected a share in [0, 1)")
        if self.attention_dropout != -1 and not 0 <= self.attention_dropout < 1:
            raise ValueError(
                f"attention_dropout = {self.attention_dropout}: expected a share in [0, 1), or -1"
            )
        if self.convolution < 0 or (self.convolution and self.convolution % 2 == 0):
            raise ValueError(f"convolution = {self.convolution}: expected an odd width, or 0")
        needed = self.window + self.position_offset
        if self.max_positions and self.max_positions < needed:
            raise ValueError(
                f"max_positions = {self.max_positions}: expected at least window + "
                f"position_offset = {needed}"
            )


class Convolution(nn.Module):
    """A convolution over the whole document, which padding does not enter.

    One product with all taps, then shifted sums: on 2 CPU cores faster than XLA's convolution.
    """

    options: EncoderOptions

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, valid_BxT: jax.Array) -> jax.Array:
        """Returns x + GELU(convolution(x) + bias)."""
        options, dtype = self.options, DTYPES[self.options.dtype]
        taps, width, length = options.convolution, options.width, x_BxTxD.shape[1]
        initializer = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", (0, 1))
        shape = (taps, width, width)
        kernel = weight(self, "kernel", initializer, shape, (None, "width", None)).astype(dtype)
        bias = weight(self, "bias", nn.initializers.zeros, (width,), (None,)).astype(dtype)
        inner = jnp.where(valid_BxT[..., None], x_BxTxD, 0)
        y = leading(bias, 3)
        for tap in range(taps):  # token t takes tap k from token t + k − (taps − 1) / 2
            offset = tap - taps // 2
            product = jnp.einsum("btd,de->bte", inner, kernel[tap])
            before, after = max(-offset, 0), max(offset, 0)
            padded = jnp.pad(product, ((0, 0), (before, after), (0, 0)))
            y = y + padded[:, after : after + length]
        return x_BxTxD + gelu(y)


class Layer(nn.Module):
    """A post-norm block: attention, then feed-forward, each with residual and layer norm."""

    options: EncoderOptions

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, valid_BxT: jax.Array) -> tuple[jax.Array, None]:
        """Returns the next states and None, as `nn.scan` wants it."""
        options, dtype = self.options, DTYPES[self.options.dtype]
        width, inner = options.width, options.feedforward

        def product(name: str, shape: tuple[int, int], axes: tuple[str, str]) -> Product:
            return Product("", shape, axes, dtype=dtype, name=name)

        def drop(x: jax.Array) -> jax.Array:
            return dropout(dropout_key(self, options.dropout), x, options.dropout)

        attended = WindowAttention(
            width=width,
            heads=options.heads,
            window=options.window,
            dropout_rate=(
                options.dropout if options.attention_dropout < 0 else options.attention_dropout
            ),
            dtype=dtype,
            name="attention",
        )(x_BxTxD, valid_BxT)
        x_BxTxD = x_BxTxD + drop(attended)
        x_BxTxD = LayerNorm(options.norm_epsilon, dtype, name="attention_norm")(x_BxTxD)
        u_BxTxF = product("feedforward_in", (width, inner), ("width", "feedforward"))(x_BxTxD)
        u_BxTxF = gelu(u_BxTxF)
        y_BxTxD = product("feedforward_out", (inner, width), ("feedforward", "width"))(u_BxTxF)
        x_BxTxD = x_BxTxD + drop(y_BxTxD)
        return LayerNorm(options.norm_epsilon, dtype, name="output_norm")(x_BxTxD), None


class Embedding(nn.Module):
    """Token, position and token type tables, summed, normalised and dropped out."""

    options: EncoderOptions

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array) -> jax.Array:
        """Returns states [B, T, D]."""
        options, dtype = self.options, DTYPES[self.options.dtype]
        normal = nn.initializers.truncated_normal(0.02)
        rows = -(-options.vocab_size // options.vocab_multiple) * options.vocab_multiple
        table = weight(self, "word", normal, (rows, options.width), ("vocabulary", None))
        positions = options.max_positions or options.window + options.position_offset
        position = weight(self, "position", normal, (positions, options.width), (None, None))
        index_T = jnp.arange(tokens_BxT.shape[1]) % options.window + options.position_offset
        x_BxTxD = table[tokens_BxT] + position[index_T][None]
        if options.token_types:
            shape = (options.token_types, options.width)
            x_BxTxD = x_BxTxD + weight(self, "token_type", normal, shape, (None, None))[:1, None]
        x_BxTxD = LayerNorm(options.norm_epsilon, dtype, name="norm")(x_BxTxD)
        return dropout(dropout_key(self, options.dropout), x_BxTxD, options.dropout)


class Encoder(nn.Module):
    """Embedding, convolution where there is one, and the layers."""

    options: EncoderOptions

    @nn.compact
    def __call__(self, tokens_BxT: jax.Array, valid_BxT: jax.Array) -> jax.Array:
        """Returns states [B, T, D] in the compute dtype; those of padding mean nothing."""
        options = self.options
        x_BxTxD = Embedding(options, name="embedding")(tokens_BxT)
        if options.convolution:
            x_BxTxD = Convolution(options, name="convolution")(x_BxTxD, valid_BxT)
        if options.layers:
            layer = nn.remat(Layer, prevent_cse=False) if options.remat else Layer
            layers = nn.scan(
                layer,
                length=options.layers,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=nn.broadcast,
                unroll=options.unroll or (options.layers if options.layers <= 4 else 1),
                metadata_params={nn.PARTITION_NAME: None},
            )(options, name="layers")
            x_BxTxD, _ = layers(x_BxTxD, valid_BxT)
        return x_BxTxD
