import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder.models.layout import Layout
from jaxcoder.models.vocabulary_loss import naming_loss, parts

B, M, D, V = 3, 7, 8, 20


def make(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x, word, bias = rng.normal(size=(B, M, D)), rng.normal(size=(V, D)), rng.normal(size=V)
    target = rng.integers(0, V, (B, M))
    target[:, ::2] = np.argmax(x @ word.T + bias, axis=2)[:, ::2]  # some of them are right
    return (
        jnp.asarray(x, dtype),
        jnp.asarray(word, jnp.float32),
        jnp.asarray(bias, jnp.float32),
        jnp.asarray(target, jnp.int32),
        jnp.asarray(rng.random((B, M)) < 0.7),
    )


def whole(x_BxMxD, word_VxD, bias_V, target_BxM, hidden_BxM):
    """The formula as it reads."""
    logits_BxMxV = jnp.einsum("bmd,vd->bmv", x_BxMxD, word_VxD) + bias_V[None, None]
    log_BxMxV = jax.nn.log_softmax(logits_BxMxV)
    loss_BxM = -jnp.take_along_axis(log_BxMxV, target_BxM[..., None], axis=2)[..., 0]
    correct_BxM = jnp.argmax(logits_BxMxV, axis=2) == target_BxM
    return jnp.sum(loss_BxM * hidden_BxM), jnp.sum(correct_BxM & hidden_BxM)


@pytest.mark.parametrize("count", [1, 3, 7])  # 3 does not divide the slots
def test_sums_and_gradients_are_those_of_the_formula(count):
    arguments = make()

    def ours(*learnt):
        loss, correct = naming_loss(*learnt, *arguments[3:], count)
        return 0.5 * loss, correct

    def expected(*learnt):
        loss, correct = whole(*learnt, *arguments[3:])
        return 0.5 * loss, correct

    (value, correct), slopes = jax.value_and_grad(ours, (0, 1, 2), has_aux=True)(*arguments[:3])
    (other, found), others = jax.value_and_grad(expected, (0, 1, 2), has_aux=True)(*arguments[:3])
    assert float(value) == pytest.approx(float(other), rel=1e-6) and correct == found > 0
    for slope, right in zip(slopes, others, strict=True):
        np.testing.assert_allclose(slope, right, atol=2e-6)
    # Without a gradient, as in evaluation, it is the same sum.
    assert float(naming_loss(*arguments, 3)[0]) == pytest.approx(2 * float(value), rel=1e-6)


def test_rows_one_by_one_are_the_batch():
    x, word, bias, target, hidden = make()
    rows = jax.vmap(
        lambda x, target, hidden: naming_loss(x[None], word, bias, target[None], hidden[None], 2)
    )(x, target, hidden)
    for sums, total in zip(rows, naming_loss(x, word, bias, target, hidden, 2), strict=True):
        assert sums.shape == (B,) and float(jnp.sum(sums)) == pytest.approx(float(total), rel=1e-6)


def test_bfloat16_is_near():
    x, word, *rest = make(jnp.bfloat16)
    slope = jax.grad(lambda x: naming_loss(x, word, *rest, 2)[0])(x)
    exact = jax.grad(lambda x: whole(x, word, *rest)[0])(x.astype(jnp.float32))
    assert slope.dtype == jnp.bfloat16
    np.testing.assert_allclose(slope.astype(jnp.float32), exact, atol=0.05)


def test_a_part_is_as_large_as_the_layout_says():
    layout = Layout(batch=2, chunk_bytes=1000)
    # 3 rows on a device, 7 slots, 20 tokens, 4 bytes: 1,680 in parts of 2,000.
    assert parts(6, 7, 20, layout) == 1
    assert parts(6, 70, 20, layout) == 9  # of 8 slots
    assert parts(6, 7, 2000, layout) == 7  # one slot is too large, and there are no smaller parts
    for slots in range(1, 200):
        count = parts(32, slots, 300, Layout(chunk_bytes=400_000))  # of 20 slots
        assert -(-slots // count) * count < slots + 20
