"""The attention of a layer: its products, and rotary positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcoder.models.attention import Sight, attention
from jaxcoder.models.layers import Product, dropout_key
from jaxcoder.models.layout import Layout


class SelfAttention(nn.Module):
    """Multi-head attention of a layer.

    Attributes:
      width: D.
      heads: H.
      sight: what a token sees.
      biases: whether the four products have them.
      dropout_rate: share of attention weights dropped.
      implementation: see `attention`.
      layout: how the arrays lie on the devices.
      dtype: of activations; scores and softmax are float32.
    """

    width: int
    heads: int
    sight: Sight
    biases: bool
    dropout_rate: float
    implementation: str
    layout: Layout
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        segments_BxT: jax.Array,
        rotary: tuple[jax.Array, jax.Array] | None,
    ) -> jax.Array:
        """Returns the attended states [B, T, D].

        Args:
          x_BxTxD: states.
          segments_BxT: see `attention`.
          rotary: cosines and sines float32 [B or 1, 1, T, K] that turn queries and keys, or None.
        """
        heads, width = self.heads, self.width
        head_width = width // heads

        def projection(name: str) -> jax.Array:
            return Product(
                "btd,dhk->bhtk",  # heads first: 15 % fewer cycles on TPU than reshape, transpose
                (width, heads, head_width),
                ("width", "heads", None),
                outputs=2 * self.biases,
                bias_shape=(heads, 1, head_width),
                dtype=self.dtype,
                name=name,
            )(x_BxTxD)

        query, key, value = (projection(name) for name in ("query", "key", "value"))
        if rotary is not None:
            query, key = turn(query, *rotary), turn(key, *rotary)
        mixed = attention(
            query * head_width**-0.5,
            key,
            value,
            segments_BxT,
            self.sight,
            self.implementation,
            self.layout,
            dropout_key(self, self.dropout_rate),
            self.dropout_rate,
        )
        return Product(
            "bhtk,hkd->btd",
            (heads, head_width, width),
            ("heads", None, "width"),
            outputs=int(self.biases),
            dtype=self.dtype,
            name="output",
        )(mixed)


def rotary_tables(
    position_BxT: jax.Array, head_width: int, theta: float
) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of rotary positions (Su et al., arXiv:2104.09864), float32 [B, 1, T, K].

    Args:
      position_BxT: int32, of each token in its document.
      head_width: K, even.
      theta: base of the wavelengths.
    """
    rates = theta ** (-np.arange(0, head_width, 2, dtype=np.float32) / head_width)
    angles = position_BxT.astype(jnp.float32)[:, None, :, None] * rates.reshape(1, 1, 1, -1)
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def turn(x: jax.Array, cosine: jax.Array, sine: jax.Array) -> jax.Array:
    """Turns [B, H, T, K] by rotary positions, whose pairs are (k, k + K/2), in float32."""
    wide = x.astype(jnp.float32)
    first, second = jnp.split(wide, 2, axis=-1)
    turned = wide * cosine + jnp.concatenate([-second, first], axis=-1) * sine
    return turned.astype(x.dtype)
