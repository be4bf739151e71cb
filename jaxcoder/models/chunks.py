"""Attention of all labels over a document, chunk by chunk of labels, reduced to logits inside.

Shapes: keys [B, T, P], values [B, T, D], label queries [L, P], mask [B, T] added to the scores.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxcoder.models.layers import spread
from jaxcoder.models.layout import WHOLE, Layout


def chunk_size(batch: int, length: int, labels: int, layout: Layout) -> int:
    """Returns how many labels of a device to compute at a time; `labels` when all fit."""
    row_bytes = 4 * length * -(-batch // layout.batch)  # of one label on one device
    if 2 * row_bytes * labels <= layout.store_bytes:  # weights, and in the backward their slope
        return labels
    # A multiple of 128 fills the lanes of a TPU and the tiles of a CPU's product.
    return min(labels, max(128, layout.chunk_bytes // row_bytes // 128 * 128))


def _over_chunks(
    body: Callable[..., jax.Array],
    shared: Any,
    tables: tuple[jax.Array, ...],
    mask_BxT: jax.Array,
    chunk: int,
    layout: Layout,
) -> jax.Array:
    """Returns body(shared, table chunks) [B, C] of every chunk, as one [B, L]."""
    batch, length = mask_BxT.shape
    rows, width = tables[0].shape
    shards = layout.labels
    if rows % shards:
        raise ValueError(f"{rows} label rows: expected a multiple of {shards} label shards")
    local = rows // shards
    size = chunk or chunk_size(batch, length, local, layout)
    if size < 0 or size >= local:
        return body(shared, *tables)
    count = -(-local // size)

    def split(table: jax.Array) -> jax.Array:
        table = table.reshape(shards, local, -1)
        table = jnp.pad(table, ((0, 0), (0, count * size - local), (0, 0)))
        return table.reshape(shards, count, size, -1).swapaxes(0, 1)

    saved = ["label_norms"]
    if 4 * local * width * -(-batch // layout.batch) <= layout.store_bytes:
        saved.append("label_mixed")  # [B, L, P] stored: seven big products a step instead of eight
    policy = jax.checkpoint_policies.save_only_these_names(*saved)
    body = jax.checkpoint(body, prevent_cse=False, policy=policy)
    # Each device takes a chunk of its own labels at a time.
    over_shards = jax.vmap(functools.partial(body, shared), out_axes=1)
    logits = jax.lax.map(lambda parts: over_shards(*parts), tuple(split(t) for t in tables))
    logits = logits.transpose(1, 2, 0, 3).reshape(batch, shards, count * size)
    return logits[:, :, :local].reshape(batch, rows)


@jax.custom_vjp
def mix(keys: jax.Array, values: jax.Array, query: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns Σ_t softmax_t(query_c · key_t + mask_t) value_t, float32 [B, C, D].

    The gradient is written out because autodiff's reads and writes [B, T, C] more often. The axes
    [B, T, C] make the softmax a sum over rows, and three of the six products plain ones: on 2 CPU
    cores a step took 0.36 s, by autodiff 0.42 s as [B, C, T] and 0.55 s in the form
    Σ_t a_ct (w3_c · h_t), where the products alone take 0.29 s (B=16, T=640, C=1,768, D=256).

    Args:
      keys: [B, T, P].
      values: [B, T, D].
      query: [C, P], of a chunk of the labels.
      mask: float32 [B, T], 0 or a large negative number.
    """
    return _mix_forward(keys, values, query, mask)[0]


def _mix_forward(
    keys: jax.Array, values: jax.Array, query: jax.Array, mask: jax.Array
) -> tuple[jax.Array, Any]:
    scores = jnp.einsum(
        "btp,cp->btc", keys, query.astype(keys.dtype), preferred_element_type=jnp.float32
    )
    scores = scores + mask[:, :, None]
    peak = checkpoint_name(jnp.max(scores, axis=1), "label_norms")
    weights = jnp.exp(scores - peak[:, None])
    inverse = checkpoint_name(1 / jnp.sum(weights, axis=1), "label_norms")
    weights = weights.astype(values.dtype)  # not yet divided by their sum
    mixed = jnp.einsum("btc,btd->bcd", weights, values, preferred_element_type=jnp.float32)
    mixed = checkpoint_name(mixed * inverse[..., None], "label_mixed")
    return mixed, (keys, values, query, weights, inverse, mixed)


def _mix_backward(residuals: Any, gradient: jax.Array) -> tuple[jax.Array, ...]:
    keys, values, query, weights, inverse, mixed = residuals
    dtype = keys.dtype
    along = jnp.sum(gradient * mixed, axis=-1) * inverse
    gradient = (gradient * inverse[..., None]).astype(dtype)
    slope = jnp.einsum("bcd,btd->btc", gradient, values, preferred_element_type=jnp.float32)
    slope = (weights * (slope - along[:, None])).astype(dtype)
    return (
        jnp.einsum("btc,cp->btp", slope, query.astype(dtype)),
        jnp.einsum("btc,bcd->btd", weights, gradient),
        jnp.einsum("btc,btp->cp", slope, keys, preferred_element_type=query.dtype),
        jnp.zeros(weights.shape[:2], jnp.float32),
    )


mix.defvjp(_mix_forward, _mix_backward)


def _laat(shared: Any, query: jax.Array, output: jax.Array) -> jax.Array:
    keys, values, mask = shared
    return jnp.sum(mix(keys, values, query, mask) * spread(output, len(mask)), axis=-1)


def laat_logits(
    keys_BxTxP: jax.Array,
    values_BxTxD: jax.Array,
    query_LxP: jax.Array,
    output_LxD: jax.Array,
    mask_BxT: jax.Array,
    chunk: int = 0,
    layout: Layout = WHOLE,
) -> jax.Array:
    """Returns output_l · Σ_t softmax_t(query_l · key_t + mask_t) value_t, float32 [B, L]."""
    shared = (keys_BxTxP, values_BxTxD, mask_BxT)
    return _over_chunks(_laat, shared, (query_LxP, output_LxD), mask_BxT, chunk, layout)


def _cross(shared: Any, query: jax.Array, *, epsilon: float) -> jax.Array:
    keys, values, mask, (direction, bias) = shared
    mixed = mix(keys, values, query, mask)
    centred = mixed - jnp.mean(mixed, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1)
    return (
        jnp.sum(centred * direction[None, None], axis=-1) * jax.lax.rsqrt(variance + epsilon) + bias
    )


def cross_logits(
    keys_BxTxP: jax.Array,
    values_BxTxP: jax.Array,
    query_LxP: jax.Array,
    readout: tuple[jax.Array, jax.Array],
    mask_BxT: jax.Array,
    epsilon: float,
    chunk: int = 0,
    layout: Layout = WHOLE,
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
      layout: how it is cut for the devices.

    Returns:
      logits float32 [B, L].
    """
    shared = (keys_BxTxP, values_BxTxP, mask_BxT, readout)
    body = functools.partial(_cross, epsilon=epsilon)
    return _over_chunks(body, shared, (query_LxP,), mask_BxT, chunk, layout)
