import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder import sharding
from jaxcoder.models import attention, layers
from jaxcoder.models.attention import Sight, choose
from jaxcoder.models.layout import WHOLE, Layout

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


def row_of(*lengths, total):
    """Segments of a packed row: documents 1, 2, … and padding."""
    numbers = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return np.pad(numbers, (0, total - len(numbers))).astype(np.int32)


def segments(kind, length):
    """Of two rows: one document each, or several."""
    if kind == "padded":
        return np.arange(length)[None] < np.array([length, length // 2])[:, None]
    third = length // 3
    return np.stack(
        [
            row_of(third, 1, length - third - 1, total=length),
            row_of(1, third + 2, third - 5, total=length),
        ]
    )


def sees(segments, sight):
    """Which token sees which, bool [B, T, T], from the words of `Sight`."""
    here, there = np.ogrid[: segments.shape[1], : segments.shape[1]]
    sees = (segments[:, :, None] == segments[:, None]) & (segments[:, None] != 0)
    if sight.window:
        sees = sees & (here // sight.window == there // sight.window)
    if sight.radius:
        sees = sees & (np.abs(here - there) <= sight.radius)
    return sees


def qkv(length, seed=0, batch=2, heads=2, width=4):
    keys = jax.random.split(jax.random.key(seed), 4)
    return [jax.random.normal(key, (batch, heads, length, width)) for key in keys]


def by_mask(seen, query, key, value):
    scores = jnp.einsum("bhqk,bhsk->bhqs", query, key)
    scores = jnp.where(jnp.asarray(seen)[:, None], scores, layers.MASKED)
    return jnp.einsum("bhqs,bhsk->bhqk", jax.nn.softmax(scores, axis=-1), value)


def with_gradients(form, parts, real, tangent):
    """What a form computes of real tokens, and its gradients by query, key and value."""
    real = jnp.asarray(real)[:, None, :, None]

    @jax.jit
    def both(*parts):
        def total(*parts):
            mixed = jnp.where(real, form(*parts), 0.0)
            return jnp.sum(mixed * tangent), mixed

        return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(*parts)

    (_, mixed), gradients = both(*parts)
    return mixed, gradients


def same(ours, expected, tolerance=1e-5):
    for our, right in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(our, right, atol=tolerance)


@pytest.mark.parametrize("rows", ["padded", "packed"])
@pytest.mark.parametrize(
    ("length", "sight", "layout"),
    [
        (23, Sight(), WHOLE),
        (23, Sight(window=5), WHOLE),
        (23, Sight(radius=1), WHOLE),
        (23, Sight(radius=4), WHOLE),
        (23, Sight(radius=11), WHOLE),  # more than half: both neighbours of a block stand over
        (23, Sight(radius=22), WHOLE),  # the whole row
        (131, Sight(), Layout(store_bytes=0)),  # blocks of 128 queries
        (261, Sight(window=130), Layout(store_bytes=0)),
    ],
    ids=str,
)
def test_xla_is_a_masked_softmax(rows, length, sight, layout):
    *parts, tangent = qkv(length)
    given = segments(rows, length)

    def ours(*parts):
        return attention.attention(*parts, jnp.asarray(given), sight, "xla", layout)

    expected = functools.partial(by_mask, sees(given, sight))
    real = given != 0
    same(with_gradients(ours, parts, real, tangent), with_gradients(expected, parts, real, tangent))


@pytest.mark.parametrize("sight", [Sight(), Sight(window=6), Sight(radius=2)], ids=str)
def test_a_token_sees_what_its_sight_says(sight):
    """By gradient: what a token's state depends on is exactly what it may see."""
    query, key, value, _ = qkv(17)
    given = segments("packed", 17)

    def of_values(value):
        mixed = attention.attention(query, key, value, jnp.asarray(given), sight, "xla", WHOLE)
        return jnp.sum(mixed, axis=(1, 3))

    slope = np.abs(jax.jacrev(of_values)(value)).sum(axis=(3, 5))  # [B, T, B, T]
    assert np.all(slope[0, :, 1] == 0)  # neither row looks into the other
    for row, real in enumerate(given != 0):
        np.testing.assert_array_equal(slope[row, :, row][real] > 0, sees(given, sight)[row][real])


def test_a_row_of_padding_alone_is_finite():
    *parts, tangent = qkv(9)
    nothing = np.zeros((2, 9), bool)
    for sight in (Sight(), Sight(radius=2)):

        def form(*parts, sight=sight):
            return attention.attention(*parts, jnp.asarray(nothing), sight, "xla", WHOLE)

        for leaf in jax.tree.leaves(with_gradients(form, parts, ~nothing, tangent)):
            assert np.all(np.isfinite(leaf))


def test_local_attention_never_builds_all_pairs():
    length, heads, radius = 2048, 2, 16
    shape = jax.ShapeDtypeStruct((1, heads, length, 8), jnp.float32)

    def total(query, key, value, sight, layout):
        real = jnp.ones((1, length), bool)
        return jnp.sum(attention.attention(query, key, value, real, sight, "xla", layout) ** 2)

    def memory(sight, layout):
        step = jax.jit(jax.grad(functools.partial(total, sight=sight, layout=layout), (0, 1, 2)))
        analysis = step.lower(shape, shape, shape).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    pairs = heads * length * length * 4
    assert memory(Sight(), WHOLE) > pairs
    assert memory(Sight(), Layout(store_bytes=0)) < 0.5 * pairs  # block by block
    assert memory(Sight(radius=radius), WHOLE) < 0.2 * pairs


@pytest.mark.parametrize("rows", ["padded", "packed"])
@pytest.mark.parametrize("sight", [Sight(), Sight(window=100), Sight(radius=9)], ids=str)
def test_splash_interpreted_is_xla(rows, sight):
    *parts, tangent = qkv(150)
    given = segments(rows, 150)

    def form(implementation, *parts):
        return attention.attention(*parts, jnp.asarray(given), sight, implementation, WHOLE)

    same(
        *(
            with_gradients(functools.partial(form, name), parts, given != 0, tangent)
            for name in ("splash", "xla")
        )
    )


def test_splash_goes_over_a_mesh():
    mesh = sharding.make_mesh(2, 2, 2)
    layout = Layout.on(mesh, ("data", "fsdp"), ("tensor",), ("tensor",))
    *parts, tangent = qkv(130, batch=4, heads=4)
    given = np.concatenate([segments("packed", 130), segments("packed", 130)[::-1]])

    def form(implementation, layout, *parts):
        return attention.attention(
            *parts, jnp.asarray(given), Sight(radius=5), implementation, layout
        )

    ours = with_gradients(functools.partial(form, "splash", layout), parts, given != 0, tangent)
    expected = with_gradients(functools.partial(form, "xla", WHOLE), parts, given != 0, tangent)
    same(ours, expected)


ABLE = {
    "platform": "gpu",
    "dtype": "bfloat16",
    "head_width": 64,
    "dropout_rate": 0.0,
    "packed": False,
}


@pytest.mark.parametrize(
    ("change", "chosen", "why"),
    [
        ({}, "cudnn", "the fastest on a GPU"),
        ({"platform": "tpu"}, "splash", "the fastest on a TPU"),
        ({"platform": "tpu", "packed": True, "dtype": "float32"}, "splash", "the fastest on a TPU"),
        ({"platform": "cpu"}, "xla", "a CPU has no other"),
        ({"dtype": "float32"}, "xla", "cudnn cannot: it takes bfloat16"),
        ({"packed": True}, "xla", "cudnn cannot: it knows one document a row"),
        ({"head_width": 60}, "xla", "cudnn cannot: it takes heads of a multiple of 8"),
        ({"platform": "tpu", "dropout_rate": 0.1}, "xla", "splash cannot: it has no dropout"),
    ],
)
def test_auto_takes_the_fastest_that_can(change, chosen, why):
    implementation, reason = choose("auto", **{**ABLE, **change})
    assert implementation == chosen
    assert why in reason


@pytest.mark.parametrize(
    ("wanted", "change", "message"),
    [
        ("splash", {}, r"attention = 'splash': it runs on TPUs \(this is a GPU\); expected auto"),
        ("cudnn", {"platform": "cpu"}, r"'cudnn': it runs on GPUs \(this is a CPU\)"),
        ("cudnn", {"dtype": "float32"}, r"'cudnn': it takes bfloat16 \(dtype is float32\)"),
        ("cudnn", {"dropout_rate": 0.1}, r"'cudnn': it has no dropout .*attention_dropout is 0.1"),
        ("cudnn", {"head_width": 256}, r"'cudnn': .* up to 128 \(heads are 256 wide\)"),
        ("cudnn", {"packed": True}, "'cudnn': it knows one document a row"),
        ("splash", {"platform": "tpu", "dropout_rate": 0.5}, "'splash': it has no dropout"),
    ],
)
def test_an_impossible_choice_says_why(wanted, change, message):
    with pytest.raises(ValueError, match=message):
        choose(wanted, **{**ABLE, **change})
    assert choose("xla", **{**ABLE, **change}) == ("xla", "as the config says")
