"""Names and layouts against PyTorch's own modules, and every mismatch in one message."""

import dataclasses

import jax
import numpy as np
import pytest
import torch

from jaxcoder import weights
from jaxcoder.errors import UserError
from jaxcoder.models import coder
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions

BERT = EncoderOptions(
    vocab_size=13,
    width=8,
    layers=2,
    heads=2,
    feedforward=12,
    window=6,
    token_types=2,
    convolution=3,
)
MODERNBERT = dataclasses.replace(BERT, family="modernbert", token_types=0, convolution=0)
LAAT = HeadOptions(num_labels=5)
CROSS = HeadOptions(kind="cross", num_labels=5, width=6)


def made(encoder, head, seed=0):
    """Parameters without a zero or a one among them, but for padding."""
    shapes = jax.eval_shape(lambda: coder.init(CoderOptions(encoder, head), jax.random.key(0)))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    params["encoder"]["embedding"]["word"][encoder.vocab_size :] = 0
    for name in ("query", "output", "bias"):
        if params["head"][name].shape[0] == head.rows:
            params["head"][name][head.num_labels :] = 0
    if encoder.family == "modernbert":
        params["encoder"]["layers"]["attention_norm"]["scale"][0] = 1
    return params


@pytest.mark.parametrize("head", [LAAT, CROSS], ids=["laat", "cross"])
@pytest.mark.parametrize("encoder", [BERT, MODERNBERT], ids=["bert", "modernbert"])
def test_out_and_in_again_is_the_same_bit_by_bit(encoder, head):
    params = made(encoder, head)
    tensors = weights.to_torch(params, encoder, head)
    assert all(array.dtype == np.float32 for array in tensors.values())
    assert all(array.flags.c_contiguous for array in tensors.values())
    again = weights.from_torch(tensors, encoder, head)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    # Nothing twice, nothing left out, and no padding: 3 rows of each table, and the norm that the
    # first layer of modernbert does not have.
    spare = 3 * encoder.width * (1 + (encoder.family == "modernbert") / 3)
    spare += sum(3 * table[0].size for table in params["head"].values() if len(table) == head.rows)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(array.size for array in tensors.values()) == total - spare


def test_a_convolution_is_that_of_torch():
    params = made(BERT, LAAT)
    kernel, bias = (params["encoder"]["convolution"][name] for name in ("kernel", "bias"))
    tensors = weights.to_torch(params, BERT, LAAT)
    layer = torch.nn.Conv1d(8, 8, 3, padding=1)
    layer.load_state_dict(
        {
            name: torch.from_numpy(tensors[f"encoder.convolution.{name}"])
            for name in ("weight", "bias")
        }
    )
    x_TxD = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    theirs = layer(torch.from_numpy(x_TxD.T[None]))[0].T.detach().numpy()
    padded = np.pad(x_TxD, ((1, 1), (0, 0)))
    ours = sum(padded[tap : tap + 5] @ kernel[tap] for tap in range(3)) + bias
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)


def test_the_encoder_may_stand_behind_any_prefix():
    params = made(BERT, LAAT)
    tensors = weights.to_torch({"encoder": params["encoder"]}, BERT, prefix="bert.")
    assert "bert.encoder.layer.1.output.dense.weight" in tensors
    again = weights.from_torch(tensors, BERT, prefix="bert.")
    jax.tree.map(np.testing.assert_array_equal, again["encoder"], params["encoder"])


def test_older_spellings_and_half_precision_are_read():
    tensors = weights.to_torch(made(BERT, LAAT), BERT, LAAT)
    expected = weights.from_torch(tensors, BERT, LAAT)
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array.astype(np.float16)
        for name, array in tensors.items()
    }
    assert older.keys() != tensors.keys()
    again = weights.from_torch(older, BERT, LAAT)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), again, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(again)} == {np.dtype(np.float32)}


def test_all_mismatches_are_told_at_once_with_shapes():
    tensors = weights.to_torch(made(BERT, LAAT), BERT, LAAT)
    for layer in (0, 1):
        del tensors[f"encoder.encoder.layer.{layer}.attention.self.query.bias"]
    tensors["encoder.embeddings.word_embeddings.weight"] = np.zeros((14, 8), np.float32)
    tensors["encoder.adapter.weight"] = np.zeros((3, 4), np.float32)
    with pytest.raises(UserError) as error:
        weights.from_torch(tensors, BERT, LAAT)
    text = str(error.value)
    assert "\n" not in text
    for part in (
        "encoder.encoder.layer.#.attention.self.query.bias (# = 0, 1) is missing, expected [8]",
        "encoder.embeddings.word_embeddings.weight is [14, 8], expected [13, 8]",
        "encoder.adapter.weight [3, 4] is unknown",
    ):
        assert part in text


def test_layers_that_the_config_does_not_have_are_unknown():
    tensors = weights.to_torch(made(BERT, LAAT), BERT, LAAT)
    with pytest.raises(
        UserError, match=r"layer\.#\.output\.dense\.bias \(# = 1\) \[8\] is unknown"
    ):
        weights.from_torch(tensors, dataclasses.replace(BERT, layers=1), LAAT)
