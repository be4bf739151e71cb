"""The loss of naming hidden tokens, over the whole vocabulary, a part of the tokens at a time.

[B, M, V] never exists: the gradient of a part's logits is used up where they are computed. A step
of pretraining holds parts of 8 MiB instead of 75 MiB on a CPU (B=32, M=77, V=8,000), and its head
takes 0.42 s of CPU time instead of 0.58 s.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxcoder.models.layout import Layout

_Sums = tuple[jax.Array, jax.Array]


def parts(batch: int, slots: int, vocabulary: int, layout: Layout) -> int:
    """In how many parts [B, M, V] is computed, so that a device holds few of its numbers.

    Parts hold whole slots of every row, so that next to none is computed in vain.
    """
    slot_bytes = 4 * -(-batch // layout.batch) * vocabulary
    return -(-slots // max(1, 2 * layout.chunk_bytes // slot_bytes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def naming_loss(
    x_BxMxD: jax.Array,
    word_VxD: jax.Array,
    bias_V: jax.Array,
    target_BxM: jax.Array,
    hidden_BxM: jax.Array,
    parts: int,
) -> _Sums:
    """Sums the cross-entropy of softmax(x · word + bias) with the hidden tokens.

    Args:
      x_BxMxD: states, in the compute dtype.
      word_VxD: the token table, float32 or bfloat16.
      bias_V: float32.
      target_BxM: int32, the tokens.
      hidden_BxM: bool, false where a slot counts for nothing.
      parts: see `parts`.

    Returns:
      The loss in nats and the number of tokens whose logit no other exceeds, float32 scalars.
    """

    def step(sums: _Sums, part: Any) -> tuple[_Sums, None]:
        loss, correct, _ = _score(part, word_VxD, bias_V)
        return (sums[0] + loss, sums[1] + correct), None

    zero = jnp.zeros((), jnp.float32)
    sums, _ = jax.lax.scan(step, (zero, zero), _split(x_BxMxD, target_BxM, hidden_BxM, parts))
    return sums


def _forward(
    x_BxMxD: jax.Array,
    word_VxD: jax.Array,
    bias_V: jax.Array,
    target_BxM: jax.Array,
    hidden_BxM: jax.Array,
    parts: int,
) -> tuple[_Sums, tuple[jax.Array, ...]]:
    """The sums, and the gradients of the loss, which is linear in what the backward pass brings."""
    dtype = x_BxMxD.dtype

    def step(sums: Any, part: Any) -> tuple[Any, jax.Array]:
        loss, correct, slope_BxNxV = _score(part, word_VxD, bias_V)
        narrow = slope_BxNxV.astype(dtype)
        word = jnp.einsum("bnv,bnd->vd", narrow, part[0], preferred_element_type=jnp.float32)
        more = (loss, correct, word, jnp.sum(slope_BxNxV, axis=(0, 1)))
        return (
            tuple(one + other for one, other in zip(sums, more, strict=True)),
            jnp.einsum("bnv,vd->bnd", narrow, word_VxD.astype(dtype)),
        )

    zero = jnp.zeros((), jnp.float32)
    start = (zero, zero, jnp.zeros(word_VxD.shape), jnp.zeros_like(bias_V))
    (loss, correct, word, bias), slopes = jax.lax.scan(
        step, start, _split(x_BxMxD, target_BxM, hidden_BxM, parts)
    )
    batch, slots, width = x_BxMxD.shape
    x = jnp.moveaxis(slopes, 0, 1).reshape(batch, -1, width)[:, :slots]
    return (loss, correct), (x, word.astype(word_VxD.dtype), bias)


def _backward(
    parts: int, gradients: tuple[jax.Array, ...], outer: _Sums
) -> tuple[jax.Array | None, ...]:
    x, word, bias = (each * outer[0].astype(each.dtype) for each in gradients)
    return x, word, bias, None, None


naming_loss.defvjp(_forward, _backward)


def _split(
    x_BxMxD: jax.Array, target_BxM: jax.Array, hidden_BxM: jax.Array, parts: int
) -> tuple[jax.Array, ...]:
    """Cuts the slots of every row in parts, which become the first axis."""
    size = -(-x_BxMxD.shape[1] // parts)

    def cut(array: jax.Array) -> jax.Array:
        spare = [(0, 0), (0, parts * size - array.shape[1]), (0, 0)][: array.ndim]
        array = jnp.pad(array, spare)
        return jnp.moveaxis(array.reshape(array.shape[0], parts, size, *array.shape[2:]), 1, 0)

    return cut(x_BxMxD), cut(target_BxM), cut(hidden_BxM)


def _score(
    part: tuple[jax.Array, ...], word_VxD: jax.Array, bias_V: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Loss, number of right ones, and the loss's slope in the logits, of N slots of every row."""
    x_BxNxD, target_BxN, hidden_BxN = part
    logits_BxNxV = jnp.einsum(
        *("bnd,vd->bnv", x_BxNxD, word_VxD.astype(x_BxNxD.dtype)),
        preferred_element_type=jnp.float32,
    )
    logits_BxNxV = logits_BxNxV + bias_V[None, None]
    most_BxNx1 = jnp.max(logits_BxNxV, axis=2, keepdims=True)
    mass_BxNxV = jnp.exp(logits_BxNxV - most_BxNx1)
    total_BxNx1 = jnp.sum(mass_BxNxV, axis=2, keepdims=True)
    chosen_BxNx1 = jnp.take_along_axis(logits_BxNxV, target_BxN[..., None], axis=2)
    loss_BxN = (jnp.log(total_BxNx1) + most_BxNx1 - chosen_BxNx1)[..., 0]
    correct_BxN = hidden_BxN & (chosen_BxNx1 == most_BxNx1)[..., 0]
    is_target_BxNxV = target_BxN[..., None] == jnp.arange(len(bias_V))[None, None]
    slope_BxNxV = jnp.where(
        hidden_BxN[..., None], mass_BxNxV / total_BxNx1 - is_target_BxNxV.astype(jnp.float32), 0.0
    )
    return (
        jnp.sum(jnp.where(hidden_BxN, loss_BxN, 0.0)),
        jnp.sum(correct_BxN, dtype=jnp.float32),
        slope_BxNxV,
    )
