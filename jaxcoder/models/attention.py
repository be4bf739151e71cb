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

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxcoder.models.layers import MASKED, Product, dropout, dropout_key
from jaxcoder.models.layout import Layout

IMPLEMENTATIONS = ("auto", "xla", "splash", "cudnn")
_LANES = 128  # of a TPU: the kernel's blocks of tokens are multiples of it


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
    wanted: str, platform: str, dtype: str, head_width: int, dropout_rate: float, packed: bool
) -> tuple[str, str]:
    """Decides what computes the attention on a platform.

    Args:
      wanted: one of `IMPLEMENTATIONS`.
      platform: of the devices: `cpu`, `gpu` or `tpu`.
      dtype: of activations.
      head_width: K.
      dropout_rate: share of attention weights dropped.
      packed: whether rows hold several documents.

    Returns:
      The implementation, and why it is that one.

    Raises:
      ValueError: what was wanted is impossible, with the reason.
    """
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
        jnp.einsum("bhnqs,bhnqk->bhnsk", slope, query),
        jnp.einsum("bhnqs,bhnqk->bhnsk", dropout(drop, weights, rate), gradient),
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
            return _splash(query_BxHxTxK, key_BxHxTxK, value_BxHxTxK, segments_BxT, sight, layout)
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
        kernel = _splash if implementation == "splash" else _cudnn
        query, key, value = (
            x.swapaxes(1, 2).reshape(-1, x.shape[1], window, x.shape[4]) for x in parts
        )
        mixed = kernel(query, key, value, segments.reshape(-1, window), Sight(), layout)
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
    """Full attention inside windows [B, H, N, W, K]; long ones by blocks of queries."""
    batch, heads, count, window, width = query.shape
    row_bytes = 4 * -(-batch // layout.batch) * heads * count * window  # of one query of a window
    block = max(_LANES, layout.store_bytes // row_bytes // _LANES * _LANES)
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


def _splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments_BxT: jax.Array,
    sight: Sight,
    layout: Layout,
) -> jax.Array:
    """Attention [B, H, T, K] by the kernels of TPUs, interpreted elsewhere (for tests)."""
    from jax.experimental.pallas.ops.tpu import splash_attention as splash  # Pallas is large

    length = query.shape[2]
    spare = -length % _LANES
    padded = length + spare
    query, key, value = (
        jnp.pad(x, ((0, 0), (0, 0), (0, spare), (0, 0))) for x in (query, key, value)
    )
    segments = jnp.pad(segments_BxT, ((0, 0), (0, spare))).astype(jnp.int32)
    # The largest block that divides the row, up to 512: larger ones took no less time.
    block = next(size for size in (512, 384, 256, 128) if padded % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    shape = (padded, padded)
    one = (
        splash.LocalMask(shape, (sight.radius, sight.radius), 0)
        if sight.radius
        else splash.FullMask(shape)
    )

    def of_a_device(
        query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array
    ) -> jax.Array:
        kernel = splash.make_splash_mha(
            splash.splash_attention_mask.MultiHeadMask([one] * query.shape[1]),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            interpret=layout.platform != "tpu",
        )
        rows = jax.vmap(lambda q, k, v, s: kernel(q, k, v, splash.SegmentIds(s, s)))
        return rows(query, key, value, segments)

    if layout.mesh is not None and layout.mesh.size > 1:
        states = PartitionSpec(layout.batch_axes, layout.head_axes)
        of_a_device = jax.shard_map(
            of_a_device,
            mesh=layout.mesh,
            in_specs=(states, states, states, PartitionSpec(layout.batch_axes)),
            out_specs=states,
            check_vma=False,  # Pallas knows nothing of it
        )
    return of_a_device(query, key, value, segments)[:, :, :length]


def _cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments_BxT: jax.Array,
    sight: Sight,
    layout: Layout,
) -> jax.Array:
    """Full attention [B, H, T, K] by cuDNN; rows hold one document each."""
    # A row of padding alone sees its first token: over nothing, a softmax is no number.
    lengths = jnp.maximum(jnp.sum(segments_BxT, axis=1, dtype=jnp.int32), 1)
    mixed = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query, key, value)),
        scale=1.0,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return mixed.swapaxes(1, 2)


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
