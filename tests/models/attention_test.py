import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder.models import attention, layers

SHAPE = (2, 3, 2, 5, 4)  # B, H, N, W, K


def arrays(seed, count):
    keys = jax.random.split(jax.random.key(seed), count)
    return [jax.random.normal(key, SHAPE) for key in keys]


def naive(query, key, value, mask, drop, rate):
    weights = jax.nn.softmax(jnp.einsum("bhnqk,bhnsk->bhnqs", query, key) + mask, axis=-1)
    return jnp.einsum("bhnqs,bhnsk->bhnqk", layers.dropout(drop, weights, rate), value)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_written_out_gradient_is_that_of_autodiff(rate):
    query, key, value, tangent = arrays(0, 4)
    valid = (
        jnp.arange(5)[None, None] < jnp.asarray([[5, 2], [3, 0]])[..., None]
    )  # one window of padding alone
    mask = jnp.where(valid, 0.0, layers.MASKED)[:, None, :, None]
    drop = jax.random.key_data(jax.random.key(1)) if rate else None

    def both(function):
        def scalar(query, key, value):
            return jnp.sum(function(query, key, value, mask, drop, rate) * tangent)

        return function(query, key, value, mask, drop, rate), jax.grad(scalar, (0, 1, 2))(
            query, key, value
        )

    for ours, expected in zip(
        jax.tree.leaves(both(attention.attend)), jax.tree.leaves(both(naive)), strict=True
    ):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
