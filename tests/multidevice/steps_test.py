"""One device and eight give the same training; conftest.py sets eight virtual CPU devices."""

import functools

import jax
import numpy as np
import pytest

from jaxcoder import sharding, steps
from jaxcoder.losses import LossOptions
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.optim import OptimOptions

pytestmark = pytest.mark.usefixtures("quickly_compiled")

LAYOUTS = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "tensor": (1, 1, 8), "mixed": (2, 2, 2)}


BERT = EncoderOptions(
    vocab_size=60,
    width=32,
    layers=2,
    heads=8,
    feedforward=64,
    window=8,
    convolution=3,
    unroll=1,
)
MODERN = EncoderOptions(
    family="modernbert",
    vocab_size=60,
    width=32,
    layers=2,
    heads=8,
    feedforward=64,
    local_attention=6,
    global_every=2,
    frozen=1,
)


def model(kind):
    # 59 labels, in chunks of 3 for each of up to 8 shards: neither divides the other.
    head = HeadOptions(kind="cross" if kind == "cross" else "laat", num_labels=59, chunk=3)
    return CoderOptions(MODERN if kind == "modernbert" else BERT, head)


def batch(seed):
    rng = np.random.default_rng(seed)
    rows, length = 8, 12
    start = rng.integers(0, length // 2 - 2, (rows, 3))
    spans = [rng.integers(0, 4, (rows, 3)), start, start + 2, np.zeros((rows, 3))]
    return {
        "tokens": rng.integers(0, 60, (rows, length)).astype(np.int32),
        "length": rng.integers(length // 2, length + 1, rows).astype(np.int32),
        "labels": np.stack([rng.choice(59, 4, replace=False) for _ in range(rows)]).astype(
            np.int32
        ),
        "evidence": np.stack(spans, -1).astype(np.int32),
        "_mask": np.arange(rows) < 7,
    }


@functools.cache
def five_steps(kind, sizes, devices, gradients="float32"):
    """The parameters before, the state after, what each step said, and logits."""
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[:devices])
    its = steps.make_steps(
        mesh,
        model(kind),
        LossOptions(evidence_weight=1.0),
        OptimOptions(
            learning_rate=1e-3, warmup_steps=2, total_steps=20, ema=0.9, gradients=gradients
        ),
    )
    state, history = its.init(0), []
    before = jax.tree.map(np.array, state.params)  # copies: training reuses the memory
    for seed in range(5):
        state, metrics = its.train(state, sharding.put_batch(batch(seed), its.batch_sharding))
        history.append({key: float(value) for key, value in metrics.items()})
    result = its.evaluate(
        its.evaluation_params(state), sharding.put_batch(batch(9), its.batch_sharding)
    )
    return before, state, history, np.asarray(result["logits"])


def test_there_are_eight_devices():
    assert jax.device_count() == 8


@pytest.mark.parametrize(
    ("kind", "layout"),
    [*(("laat", layout) for layout in LAYOUTS), ("cross", "mixed"), ("modernbert", "mixed")],
)
def test_eight_devices_train_as_one(kind, layout):
    _, state, history, logits = five_steps(kind, LAYOUTS[layout], 8)
    _, one_state, one_history, one_logits = five_steps(kind, (1, 1, 1), 1)
    for ours, expected in zip(history, one_history, strict=True):
        assert ours == pytest.approx(expected, rel=2e-4)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-4),
        state.params,
        one_state.params,
    )
    np.testing.assert_allclose(logits, one_logits, atol=2e-3)


def test_gradients_summed_in_bfloat16_on_any_mesh():
    """Eight bfloat16 terms are summed, so that the two differ by their rounding alone."""
    _, state, history, _ = five_steps("laat", LAYOUTS["mixed"], 8, "bfloat16")
    before, one_state, one_history, _ = five_steps("laat", (1, 1, 1), 1)
    for ours, expected in zip(history, one_history, strict=True):
        assert ours == pytest.approx(expected, rel=0.02)
    for name in ("word", "position"):
        start, ours, theirs = (
            np.asarray(tree["encoder"]["embedding"][name])
            for tree in (before, state.params, one_state.params)
        )
        assert np.linalg.norm(ours - theirs) < 0.1 * np.linalg.norm(theirs - start)


def test_what_is_frozen_stays_bit_by_bit():
    """Under AdamW with decay, and split over devices; the other layers move."""
    before, state, _, _ = five_steps("modernbert", LAYOUTS["mixed"], 8)
    before, after = before["encoder"], jax.device_get(state.params["encoder"])
    jax.tree.map(np.testing.assert_array_equal, after["embedding"], before["embedding"])
    for old, new in zip(
        jax.tree.leaves(before["layers"]), jax.tree.leaves(after["layers"]), strict=True
    ):
        np.testing.assert_array_equal(new[0], old[0])
        assert np.all(np.any(new[1:] != old[1:], axis=tuple(range(1, new.ndim))))


def test_state_lies_where_the_rules_say():
    def shares(layout):
        _, state, _, _ = five_steps("laat", LAYOUTS[layout], 8)
        moments = next(part.mu for part in state.opt_state if hasattr(part, "mu"))
        return [
            {
                name: np.prod(array.addressable_shards[0].data.shape) / array.size
                for name, array in (
                    ("words", tree["encoder"]["embedding"]["word"]),
                    ("feedforward", tree["encoder"]["layers"]["feedforward_in"]["kernel"]),
                    ("labels", tree["head"]["query"]),
                )
            }
            for tree in (state.params, moments, state.ema)
        ]

    eighth = 1 / 8
    assert shares("data") == [{"words": 1, "feedforward": 1, "labels": 1}] * 3
    assert shares("fsdp") == [{"words": eighth, "feedforward": eighth, "labels": eighth}] * 3
    assert shares("tensor") == [{"words": 1, "feedforward": eighth, "labels": eighth}] * 3
    assert shares("mixed") == [{"words": 0.5, "feedforward": 0.25, "labels": 0.25}] * 3


def test_labels_are_computed_where_they_lie():
    """With labels split, no device gathers the label tables."""
    mesh = sharding.make_mesh(1, 1, 8)
    its = steps.make_steps(mesh, model("laat"), LossOptions(), OptimOptions())
    rows = {
        key: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=its.batch_sharding)
        for key, value in batch(0).items()
    }
    program = its.train.lower(its.state_shapes, rows).compile().as_text()
    gathers = [line for line in program.splitlines() if " all-gather" in line]
    assert not [line for line in gathers if "64,32]" in line.split("=")[1].split("all-gather")[0]]
