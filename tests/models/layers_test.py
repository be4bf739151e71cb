import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder.models import layers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gelu_and_its_slope_are_those_of_the_error_function(dtype):
    x = jnp.linspace(-6, 6, 1001).astype(dtype)
    expected, slope = jax.vmap(
        jax.value_and_grad(lambda value: jax.nn.gelu(value, approximate=False))
    )(x.astype(jnp.float32))
    ours, our_slope = jax.vmap(jax.value_and_grad(layers.gelu))(x)
    tolerance = {"float32": 1e-6, "bfloat16": 2e-2}[dtype]
    np.testing.assert_allclose(ours.astype(jnp.float32), expected, atol=tolerance)
    np.testing.assert_allclose(our_slope.astype(jnp.float32), slope, atol=tolerance)


def test_layer_norm_is_that_of_numpy():
    x = np.random.default_rng(0).normal(3, 5, (2, 3, 16)).astype(np.float32)
    scale, bias = np.linspace(1, 2, 16, dtype=np.float32), np.arange(16, dtype=np.float32)
    ours = layers.LayerNorm(1e-5).apply({"params": {"scale": scale, "bias": bias}}, x)
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    np.testing.assert_allclose(
        ours, (x - mean) / np.sqrt(variance + 1e-5) * scale + bias, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_what_is_spread_is_the_sum_over_rows(dtype):
    slope = jax.random.normal(jax.random.key(0), (5, 3, 4)).astype(dtype)
    x = jnp.arange(12.0, dtype=dtype).reshape(3, 4)
    y, back = jax.vjp(lambda x: layers.spread(x, 5), x)
    np.testing.assert_array_equal(y, np.stack([x] * 5))
    (total,) = back(slope)
    assert total.dtype == x.dtype
    np.testing.assert_allclose(
        total.astype(jnp.float32),
        np.asarray(slope, np.float64).sum(axis=0),
        atol={"float32": 1e-6, "bfloat16": 5e-2}[dtype],
    )


def test_what_is_turned_has_its_last_axes_swapped():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    turned = jax.jit(lambda a, b: layers.turned(jnp.einsum("nab,nac->nbc", a, b)))(a, b)
    np.testing.assert_allclose(turned, np.einsum("nab,nac->ncb", a, b), atol=1e-5)


def key(seed):
    return jax.random.key_data(jax.random.key(seed))


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = jnp.ones((64, 257, 33))
    y = np.asarray(layers.dropout(key(0), x, 0.3))
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.7)}
    # The standard deviation of the share is 0.0006 over all and 0.005 to 0.01 over a slice.
    assert np.mean(y == 0) == pytest.approx(0.3, abs=0.003)
    for axes in ((0, 1), (0, 2), (1, 2)):
        assert np.max(np.abs(np.mean(y == 0, axis=axes) - 0.3)) < 0.06


def test_dropout_of_neighbours_keys_and_steps_is_unrelated():
    x = jnp.ones((512, 128))

    def dropped(*keys):
        folded = jax.random.fold_in(jax.random.key(0), keys[0])
        return np.asarray(layers.dropout(jax.random.key_data(folded), x, 0.5)) == 0

    one, other = dropped(1), dropped(2)
    # Independent masks agree on half of 65,536 elements; the standard deviation is 0.002.
    for left, right in ((one, other), (one[1:], one[:-1]), (one[:, 1:], one[:, :-1])):
        assert np.mean(left == right) == pytest.approx(0.5, abs=0.012)


def test_dropout_without_a_key_or_a_rate_changes_nothing():
    x = jnp.arange(6.0)
    assert layers.dropout(None, x, 0.5) is x
    assert layers.dropout(key(0), x, 0.0) is x
