"""The heads equal their formulas in PyTorch, forward and backward, whatever pads or chunks them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxcoder.models.label_attention import HeadOptions, LabelAttention
from jaxcoder.models.layout import WHOLE, Layout
from tests.reference import coders

B, T, D, P, L = 3, 37, 24, 16, 301
LENGTHS = (37, 20, 1)
VALID = jnp.arange(T)[None] < jnp.asarray(LENGTHS)[:, None]
TANGENT = np.random.default_rng(1).normal(size=(B, L)).astype(np.float32)
TOLERANCE = 1e-5
# chunk = 0 stores all of [B, L, T] where it fits; here nothing fits, so that 128 labels go at once.
NO_STORE = Layout(chunk_bytes=0, store_bytes=0)


def states():
    return jax.random.normal(jax.random.key(5), (B, T, D))


@functools.cache
def head_params(kind):
    options = HeadOptions(kind=kind, num_labels=L, width=P)
    params = LabelAttention(options, jnp.float32).init(
        jax.random.key(0), states(), VALID, None, WHOLE
    )["params"]
    params = jax.tree.map(lambda leaf: leaf.value, params, is_leaf=lambda x: hasattr(x, "value"))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    # Larger than at the start, so that attention is far from the mean; logits stay near one.
    return jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), params)


@functools.cache
def published(kind):
    """Logits, and the gradients of Σ logits · TANGENT by states and by parameters."""
    head = coders.HEADS[kind](D, P, L)
    head.load_state_dict(coders.head_weights(head_params(kind), L))
    h = torch.tensor(np.array(states()), requires_grad=True)
    logits = torch.stack([head(h[row, :length]) for row, length in enumerate(LENGTHS)])
    (logits * torch.tensor(TANGENT)).sum().backward()
    gradients = {name: weight.grad.numpy() for name, weight in head.named_parameters()}
    return logits.detach().numpy(), h.grad.numpy(), gradients


@pytest.mark.parametrize("kind", coders.HEADS)
@pytest.mark.parametrize(
    ("chunk", "layout", "multiple"),  # 304 rows of labels, or 301 and none to spare
    [(-1, WHOLE, 8), (0, WHOLE, 7), (0, NO_STORE, 8), (13, Layout(batch=3), 7)],
    ids=["all", "stored", "by memory", "13"],
)
def test_equals_the_formula_in_pytorch(kind, chunk, layout, multiple):
    options = HeadOptions(kind=kind, num_labels=L, width=P, chunk=chunk, label_multiple=multiple)
    params = jax.tree.map(
        lambda x: x[: options.rows] if x.shape[0] == 304 else x, head_params(kind)
    )

    @jax.jit
    def ours(params, h):
        def total(params, h):
            logits, _ = LabelAttention(options, jnp.float32).apply(
                {"params": params}, h, VALID, None, layout
            )
            return jnp.sum(logits * TANGENT), logits

        return jax.grad(total, (0, 1), has_aux=True)(params, h)

    (by_params, by_states), logits = ours(params, states())
    expected_logits, expected_by_states, expected = published(kind)
    np.testing.assert_allclose(logits, expected_logits, rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(by_states, expected_by_states, rtol=TOLERANCE, atol=TOLERANCE)
    by_name = coders.head_weights(by_params, L)
    assert by_name.keys() == expected.keys()
    for name, gradient in by_name.items():
        np.testing.assert_allclose(
            gradient, expected[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
        )
    spare = by_params["query"][L:]
    assert np.all(spare == 0)
