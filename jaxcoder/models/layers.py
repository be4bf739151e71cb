"""The small parts that encoder and head share: product with bias, layer norm, dropout, parameters."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

# Scores of padding. Finite, so that a row of padding alone has a softmax and a gradient without NaN.
MASKED = -1e9


def weight(
    module: nn.Module,
    name: str,
    initializer: Initializer,
    shape: Sequence[int],
    axes: Sequence[str | None],
) -> jax.Array:
    """Declares a float32 parameter of a module, with the logical axes that sharding rules know."""
    boxed = nn.with_partitioning(initializer, tuple(axes))
    return module.param(name, boxed, tuple(shape), jnp.float32)


class Product(nn.Module):
    """An einsum with a float32 kernel and a bias, computed in `dtype`.

    Attributes:
      equation: the einsum of input and kernel.
      shape: of the kernel. Its last `outputs` axes are those of the bias.
      axes: logical axes of the kernel.
      outputs: number of axes of the bias; 0 for no bias.
      bias_shape: how the bias is shaped to be added, or None when its own shape broadcasts.
      dtype: of inputs and result.
      initializer: of the kernel.
    """

    equation: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    outputs: int = 1
    bias_shape: tuple[int, ...] | None = None
    dtype: jnp.dtype = jnp.float32
    initializer: Initializer = nn.initializers.truncated_normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns einsum(x, kernel) + bias."""
        kernel = weight(self, "kernel", self.initializer, self.shape, self.axes)
        y = jnp.einsum(self.equation, x.astype(self.dtype), kernel.astype(self.dtype))
        if self.outputs:
            tail = slice(len(self.shape) - self.outputs, None)
            bias = weight(
                self, "bias", nn.initializers.zeros, self.shape[tail], self.axes[tail]
            ).astype(self.dtype)
            y = y + (bias if self.bias_shape is None else bias.reshape(self.bias_shape))
        return y


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis, computed in float32 and returned in `dtype`."""

    epsilon: float
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the normalised x, scaled and shifted."""
        width = x.shape[-1]
        scale = weight(self, "scale", nn.initializers.ones, (width,), (None,))
        bias = weight(self, "bias", nn.initializers.zeros, (width,), (None,))
        x = x.astype(jnp.float32)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.epsilon) * scale + bias).astype(self.dtype)


def dropout(module: nn.Module, x: jax.Array, rate: float) -> jax.Array:
    """Drops elements of x where the module was given a `dropout` key; otherwise returns x.

    The rate is rounded to 1/256, so that one random word serves four elements: on 2 CPU cores the
    random words were the cost.
    """
    threshold = round(rate * 256)
    if not threshold or not module.has_rng("dropout"):
        return x
    size = x.size
    words = jax.random.bits(module.make_rng("dropout"), ((size + 3) // 4,), jnp.uint32)
    octets = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[:size].reshape(x.shape)
    return jnp.where(octets >= threshold, x * (256 / (256 - threshold)), jnp.zeros((), x.dtype))
