import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder.models import coder
from jaxcoder.models.encoder import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions

ENCODER = EncoderOptions(
    vocab_size=50, width=16, layers=2, heads=2, feedforward=32, window=8, convolution=3
)
MODELS = [
    coder.CoderOptions(ENCODER, HeadOptions(kind=kind, num_labels=11)) for kind in ("laat", "cross")
]


@pytest.fixture(params=MODELS, ids=lambda options: options.head.kind)
def model(request):
    return request.param


apply = jax.jit(coder.apply, static_argnums=0)


def tokens(seed, *shape):
    return np.random.default_rng(seed).integers(1, 50, shape).astype(np.int32)


def test_a_documents_logits_do_not_depend_on_bucket_or_neighbours(model):
    params, document = coder.init(model, jax.random.key(0)), tokens(0, 13)
    params = jax.tree.map(lambda x: 3 * x, params)
    focus = np.array([[3, 4]], np.int32)
    alone, attention = apply(model, params, document[None], np.array([13]), focus_BxK=focus)
    for bucket in (13, 20):
        batch = tokens(bucket, 4, bucket)
        batch[2, :13] = document
        logits, log_attention = apply(
            model,
            params,
            batch,
            np.array([bucket, 1, 13, 0]),
            focus_BxK=np.repeat(focus, 4, axis=0),
        )
        np.testing.assert_allclose(logits[2], alone[0], atol=1e-5)
        np.testing.assert_allclose(log_attention[2, :, :13], attention[0], atol=1e-4)
        assert np.all(np.isfinite(logits))


def test_params_are_plain_float32_and_have_axes(model):
    params = coder.init(model, jax.random.key(0))
    assert set(params) == {"encoder", "head"}
    axes = coder.logical_axes(model)

    def check(leaf, names):
        assert isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32
        assert len(names) == leaf.ndim

    jax.tree.map(check, params, axes)
    assert axes["encoder"]["embedding"]["word"] == ("vocabulary", None)
    assert axes["encoder"]["layers"]["attention"]["query"]["kernel"] == (
        None,
        "width",
        "heads",
        None,
    )
    assert axes["head"]["query"] == ("labels", "width")


def test_dropout_needs_a_key(model):
    params = coder.init(model, jax.random.key(0))
    batch, length = tokens(0, 2, 12), np.array([12, 9])
    one, again = (apply(model, params, batch, length)[0] for _ in range(2))
    np.testing.assert_array_equal(one, again)
    dropped = apply(model, params, batch, length, rng=jax.random.key(1))[0]
    assert np.abs(dropped - one).max() > 1e-4


def test_bfloat16_ranks_codes_as_float32(model):
    params = jax.tree.map(lambda x: 3 * x, coder.init(model, jax.random.key(0)))
    batch, length = tokens(0, 4, 30), np.array([30, 20, 10, 5])
    rough_model = dataclasses.replace(
        model, encoder=dataclasses.replace(model.encoder, dtype="bfloat16")
    )
    exact = apply(model, params, batch, length)[0]
    rough = apply(rough_model, params, batch, length)[0]
    assert rough.dtype == jnp.float32
    assert np.abs(rough - exact).max() < 0.1 * np.std(exact)
