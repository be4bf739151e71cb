"""Self-attention: what a token sees of its document, and what computes it.

xla      products of blocks, on any device; local attention takes each block of tokens with its
         two neighbours, so that [T, T] never exists; long full attention goes block by block
splash   the Pallas kernels of TPUs, with full and local masks
cudnn    the flash attention of NVIDIA GPUs, in bfloat16; it has no window to both sides, so
         that local layers take xla's blocks
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcoder.models.attention_kernels import cudnn, splash
from jaxcoder.models.layers import MASKED, dropout, turned
from jaxcoder.models.layout import Layout

IMPLEMENTATIONS = ("auto", "xla", "splash", "cudnn")
_QUERIES = 128  # of a block: as many fill the lanes of a TPU and the tiles of a CPU's product


@dataclasses.dataclass(frozen=True)
class Sight:
    """Which tokens of its document a token sees.

    Attributes:
      window: those of its own window of so many tokens; 0 for all.
      radius: those that are at most so far away; 0 for all.
    """

    window: int = 0
    radius: int = 0


def choose(
    wanted: str,
    layout: Layout,
    dtype: str,
    head_width: int,
    dropout_rate: float,
    packed: bool,
) -> tuple[str, str]:
    """Decides what computes the attention.

    Args:
      wanted: one of `IMPLEMENTATIONS`.
      layout: the devices.
      dtype: of activations.
      head_width: K.
      dropout_rate: share of attention weights dropped.
      packed: whether rows hold several documents.

    Returns:
      The implementation, and why it is that one.

    Raises:
      ValueError: what was wanted is impossible, with the reason.
    """
    platform = layout.platform
    obstacles = {"xla": "", "splash": "", "cudnn": ""}
    if dropout_rate:
        reason = f"it has no dropout of attention weights (attention_dropout is {dropout_rate:g})"
        obstacles |= {"splash": reason, "cudnn": reason}
    if packed:
        obstacles["cudnn"] = "it knows one document a row, and these rows are packed"
    if head_width % 8 or head_width > 128:
        reason = f"it takes heads of a multiple of 8 up to 128 (heads are {head_width} wide)"
        obstacles["cudnn"] = reason
    if dtype != "bfloat16":
        obstacles["cudnn"] = f"it takes bfloat16 (dtype is {dtype})"
    if layout.no_cudnn:
        obstacles["cudnn"] = layout.no_cudnn
    for name, home in (("splash", "tpu"), ("cudnn", "gpu")):
        if platform != home:
            obstacles[name] = f"it runs on {home.upper()}s (this is a {platform.upper()})"
    if wanted != "auto":
        if obstacles[wanted]:
            raise ValueError(f"attention = {wanted!r}: {obstacles[wanted]}; expected auto or xla")
        return wanted, "as the config says"
    fast = {"tpu": "splash", "gpu": "cudnn"}.get(platform)
    if fast is None:
        return "xla", f"a {platform.upper()} has no other"
    if obstacles[fast]:
        return "xla", f"{fast} cannot: {obstacles[fast]}"
    return fast, f"the fastest on a {platform.upper()}"


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    drop: jax.Array | None,
    rate: float,
) -> jax.Array:
    """Returns dropout(softmax(query · key + mask)) · value, block by block.

    The gradient is written out because autodiff's reads and writes [W, S] more often.

    Args:
      query: [B, H, N, W, K], already scaled: N blocks of W tokens.
      key: [B, H, N, S, K], the tokens that each block may see.
      value: [B, H, N, S, K].
      mask: float32 [B, 1, N, 1 or W, S], 0 or a large negative number.
      drop: uint32 [2] from `dropout_key`, or None.
      rate: share of the weights dropped.
    """
    return _attend_forward(query, key, value, mask, drop, rate)[0]


def _attend_forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    drop: jax.Array | None,
    rate: float,
) -> tuple[jax.Array, Any]:
    scores = jnp.einsum("bhnqk,bhnsk->bhnqs", query, key, preferred_element_type=jnp.float32)
    scores = scores + mask
    peak = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - peak)  # not yet divided by their sum
    inverse = 1 / jnp.sum(weights, axis=-1)
    weights = weights.astype(value.dtype)
    mixed = jnp.einsum(
        "bhnqs,bhnsk->bhnqk",
        dropout(drop, weights, rate),
        value,
        preferred_element_type=jnp.float32,
    )
    mixed = (mixed * inverse[..., None]).astype(value.dtype)
    return mixed, (query, key, value, weights, inverse, mixed, mask, drop)


def _attend_backward(rate: float, residuals: Any, gradient: jax.Array) -> tuple[Any, ...]:
    query, key, value, weights, inverse, mixed, mask, drop = residuals
    dtype = value.dtype
    wide = gradient.astype(jnp.float32)
    along = jnp.sum(wide * mixed, axis=-1) * inverse
    gradient = (wide * inverse[..., None]).astype(dtype)
    slope = jnp.einsum("bhnqk,bhnsk->bhnqs", gradient, value, preferred_element_type=jnp.float32)
    slope = (weights * (dropout(drop, slope, rate) - along[..., None])).astype(dtype)
    return (
        jnp.einsum("bhnqs,bhnsk->bhnqk", slope, key),
        turned(jnp.einsum("bhnqk,bhnqs->bhnks", query, slope)),
        turned(jnp.einsum("bhnqk,bhnqs->bhnks", gradient, dropout(drop, weights, rate))),
        jnp.zeros_like(mask),
        None,
    )


attend.defvjp(_attend_forward, _attend_backward)


def attention(
    query_BxHxTxK: jax.Array,
    key_BxHxTxK: jax.Array,
    value_BxHxTxK: jax.Array,
    segments_BxT: jax.Array,
    sight: Sight,
    implementation: str,
    layout: Layout,
    drop: jax.Array | None = None,
    rate: float = 0.0,
) -> jax.Array:
    """Returns softmax(query · key) · value over what each token sees, [B, H, T, K].

    Args:
      query_BxHxTxK: already scaled.
      key_BxHxTxK: the keys.
      value_BxHxTxK: the values.
      segments_BxT: bool, false on padding: one document a row; or int32, 0 on padding: tokens with
        the same number are one document. Windows are counted from the row's first token.
      sight: what a token sees of its document.
      implementation: from `choose`; `auto`, not decided by it, is `xla`.
      layout: how the arrays lie on the devices.
      drop: uint32 [2] from `dropout_key`, or None.
      rate: share of the weights dropped.

    Returns:
      In the dtype of `value`; what stands at padding means nothing, and is finite.
    """
    length = query_BxHxTxK.shape[2]
    if sight.radius and sight.radius < length - 1:
        if implementation == "splash":
            return splash(
                query_BxHxTxK, key_BxHxTxK, value_BxHxTxK, segments_BxT, sight.radius, layout
            )
        return _local(
            query_BxHxTxK, key_BxHxTxK, value_BxHxTxK, segments_BxT, sight.radius, drop, rate
        )
    window = min(sight.window or length, length)
    count = -(-length // window)
    spare = count * window - length

    def cut(x: jax.Array) -> jax.Array:  # windows as rows: [B, H, T, K] → [B, N, H, W, K]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, spare), (0, 0)))
        return x.reshape(*x.shape[:2], count, window, x.shape[3])

    segments = jnp.pad(segments_BxT, ((0, 0), (0, spare)))
    segments = segments.reshape(-1, count, window)
    parts = cut(query_BxHxTxK), cut(key_BxHxTxK), cut(value_BxHxTxK)
    if implementation in ("splash", "cudnn"):
        query, key, value = (
            x.swapaxes(1, 2).reshape(-1, x.shape[1], window, x.shape[4]) for x in parts
        )
        rows = segments.reshape(-1, window)
        mixed = (
            splash(query, key, value, rows, 0, layout)
            if implementation == "splash"
            else cudnn(query, key, value, rows)
        )
        mixed = mixed.reshape(-1, count, *mixed.shape[1:]).swapaxes(1, 2)
    else:
        mixed = _blocks(*parts, segments, layout, drop, rate)
    return mixed.reshape(*mixed.shape[:2], count * window, mixed.shape[4])[:, :, :length]


def _mask(query_segments: jax.Array, key_segments: jax.Array) -> jax.Array:
    """Additive mask float32 [B, 1, N, 1 or W, S] of segments [B, N, W] and [B, N, S]."""
    real = key_segments != 0
    seen = real[:, :, None]
    if (
        key_segments.dtype != jnp.bool_
    ):  # packed rows; else what a query at padding sees is no matter
        seen = seen & (query_segments[..., None] == key_segments[:, :, None])
    return jnp.where(seen, 0.0, MASKED)[:, None]


def _blocks(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    layout: Layout,
    drop: jax.Array | None,
    rate: float,
) -> jax.Array:
    """Full attention inside windows [B, H, N, W, K]; long ones by blocks of queries.

    What is dropped depends on the blocks; these are then the same on every mesh of a platform.
    """
    batch, heads, count, window, width = query.shape
    rows = batch if drop is not None else -(-batch // layout.batch)
    row_bytes = 4 * rows * heads * count * window  # of one query of a window
    block = max(_QUERIES, layout.store_bytes // row_bytes // _QUERIES * _QUERIES)
    if block >= window:
        return attend(query, key, value, _mask(segments, segments), drop, rate)
    blocks = -(-window // block)
    spare = blocks * block - window
    query = jnp.pad(query, ((0, 0), (0, 0), (0, 0), (0, spare), (0, 0)))
    query = query.reshape(batch, heads, count, blocks, block, width)
    own = jnp.pad(segments, ((0, 0), (0, 0), (0, spare))).reshape(batch, count, blocks, block)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def one(number: jax.Array, query: jax.Array, own: jax.Array) -> jax.Array:
        here = None if drop is None else drop + jnp.asarray([0, 1], jnp.uint32) * number
        return attend(query, key, value, _mask(own, segments), here, rate)

    numbers = jnp.arange(blocks, dtype=jnp.uint32)
    mixed = jax.lax.map(
        lambda each: one(*each), (numbers, jnp.moveaxis(query, 3, 0), jnp.moveaxis(own, 2, 0))
    )
    mixed = jnp.moveaxis(mixed, 0, 3).reshape(batch, heads, count, blocks * block, width)
    return mixed[:, :, :, :window]


def _local(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments_BxT: jax.Array,
    radius: int,
    drop: jax.Array | None,
    rate: float,
) -> jax.Array:
    """Local attention [B, H, T, K]: blocks of `radius` tokens, each with its two neighbours."""
    batch, heads, length, width = query.shape
    count = -(-length // radius)
    spare = count * radius - length
    query = jnp.pad(query, ((0, 0), (0, 0), (0, spare), (0, 0)))
    query = query.reshape(batch, heads, count, radius, width)
    segments = jnp.pad(segments_BxT, ((0, 0), (0, spare))).reshape(batch, count, radius)

    def around(x: jax.Array, axis: int) -> jax.Array:
        """A block before the first and after the last, then each block with its neighbours."""
        shape = [(0, 0)] * x.ndim
        shape[axis] = (radius, radius + spare)
        x = jnp.pad(x, shape)
        x = x.reshape(*x.shape[:axis], count + 2, radius, *x.shape[axis + 1 :])
        parts = [jax.lax.slice_in_dim(x, k, k + count, axis=axis) for k in range(3)]
        return jnp.concatenate(parts, axis=axis + 1)

    offset = np.arange(3 * radius)[None] - radius - np.arange(radius)[:, None]
    band = jnp.asarray(np.where(np.abs(offset) <= radius, 0.0, MASKED), jnp.float32)
    mask = _mask(segments, around(segments_BxT, 1))
    mask = jnp.maximum(mask + band.reshape(1, 1, 1, radius, 3 * radius), MASKED)
    mixed = attend(query, around(key, 2), around(value, 2), mask, drop, rate)
    return mixed.reshape(batch, heads, count * radius, width)[:, :, :length]
