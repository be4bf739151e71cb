import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcoder import optim
from jaxcoder.models import coder
from jaxcoder.models.encoder import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.optim import OptimOptions

PARAMS = {
    "encoder": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5, 0.25])},
    "head": {"query": jnp.array([[3.0], [4.0]])},
}


def gradients(seed):
    keys = iter(jax.random.split(jax.random.key(seed), 3))
    return jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), PARAMS)


def run(options, feed, params=PARAMS):
    optimiser = optim.make_optimiser(options)
    state = optimiser.init(params)
    for gradient in feed:
        updates, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def close(ours, expected, tolerance=1e-6):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance),
        ours,
        expected,
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedule_rises_to_the_peak_and_falls_to_the_floor(schedule):
    options = OptimOptions(
        learning_rate=2.0, schedule=schedule, warmup_steps=4, total_steps=12, floor=0.1
    )
    rates = np.array([optim.learning_rate(options, step) for step in range(15)])
    np.testing.assert_allclose(rates[:5], [0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-6)
    assert np.all(np.diff(rates[4:12]) < 0)
    np.testing.assert_allclose(rates[12:], 0.2, rtol=1e-6)
    middle = {"linear": 0.2 + 1.8 * 0.75, "cosine": 0.2 + 1.8 * (1 + np.cos(np.pi / 4)) / 2}
    np.testing.assert_allclose(rates[6], middle[schedule], rtol=1e-6)


def test_constant_schedule_stays():
    options = OptimOptions(learning_rate=1.0, schedule="constant", total_steps=3)
    assert [float(optim.learning_rate(options, step)) for step in (0, 2, 9)] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["laat", "cross"])
def test_what_decays(kind):
    """A change of this list changes what is trained: biases, norms and positions stay out of it."""
    model = coder.CoderOptions(
        EncoderOptions(
            vocab_size=8, width=4, heads=2, feedforward=8, window=4, token_types=2, convolution=3
        ),
        HeadOptions(kind=kind, num_labels=8),
    )
    params = jax.eval_shape(lambda: coder.init(model, jax.random.key(0)))
    decayed = jax.tree_util.tree_leaves_with_path(optim.decays(params))
    names = {"/".join(entry.key for entry in path) for path, decays in decayed if decays}
    attention = {
        f"encoder/layers/attention/{part}/kernel" for part in ("query", "key", "value", "output")
    }
    head = {
        "laat": {"projection/kernel", "query", "output"},
        "cross": {"key/kernel", "value/kernel", "query", "output"},
    }
    assert names == attention | {f"head/{name}" for name in head[kind]} | {
        "encoder/embedding/word",
        "encoder/convolution/kernel",
        "encoder/layers/feedforward_in/kernel",
        "encoder/layers/feedforward_out/kernel",
    }


def test_optimiser_is_adamw():
    options = OptimOptions(
        learning_rate=0.1, schedule="constant", weight_decay=0.3, clip_norm=0, b2=0.99
    )
    feed = [gradients(seed) for seed in range(4)]
    adamw = optax.adamw(0.1, b2=0.99, weight_decay=0.3, mask=optim.decays)
    params, state = PARAMS, adamw.init(PARAMS)
    for gradient in feed:
        updates, state = adamw.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    close(run(options, feed), params)


def test_clipping_bounds_the_global_norm():
    # Adam forgets the scale of all its gradients but not that of one among others.
    feed = [gradients(0), jax.tree.map(lambda x: 100 * x, gradients(1))]
    scale = 1 / max(1.0, float(optim.global_norm(feed[0])))
    small = [
        jax.tree.map(lambda x: x * scale, feed[0]),
        jax.tree.map(lambda x: x / optim.global_norm(feed[1]), feed[1]),
    ]
    close(run(OptimOptions(clip_norm=1.0), feed), run(OptimOptions(clip_norm=0.0), small), 1e-5)


def test_head_has_its_own_rate():
    options = {"schedule": "constant", "weight_decay": 0.1}
    one = run(OptimOptions(learning_rate=0.01, **options), [gradients(0)])
    three = run(OptimOptions(learning_rate=0.01, head_multiplier=3.0, **options), [gradients(0)])
    close(three["encoder"], one["encoder"])
    moved = jax.tree.map(lambda new, old: new - old, one["head"], PARAMS["head"])
    thrice = jax.tree.map(lambda new, old: new - old, three["head"], PARAMS["head"])
    close(thrice, jax.tree.map(lambda x: 3 * x, moved), 1e-5)


def test_accumulation_is_the_mean_gradient():
    halves = [gradients(seed) for seed in range(4)]
    means = [jax.tree.map(lambda x, y: (x + y) / 2, halves[i], halves[i + 1]) for i in (0, 2)]
    constant = OptimOptions(schedule="constant")
    close(run(dataclasses.replace(constant, accumulate=2), halves), run(constant, means))
    # Nothing moves before an update is whole.
    close(run(dataclasses.replace(constant, accumulate=2), halves[:1]), PARAMS)


def test_accumulation_keeps_the_schedule_of_steps():
    options = OptimOptions(
        learning_rate=0.1, accumulate=2, warmup_steps=4, total_steps=8, weight_decay=0, clip_norm=0
    )
    ones = jax.tree.map(jnp.ones_like, PARAMS)  # so that Adam moves by the learning rate
    rates = [float(optim.learning_rate(options, step)) for step in range(8)]
    moved = jax.tree.map(lambda x, y: x - y, PARAMS, run(options, [ones] * 4))
    close(moved, jax.tree.map(lambda x: x * (rates[0] + rates[2]), ones), 1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "step"}, "schedule = 'step': expected linear, cosine, constant"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0: expected more than 0"),
        ({"warmup_steps": 9, "total_steps": 8}, "warmup_steps = 9: expected at most total_steps"),
        ({"ema": 1.0}, "ema = 1.0: expected"),
        ({"floor": 1.5}, "floor = 1.5: expected"),
        ({"accumulate": 0}, "accumulate = 0: expected at least 1"),
    ],
)
def test_wrong_options_say_what_was_expected(values, message):
    with pytest.raises(ValueError, match=message):
        OptimOptions(**values)
