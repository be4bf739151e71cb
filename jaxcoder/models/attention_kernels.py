"""Attention by kernels that XLA does not make: splash attention of TPUs, cuDNN's of GPUs."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxcoder.models.layout import Layout

_LANES = 128  # of a TPU: the kernel's blocks of tokens are multiples of it


def splash(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments_BxT: jax.Array,
    radius: int,
    layout: Layout,
) -> jax.Array:
    """Attention [B, H, T, K] by the kernels of TPUs, interpreted elsewhere (for tests).

    Args:
      query: already scaled.
      key: the keys.
      value: the values.
      segments_BxT: bool or int32, see `attention.attention`.
      radius: how far a token sees; 0 for all of its document.
      layout: the mesh, which the kernel does not know how to use by itself.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels  # Pallas is large

    length = query.shape[2]
    spare = -length % _LANES
    padded = length + spare
    query, key, value = (
        jnp.pad(x, ((0, 0), (0, 0), (0, spare), (0, 0))) for x in (query, key, value)
    )
    segments = jnp.pad(segments_BxT, ((0, 0), (0, spare))).astype(jnp.int32)
    block = _block(padded, radius)
    sizes = kernels.BlockSizes(
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
    one = kernels.LocalMask(shape, (radius, radius), 0) if radius else kernels.FullMask(shape)

    def of_a_device(
        query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array
    ) -> jax.Array:
        kernel = kernels.make_splash_mha(
            kernels.splash_attention_mask.MultiHeadMask([one] * query.shape[1]),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            interpret=layout.platform != "tpu",
        )
        rows = jax.vmap(lambda q, k, v, s: kernel(q, k, v, kernels.SegmentIds(s, s)))
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


def _block(length: int, radius: int) -> int:
    """Tokens of a block: the most that divide the row, up to 512; larger ones took no less time.

    In a local layer a block sees itself and its two neighbours, most of them masked. Blocks of 256
    have half the operations of 512 in twice the steps of the grid: 43.5 GFLOP instead of 87.0, and
    1,728 steps instead of 864, a row and layer, forward and backward (T=4,096, 12 heads of 64, a
    radius of 64; counted by launch/flops.py). 128 would halve and double them once more; but a step
    takes time of its own, and no TPU was at hand to measure from where on that counts for more.

    Args:
      length: tokens of the row, a multiple of 128.
      radius: how far a token sees; 0 for all of the row.
    """
    most = 256 if 0 < radius <= 256 else 512
    return next(size for size in (512, 384, 256, 128) if size <= most and length % size == 0)


def cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments_BxT: jax.Array,
) -> jax.Array:
    """Full attention [B, H, T, K] by cuDNN, queries already scaled; rows hold one document each."""
    # A row of padding alone sees its first token: over nothing, a softmax is no number.
    lengths = jnp.maximum(jnp.sum(segments_BxT, axis=1, dtype=jnp.int32), 1)
    mixed = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query, key, value)),
        scale=1.0,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return mixed.swapaxes(1, 2)
