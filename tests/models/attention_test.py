import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder import sharding
from jaxcoder.models import attention, attention_kernels, layers
from jaxcoder.models.attention import Sight, choose
from jaxcoder.models.layout import WHOLE, Layout

SHAPE = (2, 3, 2, 5, 4)  # B, H, N, W, K


def arrays(seed, count):
    keys = jax.random.split(jax.random.key(seed), count)
    return [jax.random.normal(key, SHAPE) for key in keys]


def naive(query, key, value, mask, drop, rate):
    weights = jax.nn.softmax(jnp.einsum("bhnqk,bhnsk->bhnqs", query, key) + mask, axis=-1)
    return jnp.einsum("bhnqs,bhnsk->bhnqk", layers.dropout(drop, weights, rate), value)


def with_gradients(form, parts, tangent):
    """What a form computes, and the gradients of its product with the tangent."""

    @jax.jit
    def both(*parts):
        mixed, back = jax.vjp(form, *parts)
        return mixed, back(tangent)

    return both(*parts)


def same(ours, expected, tolerance=1e-5):
    for our, right in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(our, right, atol=tolerance)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_written_out_gradient_is_that_of_autodiff(rate):
    query, key, value, tangent = arrays(0, 4)
    valid = (
        jnp.arange(5)[None, None] < jnp.asarray([[5, 2], [3, 0]])[..., None]
    )  # one window of padding alone
    mask = jnp.where(valid, 0.0, layers.MASKED)[:, None, :, None]
    drop = jax.random.key_data(jax.random.key(1)) if rate else None

    def both(function):
        def form(*parts):
            return function(*parts, mask, drop, rate)

        return with_gradients(form, (query, key, value), tangent)

    same(both(attention.attend), both(naive))


def row_of(*lengths, total):
    """Segments of a packed row: documents 1, 2, … and padding."""
    numbers = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return np.pad(numbers, (0, total - len(numbers))).astype(np.int32)


def segments(kind, length):
    """Of three rows, the last of padding alone: one document each, or several."""
    if kind == "padded":
        return np.arange(length)[None] < np.array([length, length // 2, 0])[:, None]
    third = length // 3
    rows = (third, 1, length - third - 1), (1, third + 2, third - 5), ()
    return np.stack([row_of(*lengths, total=length) for lengths in rows])


def sees(given, sight):
    """Which token sees which, bool [B, T, T], from the words of `Sight`."""
    here, there = np.ogrid[: given.shape[1], : given.shape[1]]
    sees = (given[:, :, None] == given[:, None]) & (given[:, None] != 0)
    if sight.window:
        sees = sees & (here // sight.window == there // sight.window)
    if sight.radius:
        sees = sees & (np.abs(here - there) <= sight.radius)
    return sees


def inputs(given, heads=2, width=4):
    """Query, key and value of rows; and a tangent that is 0 at padding, whose states are free."""
    batch, length = given.shape
    keys = jax.random.split(jax.random.key(0), 4)
    *parts, tangent = (jax.random.normal(key, (batch, heads, length, width)) for key in keys)
    return parts, zero_padding(given, tangent)


def zero_padding(given, x):
    return np.where((given != 0)[:, None, :, None], x, 0)


def form(given, sight, implementation="xla", layout=WHOLE):
    return lambda *parts: attention.attention(
        *parts, jnp.asarray(given), sight, implementation, layout
    )


@jax.jit
def by_mask(seen, parts, tangent):
    """A softmax over [T, T] as it reads."""

    def naive(query, key, value):
        scores = jnp.einsum("bhqk,bhsk->bhqs", query, key)
        scores = jnp.where(seen[:, None], scores, layers.MASKED)
        return jnp.einsum("bhqs,bhsk->bhqk", jax.nn.softmax(scores, axis=-1), value)

    return with_gradients(naive, parts, tangent)


@pytest.mark.parametrize("rows", ["padded", "packed"])
@pytest.mark.parametrize(
    ("length", "sight", "block_by_block"),
    [
        (23, Sight(), False),
        (23, Sight(window=5), False),
        (23, Sight(radius=4), False),
        (23, Sight(radius=13), False),  # two blocks, longer together than the row
        (23, Sight(radius=22), False),  # the whole row
        (131, Sight(), True),  # 128 queries and 3
        (261, Sight(window=130), True),
    ],
)
def test_xla_is_a_masked_softmax(rows, length, sight, block_by_block):
    given = segments(rows, length)
    parts, tangent = inputs(given)
    layout = Layout(store_bytes=0) if block_by_block else WHOLE
    mixed, gradients = with_gradients(form(given, sight, layout=layout), parts, tangent)
    assert np.all(np.isfinite(mixed))
    expected, expected_gradients = by_mask(sees(given, sight), parts, tangent)
    same(zero_padding(given, mixed), zero_padding(given, expected))
    same(gradients, expected_gradients)


@pytest.mark.parametrize("sight", [Sight(), Sight(window=6), Sight(radius=2)])
def test_a_token_sees_what_its_sight_says(sight):
    """By gradient: what a token's state depends on is exactly what it may see."""
    given = segments("packed", 17)
    (query, key, value), _ = inputs(given, heads=1, width=2)

    @jax.jit
    @jax.jacrev
    def slope(value):
        return jnp.sum(form(given, sight)(query, key, value), axis=(1, 3))

    depends = np.abs(slope(value)).sum(axis=(3, 5)) > 0  # [B, T, B, T]
    for row, seen in enumerate(sees(given, sight)):
        real = given[row] != 0
        np.testing.assert_array_equal(depends[row, :, row][real], seen[real])
        assert not depends[row][:, np.arange(3) != row].any()  # no row looks into another


def test_local_attention_never_builds_all_pairs():
    length, heads = 2048, 2
    given = np.ones((1, length), bool)
    shape = jax.ShapeDtypeStruct((1, heads, length, 8), jnp.float32)

    def memory(sight, layout=WHOLE):
        def total(*parts):
            return jnp.sum(form(given, sight, layout=layout)(*parts) ** 2)

        step = jax.jit(jax.grad(total, (0, 1, 2))).lower(shape, shape, shape)
        return step.compile().memory_analysis().temp_size_in_bytes

    pairs = 4 * heads * length**2
    assert memory(Sight()) > pairs
    assert memory(Sight(), Layout(store_bytes=0)) < 0.5 * pairs  # block by block
    assert memory(Sight(radius=16)) < 0.2 * pairs


@pytest.mark.parametrize(
    ("rows", "sight"),
    [("packed", Sight(window=140)), ("padded", Sight(radius=9))],
)
def test_splash_interpreted_is_xla(rows, sight):
    given = segments(rows, 150)
    parts, tangent = inputs(given)
    mixed, gradients = with_gradients(form(given, sight, "splash"), parts, tangent)
    expected, expected_gradients = with_gradients(form(given, sight), parts, tangent)
    same(zero_padding(given, mixed), zero_padding(given, expected))
    same(gradients, expected_gradients)


def test_splash_of_several_blocks_interpreted_is_xla():
    """Three blocks of 256: what is left out is seen by none."""
    given = segments("packed", 768)[:1]
    parts, tangent = inputs(given)
    sight = Sight(radius=64)
    mixed, gradients = with_gradients(form(given, sight, "splash"), parts, tangent)
    expected, expected_gradients = with_gradients(form(given, sight), parts, tangent)
    same(zero_padding(given, mixed), zero_padding(given, expected))
    same(gradients, expected_gradients)


@pytest.mark.parametrize(
    ("length", "radius", "block"),
    [(4096, 0, 512), (4096, 64, 256), (4096, 256, 256), (4096, 300, 512), (1152, 0, 384)]
    + [(1152, 64, 128), (128, 0, 128)],
)
def test_the_blocks_of_splash_divide_the_row_and_suit_the_radius(length, radius, block):
    assert attention_kernels._block(length, radius) == block


def test_splash_goes_over_a_mesh():
    mesh = sharding.make_mesh(2, 2, 2)
    layout = Layout.on(mesh, ("data", "fsdp"), ("tensor",), ("tensor",))
    given = np.concatenate([segments(rows, 130)[:2] for rows in ("packed", "padded")])
    parts, tangent = inputs(given)
    sight = Sight(radius=5)
    mixed, gradients = with_gradients(form(given, sight, "splash", layout), parts, tangent)
    expected, expected_gradients = with_gradients(form(given, sight), parts, tangent)
    same(zero_padding(given, mixed), zero_padding(given, expected))
    same(gradients, expected_gradients)


ABLE = {
    "platform": "gpu",
    "dtype": "bfloat16",
    "head_width": 64,
    "dropout_rate": 0.0,
    "packed": False,
}


def decide(wanted, change):
    options = {**ABLE, **change}
    platform, no_cudnn = options.pop("platform"), options.pop("no_cudnn", "")
    return choose(wanted, Layout.of(platform, no_cudnn=no_cudnn), **options)


@pytest.mark.parametrize(
    ("change", "chosen", "why"),
    [
        ({}, "cudnn", "the fastest on a GPU"),
        ({"platform": "tpu"}, "splash", "the fastest on a TPU"),
        ({"platform": "tpu", "packed": True, "dtype": "float32"}, "splash", "the fastest on a TPU"),
        ({"platform": "cpu"}, "xla", "a CPU has no other"),
        ({"dtype": "float32"}, "xla", "cudnn cannot: it takes bfloat16"),
        (
            {"no_cudnn": "it runs on GPUs of NVIDIA"},
            "xla",
            "cudnn cannot: it runs on GPUs of NVIDIA",
        ),
        ({"packed": True}, "xla", "cudnn cannot: it knows one document a row"),
        ({"head_width": 60}, "xla", "cudnn cannot: it takes heads of a multiple of 8"),
        ({"platform": "tpu", "dropout_rate": 0.1}, "xla", "splash cannot: it has no dropout"),
    ],
)
def test_auto_takes_the_fastest_that_can(change, chosen, why):
    implementation, reason = decide("auto", change)
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
        decide(wanted, change)
    assert decide("xla", change) == ("xla", "as the config says")


def test_what_is_dropped_is_the_same_on_every_mesh():
    """Also where a device computes long rows by blocks, and few rows by larger ones."""
    given = np.ones((4, 700), bool)
    parts, _ = inputs(given, heads=1)
    drop = jnp.array([3, 5], jnp.uint32)
    mixed = [
        attention.attention(*parts, jnp.asarray(given), Sight(), "xla", layout, drop=drop, rate=0.5)
        for layout in (Layout(store_bytes=3_000_000), Layout(batch=4, store_bytes=3_000_000))
    ]
    same(*mixed)
