"""Loss and gradients of masked language modelling are those of transformers in PyTorch."""

import jax
import numpy as np
import pytest
import torch
import transformers

from jaxcoder import masking, pretrained, weights
from jaxcoder.bench import parity
from jaxcoder.masking import MaskingOptions, Vocabulary
from jaxcoder.models import masked_lm
from jaxcoder.models.masked_lm import MaskedLMOptions

pytestmark = pytest.mark.usefixtures("quickly_compiled")

transformers.utils.logging.disable_progress_bar()

LENGTHS = np.array([37, 40, 12, 24])
SPECIAL = 6  # ids below it are padding, start, end and the mask, in both architectures
MASK = 2


def masked_batch(vocab_size, pad_id):
    """Documents one a row, which transformers can read, too; hidden as in training."""
    real_BxT = np.arange(LENGTHS.max()) < LENGTHS[:, None]
    tokens_BxT = np.random.default_rng(0).integers(SPECIAL, vocab_size, real_BxT.shape)
    tokens_BxT = np.where(real_BxT, tokens_BxT, pad_id).astype(np.int32)
    segments_BxT = real_BxT.astype(np.int32)
    ids = np.arange(vocab_size)
    vocabulary = Vocabulary(ids % 3 > 0, ids < SPECIAL, MASK)
    rows = np.arange(len(tokens_BxT))
    masked = masking.mask(
        jax.random.key(0), rows, tokens_BxT, segments_BxT, vocabulary, MaskingOptions()
    )
    return jax.tree.map(np.asarray, masked), segments_BxT


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_loss_and_gradients_are_those_of_transformers(tmp_path, architecture):
    """All gradients; seen: 3e-5 of the largest of an array."""
    parity.make(architecture, str(tmp_path), task="ModelForMaskedLM")
    options = pretrained.options_of(str(tmp_path), dropout=0.0, unroll=1)
    params = {
        "encoder": pretrained.load(str(tmp_path), options),
        "masked_lm": pretrained.load_masked_lm(str(tmp_path), options),
    }
    masked, segments_BxT = masked_batch(options.vocab_size, options.pad_id)
    hidden = masked.hidden_BxM.sum()
    assert hidden > 0.25 * LENGTHS.sum()

    @jax.jit
    @jax.value_and_grad
    def ours(params):
        loss, _ = masked_lm.score(MaskedLMOptions(options), params, masked, segments_BxT)
        return loss / hidden

    model = transformers.AutoModelForMaskedLM.from_pretrained(str(tmp_path)).eval()
    labels_BxT = np.full(segments_BxT.shape, -100)
    rows, slots = np.nonzero(masked.hidden_BxM)
    labels_BxT[rows, masked.place_BxM[rows, slots]] = masked.target_BxM[rows, slots]
    loss = model(
        input_ids=torch.tensor(masked.tokens_BxT, dtype=torch.long),
        attention_mask=torch.tensor(segments_BxT),
        labels=torch.tensor(labels_BxT),
    ).loss
    loss.backward()

    our_loss, gradients = ours(params)
    assert float(our_loss) == pytest.approx(loss.item(), rel=1e-6)
    prefix = {"bert": "bert.", "modernbert": "model."}[architecture]
    mine = weights.to_torch(jax.device_get(gradients), options, None, prefix)
    theirs = {name: array.grad.numpy() for name, array in model.named_parameters()}
    for name, gradient in theirs.items():
        # That of the bias of keys is no more than rounding: all of a softmax moves with it.
        atol = 1e-4 * max(np.abs(gradient).max(), 1e-3)
        np.testing.assert_allclose(mine[name], gradient, rtol=0, atol=atol, err_msg=name)
