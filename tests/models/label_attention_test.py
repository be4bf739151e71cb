import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder.models import chunks
from jaxcoder.models.label_attention import HeadOptions, LabelAttention
from jaxcoder.models.layout import WHOLE, Layout

B, T, D, P, L = 3, 7, 12, 8, 21
LENGTHS = np.array([7, 4, 1])
HEADS = [HeadOptions(kind=kind, num_labels=L, width=P) for kind in ("laat", "cross")]
FOCUS = np.array([[0, 20, -1], [5, 5, 3], [-1, -1, -1]], np.int32)
TANGENT = np.random.default_rng(9).normal(size=(B, L)).astype(np.float32)
VALID = jnp.arange(T)[None] < LENGTHS[:, None]


def states(seed=0):
    return jax.random.normal(jax.random.key(seed), (B, T, D))


def head_params(options, seed=0):
    params = LabelAttention(options, jnp.float32).init(
        jax.random.key(seed), states(), VALID, None, WHOLE
    )["params"]
    params = jax.tree.map(lambda leaf: leaf.value, params, is_leaf=lambda x: hasattr(x, "value"))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 100))
    return jax.tree.map(lambda x: x + 0.5 * jax.random.normal(next(keys), x.shape), params)


def apply(options, params, h, focus=None, layout=WHOLE):
    return LabelAttention(options, h.dtype).apply({"params": params}, h, VALID, focus, layout)


def naive(options, params, h):
    """The design's formulas, document by document; also the attention."""
    logits, attention = [], []
    for document, length in zip(h, LENGTHS, strict=True):
        document, query = document[:length], params["query"][:L]
        if options.kind == "laat":
            keys, values = jnp.tanh(document @ params["projection"]["kernel"]), document
        else:
            keys = document @ params["key"]["kernel"]
            values = document @ params["value"]["kernel"] + params["value"]["bias"][None]
        weights = jax.nn.softmax(query @ keys.T, axis=-1)
        mixed = weights @ values
        if options.kind == "laat":
            logits.append(jnp.sum(params["output"][:L] * mixed, axis=-1) + params["bias"][:L])
        else:
            mixed = mixed - mixed.mean(-1, keepdims=True)
            mixed = mixed / jnp.sqrt((mixed**2).mean(-1, keepdims=True) + 1e-5)
            mixed = mixed * params["norm_scale"][None] + params["norm_bias"][None]
            logits.append(mixed @ params["output"] + params["bias"])
        attention.append(jnp.pad(weights, ((0, 0), (0, T - length))))
    return jnp.stack(logits), jnp.stack(attention)


@functools.cache
def naive_gradient(options):
    def total(params, h):
        return jnp.sum(naive(options, params, h)[0] * TANGENT)

    return jax.jit(jax.grad(total, (0, 1)))(head_params(options), states())


@pytest.mark.parametrize("options", HEADS, ids=lambda options: options.kind)
@pytest.mark.parametrize(
    ("chunk", "layout"),
    [(-1, WHOLE), (0, WHOLE), (5, WHOLE), (8, WHOLE), (5, Layout(1, 4)), (3, Layout(3, 2))],
    ids=str,
)
def test_any_chunks_are_the_formula_forward_and_backward(options, chunk, layout):
    options = dataclasses.replace(options, chunk=chunk)
    params, h = head_params(options), states()

    @jax.jit
    def ours(params, h):
        def total(params, h):
            logits = apply(options, params, h, layout=layout)[0]
            return jnp.sum(logits * TANGENT), logits

        return jax.grad(total, (0, 1), has_aux=True)(params, h)

    gradient, logits = ours(params, h)
    np.testing.assert_allclose(logits, naive(options, params, h)[0], atol=2e-5)
    expected = naive_gradient(dataclasses.replace(options, chunk=0))
    for our, right in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(our, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", HEADS, ids=lambda options: options.kind)
def test_focus_is_the_attention_of_the_logits(options):
    params, h = head_params(options), states()
    _, log_attention = apply(options, params, h, FOCUS)
    ours, expected = np.exp(log_attention), naive(options, params, h)[1]
    for row, slot in np.argwhere(FOCUS >= 0):
        np.testing.assert_allclose(ours[row, slot], expected[row, FOCUS[row, slot]], atol=1e-5)
    np.testing.assert_allclose(ours.sum(-1), 1, atol=1e-5)
    assert np.all(log_attention[1, :, 4:] < -1e8)


@pytest.mark.parametrize("options", HEADS, ids=lambda options: options.kind)
def test_focus_teaches_head_and_encoder(options):
    params, h = head_params(options), states()

    def first_token(params, h):
        return apply(options, params, h, FOCUS)[1][0, 1, 0]

    in_params, in_states = jax.grad(first_token, (0, 1))(params, h)
    touched = np.abs(in_params["query"]).sum(-1)
    assert list(np.flatnonzero(touched)) == [20]
    assert np.all(np.abs(in_states[0]).sum(-1) > 0)
    assert np.all(in_states[1:] == 0)


@pytest.mark.parametrize("options", HEADS, ids=lambda options: options.kind)
def test_padding_receives_neither_attention_nor_gradient(options):
    params, h = head_params(options), states()
    other = jnp.where(VALID[..., None], h, 100 * states(1))
    np.testing.assert_allclose(
        apply(options, params, h)[0], apply(options, params, other)[0], atol=1e-5
    )
    gradient = jax.grad(lambda h: jnp.sum(apply(options, params, h)[0] ** 2))(h)
    assert np.all(np.asarray(gradient)[~np.asarray(VALID)] == 0)


@pytest.mark.parametrize("options", HEADS, ids=lambda options: options.kind)
def test_bfloat16_is_near_float32(options):
    params, h = head_params(options), states()
    exact, rough = apply(options, params, h)[0], apply(options, params, h.astype(jnp.bfloat16))[0]
    assert rough.dtype == jnp.float32
    assert np.abs(rough - exact).max() < 0.05 * np.std(exact)


def test_biases_start_at_the_base_rate():
    options = dataclasses.replace(HEADS[0], bias_init=-3.5)
    params = LabelAttention(options, jnp.float32).init(
        jax.random.key(0), states(), VALID, None, WHOLE
    )["params"]
    assert np.all(params["bias"].value == -3.5)
    assert params["query"].value.shape == (24, P)  # 21 labels in rows of 8


def test_chunks_follow_the_memory():
    assert chunks.chunk_size(16, 640, 1768, WHOLE) == 1768  # stored: faster
    assert chunks.chunk_size(2, 4096, 8000, WHOLE) == 128
    assert chunks.chunk_size(64, 4096, 8000, Layout(batch=32)) == 128  # the same on a device
    assert chunks.chunk_size(4, 4096, 8192, Layout.of("tpu")) == 1024
    assert chunks.chunk_size(1024, 8192, 70000, WHOLE) == 128


@pytest.mark.parametrize("kind", ["laat", "cross"])
def test_all_attention_never_exists(kind):
    labels, length, width = 2048, 512, 16
    h = jax.ShapeDtypeStruct((2, length, width), jnp.float32)
    options = HeadOptions(kind=kind, num_labels=labels, chunk=128)
    valid = jnp.ones((2, length), bool)

    def total(params, h):
        logits = LabelAttention(options, jnp.float32).apply(
            {"params": params}, h, valid, None, WHOLE
        )
        return jnp.sum(logits[0] ** 2)

    params = jax.eval_shape(
        lambda: jax.tree.map(
            lambda leaf: leaf.value,
            LabelAttention(options, jnp.float32).init(
                jax.random.key(0), jnp.zeros(h.shape), valid, None, WHOLE
            )["params"],
            is_leaf=lambda x: hasattr(x, "value"),
        )
    )
    memory = jax.jit(jax.grad(total, (0, 1))).lower(params, h).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 2 * labels * length * 4  # of the whole [B, L, T]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "mean"}, "kind = 'mean': expected one of laat, cross"),
        ({"num_labels": 0}, "num_labels = 0: expected at least 1"),
        ({"chunk": -2}, "chunk = -2: expected"),
    ],
)
def test_wrong_options_say_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HEADS[0], **change)
