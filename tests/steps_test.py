import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcoder import sharding, steps
from jaxcoder.losses import LossOptions
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.optim import OptimOptions

pytestmark = pytest.mark.usefixtures("quickly_compiled")

MODEL = CoderOptions(
    EncoderOptions(
        vocab_size=40, width=16, heads=2, feedforward=32, window=8, convolution=3, unroll=1
    ),
    HeadOptions(num_labels=12),
)
LOSS = LossOptions(evidence_weight=1.0, silver_weight=0.5)
OPTIM = OptimOptions(learning_rate=1e-2, warmup_steps=2, total_steps=20)


GOLDEN = {
    "bce": 19.48666,
    "documents": 8.0,
    "evidence_loss": 1.576295,
    "grad_norm": 4.15218,
    "learning_rate": 0.01,
    "loss": 21.77227,
    "silver_loss": 1.418612,
    "tokens": 79.0,
}


def make_batch(rows=8, length=12, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.choice(12, 4, replace=False) for _ in range(rows)])
    start = rng.integers(0, length // 2 - 2, (rows, 3))
    spans = [rng.integers(0, 4, (rows, 3)), start, start + 2, rng.integers(0, 2, (rows, 3))]
    return {
        "tokens": rng.integers(0, 40, (rows, length)).astype(np.int32),
        "length": rng.integers(length // 2, length + 1, rows).astype(np.int32),
        "labels": labels.astype(np.int32),
        "evidence": np.stack(spans, -1).astype(np.int32),
        "_mask": np.ones(rows, bool),
    }


@functools.cache
def jitted(model=MODEL, optim=OPTIM, devices=1):
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    return steps.make_steps(mesh, model, LOSS, optim)


def run(its, batches, state=None):
    state = its.init(0) if state is None else state
    metrics = {}
    for batch in batches:
        state, metrics = its.train(state, batch)
    return state, {key: float(value) for key, value in metrics.items()}


def close(ours, expected, tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance),
        ours,
        expected,
    )


def test_golden_steps():
    """A failure means that a run of today cannot be compared with one of yesterday.

    Initial values, dropout, model, loss, optimiser or schedule changed: if that was the purpose,
    write the new numbers here and say so in the CHANGELOG; if not, find out which.
    """
    state, metrics = run(jitted(), [make_batch(seed=seed) for seed in range(3)])
    assert metrics == pytest.approx(GOLDEN, rel=1e-4)
    assert int(state.step) == 3


def test_ten_steps_learn_a_batch():
    batch = make_batch()
    _, first = run(jitted(), [batch])
    _, last = run(jitted(), [batch] * 12)
    assert last["bce"] < 0.8 * first["bce"]
    assert last["evidence_loss"] < first["evidence_loss"]


def test_padding_rows_and_unused_arrays_change_nothing():
    batch = make_batch()
    wider = {key: np.concatenate([value, value[:4]]) for key, value in batch.items()}
    wider["_mask"][8:] = False
    wider["length"][8:] = [0, 3, 0, 12]
    wider["index"] = np.arange(12)
    # Dropout is by position in the batch, and so the same for the rows in front only without it.
    encoder = dataclasses.replace(MODEL.encoder, dropout=0.0)
    its = jitted(dataclasses.replace(MODEL, encoder=encoder))
    state, metrics = run(its, [batch])
    wide_state, wide_metrics = run(its, [wider])
    assert wide_metrics == pytest.approx(metrics, rel=1e-5)
    assert metrics["documents"] == 8 and metrics["tokens"] == batch["length"].sum()
    close(wide_state.params, state.params, 1e-5)


def test_going_on_is_as_not_stopping():
    batches = [make_batch(seed=seed) for seed in range(4)]
    whole, metrics = run(jitted(), batches)
    half, _ = run(jitted(), batches[:2])
    saved = jax.tree.map(np.asarray, half)  # as a checkpoint would
    resumed, again = run(jitted(), batches[2:], saved)
    assert again == metrics
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


def test_dropout_differs_by_step_and_by_seed():
    batch = make_batch()
    frozen = dataclasses.replace(OPTIM, learning_rate=1e-30, weight_decay=0.0)
    its = jitted(optim=frozen)
    losses = [run(its, [batch] * count)[1]["loss"] for count in (1, 1, 2)]
    other = run(its, [batch], its.init(0).replace(key=jnp.array([1, 2], jnp.uint32)))[1]["loss"]
    assert losses[0] == losses[1]
    assert len({losses[0], losses[2], other}) == 3


def test_accumulated_halves_are_the_whole_batch():
    encoder = dataclasses.replace(MODEL.encoder, dropout=0.0)
    model = dataclasses.replace(MODEL, encoder=encoder)
    loss = LossOptions()  # evidence is a mean over labels, of which the halves have unequal numbers
    constant = dataclasses.replace(OPTIM, schedule="constant", warmup_steps=0)
    batch = make_batch()
    halves = [{key: value[half] for key, value in batch.items()} for half in (np.s_[:4], np.s_[4:])]
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    whole = steps.make_steps(mesh, model, loss, constant)
    parts = steps.make_steps(mesh, model, loss, dataclasses.replace(constant, accumulate=2))
    close(run(parts, halves)[0].params, run(whole, [batch])[0].params, 2e-4)


def test_moving_average_is_corrected_for_its_start():
    averaged = jitted(optim=dataclasses.replace(OPTIM, ema=0.9))
    states = [averaged.init(0)]
    close(averaged.evaluation_params(states[0]), states[0].params, 0)
    weights, trees = [], []
    state = states[0]
    for step in range(3):
        state, _ = averaged.train(state, make_batch(seed=step))
        trees.append(jax.tree.map(np.asarray, state.params))
        weights.append(0.1 * 0.9 ** (2 - step))
    expected = jax.tree.map(
        lambda *leaves: sum(w * x for w, x in zip(weights, leaves, strict=True)) / sum(weights),
        *trees,
    )
    close(averaged.evaluation_params(state), expected, 1e-4)
    assert jitted().init(0).ema is None


def test_evaluation_is_without_dropout_and_counts_real_rows():
    its, batch = jitted(), make_batch()
    batch["_mask"][6:] = False
    params = its.init(0).params
    result, again = its.evaluate(params, batch), its.evaluate(params, batch)
    np.testing.assert_array_equal(result["logits"], again["logits"])
    assert result["logits"].shape == result["targets"].shape == (8, 12)
    assert np.all(result["loss"][6:] == 0) and np.all(result["loss"][:6] > 0)
    unlabelled = {key: batch[key] for key in ("tokens", "length", "_mask")}
    np.testing.assert_array_equal(its.evaluate(params, unlabelled)["logits"], result["logits"])


def test_remat_and_bfloat16_train_alike():
    batches = [make_batch(seed=seed) for seed in range(3)]
    _, exact = run(jitted(), batches)
    remat = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, remat=True))
    assert run(jitted(remat), batches)[1] == pytest.approx(exact, rel=1e-4)
    rough = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, dtype="bfloat16"))
    assert run(jitted(rough), batches)[1] == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_summed_in_bfloat16_train_alike(dtype):
    encoder = dataclasses.replace(MODEL.encoder, dtype=dtype, dropout=0.0)
    model = dataclasses.replace(MODEL, encoder=encoder)
    narrow = dataclasses.replace(OPTIM, gradients="bfloat16")
    batches = [make_batch(seed=seed) for seed in range(5)]
    exact_state, exact = run(jitted(model), batches)
    for devices in (1, 8):
        state, metrics = run(jitted(model, narrow, devices), batches)
        assert metrics == pytest.approx(exact, rel=0.02)
        # Of the whole: a bias of keys alone has a gradient of rounding errors.
        ours, theirs, start = (
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
            for params in (state.params, exact_state.params, jitted(model).init(0).params)
        )
        assert np.linalg.norm(ours - theirs) < 0.1 * np.linalg.norm(theirs - start)
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
        moments = next(part.nu for part in state.opt_state if hasattr(part, "nu"))
        assert {leaf.dtype for leaf in jax.tree.leaves(moments)} == {jnp.dtype("float32")}
