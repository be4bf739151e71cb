"""Attention of all labels over a document, chunk by chunk of labels, reduced to logits inside.

Shapes: keys [B, T, P], values [B, T, D], label queries [L, P], mask [B, T] added to the scores.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# A step may hold this much of [B, L, T] on a device before it goes chunk by chunk.
STORE_BYTES = 256 * 2**20
# One [B, chunk, T] array of float32 on a device; some five of them exist at a time.
CHUNK_BYTES = 8 * 2**20


@dataclasses.dataclass(frozen=True)
class Layout:
    """Over how many devices a mesh splits the rows of a batch and the rows of the label tables."""

    batch: int = 1
    labels: int = 1


def chunk_size(batch: int, length: int, labels: int, layout: Layout) -> int:
    """Returns how many labels of a device to compute at a time; `labels` when all fit."""
    row_bytes = 4 * length * -(-batch // layout.batch)  # of one label on one device
    if 2 * row_bytes * labels <= STORE_BYTES:  # two arrays are stored for the backward pass
        return labels
    # A multiple of 128 fills the lanes of a TPU and the tiles of a CPU's product.
    return min(labels, max(128, CHUNK_BYTES // row_bytes // 128 * 128))


def _over_chunks(
    body: Callable[..., jax.Array],
    shared: Any,
    tables: tuple[jax.Array, ...],
    batch: int,
    length: int,
    chunk: int,
    layout: Layout,
) -> jax.Array:
    """Returns body(shared, table chunks) [B, S, C] of every chunk, as one [B, L]."""
    rows = tables[0].shape[0]
    if rows % layout.labels:
        raise ValueError(f"{rows} label rows: expected a multiple of {layout.labels} label shards")
    local = rows // layout.labels
    size = chunk or chunk_size(batch, length, local, layout)
    tables = tuple(table.reshape(layout.labels, local, -1) for table in tables)
    if size < 0 or size >= local:
        return body(shared, *tables).reshape(-1, rows)
    count = -(-local // size)

    def split(table: jax.Array) -> jax.Array:
        table = jnp.pad(table, ((0, 0), (0, count * size - local), (0, 0)))
        return table.reshape(layout.labels, count, size, -1).swapaxes(0, 1)

    body = jax.checkpoint(body, prevent_cse=False)
    logits = jax.lax.map(lambda parts: body(shared, *parts), tuple(split(t) for t in tables))
    logits = logits.transpose(1, 2, 0, 3).reshape(batch, layout.labels, count * size)
    return logits[:, :, :local].reshape(batch, rows)


def _weights(keys: jax.Array, query: jax.Array, mask: jax.Array) -> jax.Array:
    scores = jnp.einsum(
        "btp,slp->btsl", keys, query.astype(keys.dtype), preferred_element_type=jnp.float32
    )
    return jax.nn.softmax(scores + mask[:, :, None, None], axis=1)


def _laat(shared: Any, query: jax.Array, output: jax.Array) -> jax.Array:
    keys, values, mask = shared
    gains = jnp.einsum(
        "btd,sld->btsl", values, output.astype(values.dtype), preferred_element_type=jnp.float32
    )
    return jnp.sum(_weights(keys, query, mask) * gains, axis=1)


def laat_logits(
    keys_BxTxP: jax.Array,
    values_BxTxD: jax.Array,
    query_LxP: jax.Array,
    output_LxD: jax.Array,
    mask_BxT: jax.Array,
    chunk: int = 0,
    layout: Layout = Layout(),
) -> jax.Array:
    """Returns Σ_t softmax_t(query_l · key_t + mask_t) (output_l · value_t), float32 [B, L]."""
    batch, length = mask_BxT.shape
    shared = (keys_BxTxP, values_BxTxD, mask_BxT)
    return _over_chunks(_laat, shared, (query_LxP, output_LxD), batch, length, chunk, layout)


def _cross(shared: Any, query: jax.Array, *, epsilon: float) -> jax.Array:
    keys, values, mask, (direction, bias) = shared
    weights = _weights(keys, query, mask).astype(values.dtype)
    mixed = jnp.einsum(
        "btsl,btp->bslp", weights, values, preferred_element_type=jnp.float32
    )
    centred = mixed - jnp.mean(mixed, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1)
    return jnp.einsum("bslp,p->bsl", centred, direction) * jax.lax.rsqrt(variance + epsilon) + bias


def cross_logits(
    keys_BxTxP: jax.Array,
    values_BxTxP: jax.Array,
    query_LxP: jax.Array,
    readout: tuple[jax.Array, jax.Array],
    mask_BxT: jax.Array,
    epsilon: float,
    chunk: int = 0,
    layout: Layout = Layout(),
) -> jax.Array:
    """Returns direction · normalised(Σ_t softmax_t(query_l · key_t + mask_t) value_t) + bias.

    Args:
      keys_BxTxP: compared with the label queries.
      values_BxTxP: what is mixed.
      query_LxP: one a label.
      readout: direction float32 [P], the layer norm's scale times the output weight; and bias,
        float32 scalar, the output bias plus the norm's shift times the output weight.
      mask_BxT: 0, or a large negative number on padding.
      epsilon: of the layer norm.
      chunk: labels at a time, 0 to choose by memory, −1 for all.
      layout: over how many devices rows and labels are split.

    Returns:
      logits float32 [B, L].
    """
    batch, length = mask_BxT.shape
    shared = (keys_BxTxP, values_BxTxP, mask_BxT, readout)
    body = functools.partial(_cross, epsilon=epsilon)
    return _over_chunks(body, shared, (query_LxP,), batch, length, chunk, layout)
