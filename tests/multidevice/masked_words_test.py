"""One device and eight pretrain the same; conftest.py sets eight virtual CPU devices."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxcoder import sharding, steps
from jaxcoder.masking import MaskingOptions, Vocabulary
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.masked_lm import MaskedLMOptions
from jaxcoder.objectives import MaskedWords
from jaxcoder.optim import OptimOptions

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LAYOUTS = {"data": (8, 1, 1), "fsdp": (1, 8, 1)}
ENCODER = EncoderOptions(
    family="modernbert",
    vocab_size=59,
    width=16,
    layers=2,
    heads=2,
    feedforward=32,
    local_attention=6,
    global_every=2,
    unroll=1,
)
VOCABULARY = Vocabulary(np.arange(59) % 3 > 0, np.arange(59) < 4, 3)
# Adam divides by the root of a gradient's square: with 1e-8 a parameter whose gradient is rounding
# alone moves by a whole learning rate, this way on one device and that way on eight.
OPTIM = OptimOptions(learning_rate=1e-2, warmup_steps=1, total_steps=20, eps=1e-4)


class InParts(MaskedWords):
    """One device names the tokens in five parts, and of eight each in one."""

    def on(self, layout):
        return super().on(dataclasses.replace(layout, chunk_bytes=1024))


def batch(step):
    """Rows of two documents; the last row is padding, and another is nearly full of it."""
    rng = np.random.default_rng(step)
    ends = np.sort(rng.integers(1, 17, (8, 2)), axis=1)
    ends[-2:] = [[1, 1], [0, 0]]
    place_T = np.arange(16)
    before = (place_T < ends[:, :1]).astype(np.int32) + (place_T < ends[:, 1:])
    segments = np.where(before > 0, 3 - before, 0).astype(np.int32)
    tokens = np.where(segments > 0, rng.integers(4, 59, (8, 16)), 0).astype(np.int32)
    return {"tokens": tokens, "segments": segments, "row": np.arange(8, dtype=np.int32) + 8 * step}


@functools.cache
def three_steps(sizes, devices):
    """The parameters after training with dropout, what each step said, and an evaluation."""
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[:devices])
    objective = InParts(MaskedLMOptions(ENCODER), MaskingOptions(), VOCABULARY)
    its = steps.jit_steps(mesh, objective, OPTIM)
    state, history = its.init(0), []
    for step in range(3):
        state, metrics = its.train(state, sharding.put_batch(batch(step), its.batch_sharding))
        history.append({key: float(value) for key, value in metrics.items()})
    scores = its.evaluate(
        its.evaluation_params(state), sharding.put_batch(batch(9), its.batch_sharding)
    )
    return state.params, history, jax.device_get(scores)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_eight_devices_pretrain_as_one(layout):
    """Same masks, dropout and sums. Only the order of the sums differs."""
    params, history, scores = three_steps(LAYOUTS[layout], 8)
    one_params, one_history, one_scores = three_steps((1, 1, 1), 1)
    for ours, expected in zip(history, one_history, strict=True):
        assert ours == pytest.approx(expected, rel=1e-5)
    assert history[-1]["masked_share"] > 0.2
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), params, one_params
    )
    for key, expected in one_scores.items():
        np.testing.assert_allclose(scores[key], expected, rtol=1e-4, atol=1e-6, err_msg=key)
    assert scores["loss"][-1] == scores["hidden"][-1] == 0, "a row of padding"
    word_VxD = params["encoder"]["embedding"]["word"]
    assert word_VxD.sharding.is_fully_replicated == (layout == "data")
