import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder import sharding
from jaxcoder.models import encoder
from jaxcoder.models.encoder import EncoderOptions
from jaxcoder.models.encoder_parts import rows_of
from jaxcoder.models.layout import Layout

pytestmark = pytest.mark.usefixtures("quickly_compiled")

OPTIONS = EncoderOptions(
    vocab_size=50, width=16, layers=2, heads=2, feedforward=32, window=4, dropout=0.0
)
# Two periods of a global and a local layer, and a global one that runs alone.
MODERN = dataclasses.replace(
    OPTIONS,
    family="modernbert",
    layers=5,
    global_every=2,
    local_attention=4,
    norm_epsilon=1e-5,
)


@functools.cache
def variables(options, seed=0):
    params = encoder.init(options, jax.random.key(seed))
    # Larger than at the start, biases and norms too, so that every part shows in the result.
    keys = iter(jax.random.split(jax.random.key(seed + 1), 100))
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)


@functools.partial(jax.jit, static_argnums=0)
def apply(options, params, tokens, segments, rng):
    return encoder.apply(options, params, tokens, segments, rng=rng)


def states(options, params, tokens, lengths, rng=None):
    valid = np.arange(tokens.shape[1])[None] < np.asarray(lengths)[:, None]
    return apply(options, params, tokens, valid, rng)


def tokens(seed, *shape):
    return np.random.default_rng(seed).integers(1, OPTIONS.vocab_size, shape).astype(np.int32)


def bert_by_hand(options, params, ids):
    """One window of BERT in NumPy, in the layout of its PyTorch weights: [outputs, inputs]."""
    tree = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x, weights):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + options.norm_epsilon) * weights["scale"] + weights[
            "bias"
        ]

    def linear(x, weight, bias):
        return x @ weight.reshape(options.width, -1) + bias.reshape(-1)

    embedding, layers = tree["embedding"], tree["layers"]
    positions = np.arange(len(ids)) + options.position_offset
    x = embedding["word"][ids] + embedding["position"][positions] + embedding["token_type"][0]
    x = norm(x, embedding["norm"])
    heads, width = options.heads, options.width // options.heads
    erf = np.vectorize(math.erf)
    for number in range(options.layers):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number], layers)
        attention = layer["attention"]
        query, key, value = (
            linear(x, attention[name]["kernel"], attention[name]["bias"])
            .reshape(-1, heads, width)
            .transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.sqrt(width)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ value
        mixed = mixed.transpose(1, 0, 2).reshape(len(ids), -1)
        output = attention["output"]
        y = mixed @ output["kernel"].reshape(-1, options.width) + output["bias"]
        x = norm(x + y, layer["attention_norm"])
        u = x @ layer["feedforward_in"]["kernel"] + layer["feedforward_in"]["bias"]
        u = u * 0.5 * (1 + erf(u / np.sqrt(2)))
        y = u @ layer["feedforward_out"]["kernel"] + layer["feedforward_out"]["bias"]
        x = norm(x + y, layer["output_norm"])
    return x


def test_one_window_is_bert():
    options = dataclasses.replace(OPTIONS, window=6, token_types=2, position_offset=2)
    params, ids = variables(options), tokens(0, 6)
    expected = bert_by_hand(options, params, ids)
    np.testing.assert_allclose(
        states(options, params, ids[None], [6])[0], expected, rtol=1e-4, atol=1e-4
    )


def test_a_document_is_its_windows():
    params, ids = variables(OPTIONS), tokens(0, 1, 10)
    whole = states(OPTIONS, params, ids, [10])[0]
    for start in (0, 4, 8):
        window = ids[:, start : start + 4]
        alone = states(OPTIONS, params, window, [window.shape[1]])[0]
        np.testing.assert_allclose(whole[start : start + 4], alone, atol=1e-5)


@pytest.mark.parametrize(("convolution", "reach"), [(0, 0), (3, 1), (5, 2)])
def test_a_window_sees_itself_and_the_convolution_its_margin(convolution, reach):
    options = dataclasses.replace(OPTIONS, convolution=convolution)
    params = variables(options)

    def seen(table):
        embedding = {**params["embedding"], "word": table}
        changed = {**params, "embedding": embedding}
        return jnp.sum(states(options, changed, np.arange(12)[None], [12])[0, 4:8] ** 3)

    table = params["embedding"]["word"]
    gradient = np.asarray(jax.grad(seen)(table))
    sees = np.flatnonzero(np.abs(gradient).sum(-1) > 0)
    assert list(sees) == list(range(4 - reach, 8 + reach))


def test_a_local_layer_sees_its_neighbours_and_a_global_one_all():
    options = dataclasses.replace(MODERN, layers=3, global_every=3)
    params = variables(options)

    def seen(params):
        def state(table):
            changed = {**params, "embedding": {**params["embedding"], "word": table}}
            return jnp.sum(states(options, changed, np.arange(25)[None], [23])[0, 11] ** 3)

        slope = np.abs(jax.grad(state)(params["embedding"]["word"])).sum(-1)
        return list(np.flatnonzero(slope > 0))

    assert seen(params) == list(range(23))
    # Without the global layer's attention, two local layers reach 2 × 2 tokens.
    kernel = params["layers"]["attention"]["output"]["kernel"].at[0].set(0)
    attention = {**params["layers"]["attention"], "output": {"kernel": kernel}}
    assert seen({**params, "layers": {**params["layers"], "attention": attention}}) == list(
        range(7, 16)
    )


FAMILIES = {
    "bert": OPTIONS,
    "convolution": dataclasses.replace(OPTIONS, convolution=3),
    "modernbert": MODERN,
}


@pytest.mark.parametrize("options", FAMILIES.values(), ids=FAMILIES)
def test_padding_and_neighbours_change_nothing(options):
    params, document = variables(options), tokens(0, 7)
    alone = states(options, params, document[None], [7])[0]
    for length in (8, 13):
        padded = tokens(1, 3, length)  # padding holds tokens: only lengths count
        padded[1, :7] = document
        batch = states(options, params, padded, [length, 7, 0])
        np.testing.assert_allclose(batch[1, :7], alone, atol=1e-5)
        assert np.all(np.isfinite(batch))


@pytest.mark.parametrize("family", ["convolution", "modernbert"])
def test_packed_documents_are_as_alone(family):
    options = dataclasses.replace(
        FAMILIES[family], window=16
    )  # bert's packed rows are at most a window
    params, row = variables(options), tokens(0, 1, 16)
    segments = np.array([[5] * 7 + [2] + [9] * 6 + [0] * 2], np.int32)
    packed = apply(options, params, row, segments, None)[0]
    for start, stop in ((0, 7), (7, 8), (8, 14)):
        alone = states(options, params, row[:, start:stop], [stop - start])[0]
        np.testing.assert_allclose(packed[start:stop], alone, atol=2e-5)
    if options.family == "bert":
        with pytest.raises(ValueError, match="packed rows of 16 tokens: expected at most window"):
            apply(dataclasses.replace(options, window=15), params, row, segments, None)


@functools.cache
def dropped_gradient(options):
    """The gradient by all parameters, with dropout."""
    options = dataclasses.replace(options, dropout=0.2)
    ids = tokens(0, 2, 10)

    @jax.jit
    @jax.grad
    def total(params):
        return jnp.sum(states(options, params, ids, [10, 7], jax.random.key(3)) ** 2)

    return total(variables(dataclasses.replace(options, remat=False, unroll=0, frozen=-1)))


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("convolution", {"remat": True}),
        ("convolution", {"unroll": 1}),
        ("modernbert", {"remat": True, "unroll": 2}),
    ],
    ids=str,
)
def test_remat_and_loop_change_nothing(family, change):
    options = FAMILIES[family]
    changed = dropped_gradient(dataclasses.replace(options, **change))
    for ours, expected in zip(
        jax.tree.leaves(changed), jax.tree.leaves(dropped_gradient(options)), strict=True
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("family", "frozen"), [("convolution", 0), ("modernbert", 1)])
def test_what_is_frozen_has_no_gradient_and_the_rest_its_own(family, frozen):
    whole = dropped_gradient(FAMILIES[family])
    part = dropped_gradient(dataclasses.replace(FAMILIES[family], frozen=frozen))
    assert part.keys() == whole.keys()
    for group, gradient in part.items():
        for ours, full in zip(
            jax.tree.leaves(gradient), jax.tree.leaves(whole[group]), strict=True
        ):
            still = {"layers": frozen, "final_norm": 0}.get(group, len(full))
            assert np.all(ours[:still] == 0)
            np.testing.assert_allclose(ours[still:], full[still:], rtol=1e-3, atol=1e-3)


def test_dropout_differs_by_layer_and_by_key():
    options = dataclasses.replace(OPTIONS, dropout=0.5)
    params, ids = variables(options), tokens(0, 1, 4)
    one, same, other = (
        states(options, params, ids, [4], jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1


def test_bfloat16_is_near_float32():
    params, ids = variables(OPTIONS), tokens(0, 2, 10)
    exact = states(OPTIONS, params, ids, [10, 10])
    rough = states(dataclasses.replace(OPTIONS, dtype="bfloat16"), params, ids, [10, 10])
    assert rough.dtype == jnp.bfloat16
    # States have a standard deviation near 1, and bfloat16 has 8 bits.
    assert np.abs(np.asarray(rough, np.float32) - exact).max() < 0.15


def test_tables_are_padded_for_the_mesh():
    assert variables(OPTIONS)["embedding"]["word"].shape == (56, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "gpt"}, "family = 'gpt': expected one of bert, modernbert"),
        ({"heads": 3}, "heads = 3: expected a divisor of width = 16"),
        ({"dropout": 1.0}, r"dropout = 1.0: expected a share in \[0, 1\)"),
        ({"convolution": 2}, "convolution = 2: expected an odd width, or 0"),
        ({"dtype": "float16"}, "dtype = 'float16': expected one of float32, bfloat16"),
        ({"max_positions": 3}, r"max_positions = 3: expected at least .* = 4"),
        ({"window": 0}, "window = 0: expected at least 1"),
    ],
)
def test_wrong_options_say_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(OPTIONS, **change)


@pytest.mark.parametrize("devices", [1, 8])
def test_a_frequent_token_s_gradient_is_summed_exactly(devices):
    """In bfloat16 a sum of ones ends at 256; the gradient of a bfloat16 table does not."""
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    layout = Layout.on(mesh, ("data", "fsdp"))
    ids = jnp.zeros((8, 1024), jnp.int32).at[:, 0].set(2)

    @jax.jit
    def gradient(table):
        return jax.grad(lambda table: jnp.sum(rows_of(table, ids, layout)))(table)

    found = gradient(jnp.ones((4, 3), jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.astype(jnp.float32)[:, 0], [8192, 0, 8, 0])
    np.testing.assert_allclose(gradient(jnp.ones((4, 3)))[:, 0], [8184, 0, 8, 0])
