"""A masked language model on packed rows: documents do not see each other."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder.masking import MaskingOptions, Vocabulary, mask
from jaxcoder.models import encoder, masked_lm
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.masked_lm import MaskedLMOptions

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SMALL = {"vocab_size": 60, "width": 16, "heads": 2, "feedforward": 32, "dropout": 0.0}
ENCODERS = {
    "bert": EncoderOptions(**SMALL, layers=1, window=16),
    "bert with convolution": EncoderOptions(**SMALL, layers=1, window=16, convolution=3),
    # A global layer, and a local one whose reach is longer than the first document.
    "modernbert": EncoderOptions(
        **SMALL, family="modernbert", layers=2, local_attention=16, global_every=2
    ),
}
LENGTHS = (5, 8)  # of two documents, then 3 tokens of padding
TOKENS = np.concatenate([np.arange(4, 9), np.arange(20, 28), [0, 0, 0]])[None].astype(np.int32)
SEGMENTS = np.repeat([1, 2, 0], [5, 8, 3])[None].astype(np.int32)


logits_of = jax.jit(masked_lm.logits, static_argnums=0)


@functools.cache
def params_of(options):
    """Larger than at the start of training, so that what is seen shows."""

    def make():
        params = masked_lm.init(MaskedLMOptions(options), jax.random.key(0))
        return jax.tree.map(lambda leaf: leaf * 5 if leaf.ndim > 1 else leaf, params)

    return jax.jit(make)()


@pytest.mark.parametrize("name", ENCODERS)
def test_no_token_sees_another_document(name):
    """By gradient: of the states of each document, in the rows of the token table of the other."""
    options = ENCODERS[name]
    params = params_of(options)["encoder"]

    @jax.jit
    @jax.grad
    def slopes(word_VxD, document):
        embedding = params["embedding"] | {"word": word_VxD}
        h_BxTxD = encoder.apply(options, params | {"embedding": embedding}, TOKENS, SEGMENTS)
        return jnp.sum(jnp.sin(h_BxTxD) * (document == SEGMENTS)[..., None])

    first, second = slice(4, 9), slice(20, 28)
    for document, mine, others in ((1, first, second), (2, second, first)):
        slope_VxD = slopes(params["embedding"]["word"], document)
        assert np.all(np.abs(slope_VxD[mine]).max(axis=1) > 1e-4), "each token sees its own"
        assert np.all(slope_VxD[others] == 0), "and none of the other, to the last bit"
        assert np.all(slope_VxD[0] == 0), "nor padding"


@pytest.mark.parametrize("name", ENCODERS)
def test_packed_documents_are_as_alone(name):
    options = MaskedLMOptions(ENCODERS[name])
    params = params_of(options.encoder)
    place = np.arange(16)[None]
    packed = logits_of(options, params, TOKENS, SEGMENTS, place)
    start = 0
    for length in LENGTHS:
        tokens = np.zeros((1, 16), np.int32)
        tokens[0, :length] = TOKENS[0, start : start + length]
        segments = (np.arange(16) < length)[None].astype(np.int32)
        alone = logits_of(options, params, tokens, segments, place)
        np.testing.assert_allclose(packed[0, start : start + length], alone[0, :length], atol=2e-5)
        start += length


def test_scores_are_those_of_the_logits():
    options = MaskedLMOptions(dataclasses.replace(ENCODERS["bert"], vocab_size=57))
    params = params_of(options.encoder)
    assert params["masked_lm"]["bias"].shape == (64,)  # rows that pad the table
    vocabulary = Vocabulary(np.ones(57, bool), np.arange(57) < 4, 3)
    rows, masking = np.arange(2), MaskingOptions(0.4)
    tokens, segments = np.concatenate([TOKENS, TOKENS[:, ::-1]]), np.concatenate([SEGMENTS] * 2)
    masked = jax.jit(lambda key: mask(key, rows, tokens, segments, vocabulary, masking))(
        jax.random.key(0)
    )
    logits = logits_of(options, params, masked.tokens_BxT, segments, masked.place_BxM)
    assert np.all(logits[..., 57:] < -1e8), "no such token is ever named"
    log = jax.nn.log_softmax(logits)
    expected = [
        -sum(
            float(log[row, slot, masked.target_BxM[row, slot]])
            for slot in np.flatnonzero(masked.hidden_BxM[row])
        )
        for row in range(2)
    ]
    score = functools.partial(masked_lm.score, options)
    by_row, _ = jax.jit(functools.partial(score, by_row=True))(params, masked, segments)
    assert by_row.tolist() == pytest.approx(expected, rel=1e-5)
    total, _ = jax.jit(score)(params, masked, segments)
    assert float(total) == pytest.approx(sum(expected), rel=1e-5)
