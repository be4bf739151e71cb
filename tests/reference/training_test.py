"""Fifty steps of training take the same way as in PyTorch, from the same weights and batches."""

import functools

import jax
import numpy as np
import pytest
import torch

from jaxcoder import losses, optim, steps
from jaxcoder.models import coder
from jaxcoder.models.encoder import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.objectives import Coding
from tests.reference import coders

B, T, L, STEPS = 4, 20, 21, 50
ENCODER = EncoderOptions(
    vocab_size=60,
    width=32,
    layers=2,
    heads=4,
    feedforward=64,
    window=8,
    token_types=2,
    dropout=0.0,
)
OPTIM = optim.OptimOptions(
    learning_rate=3e-3,
    warmup_steps=10,
    total_steps=STEPS + 10,
    head_multiplier=2.0,
    weight_decay=0.1,
    clip_norm=7.0,
)
# Of the loss; ten times that of the gradient's norm. Seen: 6e-6 and 7e-5, what rounding grows to.
TOLERANCE = 1e-4


def batch(step):
    """Documents of 1 to T tokens; a document has the labels whose token stands in it.

    Token 0 does not occur: BertModel takes it for padding, and never learns its row.
    """
    rng = np.random.default_rng(step)
    length = rng.integers(1, T + 1, B).astype(np.int32)
    tokens = rng.integers(1, ENCODER.vocab_size, (B, T)).astype(np.int32)
    labels = np.full((B, T), -1, np.int32)
    for row in range(B):
        found = np.unique(tokens[row, : length[row]])
        found = found[found <= L] - 1
        labels[row, : len(found)] = found
    return {"tokens": tokens, "length": length, "labels": labels, "_mask": np.arange(B) < 3}


def in_jax(options, params):
    """Losses and gradient norms, before clipping, of each step."""
    objective = Coding(options, losses.LossOptions())
    state = steps.init_state(objective, OPTIM, 0).replace(params=params)
    step = jax.jit(functools.partial(steps.train_step, objective=objective, optimiser=OPTIM))
    history = []
    for number in range(STEPS):
        state, metrics = step(state, batch(number))
        history.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    return np.array(history)


def in_torch(options, weights):
    """The same in PyTorch."""
    model = coders.Coder(options)
    model.load_state_dict(weights)
    groups = {}
    for name, weight in model.named_parameters():
        spared = name.endswith(".bias") or "norm" in name.lower() or "position" in name
        decay = 0.0 if spared or "token_type" in name else OPTIM.weight_decay
        rate = OPTIM.learning_rate * (OPTIM.head_multiplier if name.startswith("head.") else 1)
        groups.setdefault((rate, decay), []).append(weight)
    optimiser = torch.optim.AdamW(
        [
            {"params": weights, "lr": rate, "weight_decay": decay}
            for (rate, decay), weights in groups.items()
        ],
        betas=(OPTIM.b1, OPTIM.b2),
        eps=OPTIM.eps,
    )
    warmup, total = OPTIM.warmup_steps, OPTIM.total_steps
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min((step + 1) / warmup, (total - step) / (total - warmup)),
    )
    history = []
    for number in range(STEPS):
        each = batch(number)
        targets = torch.zeros(B, L)
        for row, labels in enumerate(each["labels"]):
            targets[row, labels[labels >= 0]] = 1
        real = np.flatnonzero(each["_mask"])
        logits = torch.stack(
            [model(torch.tensor(each["tokens"][row, : each["length"][row]])) for row in real]
        )
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets[real], reduction="sum"
        ) / len(real)
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIM.clip_norm)
        optimiser.step()
        schedule.step()
        history.append((loss.item(), norm.item()))
    return np.array(history)


@pytest.mark.parametrize("kind", coders.HEADS)
def test_fifty_steps_are_those_of_pytorch(kind):
    options = coder.CoderOptions(ENCODER, HeadOptions(kind=kind, num_labels=L, width=24, chunk=8))
    params = coder.init(options, jax.random.key(0))
    ours = in_jax(options, params)
    theirs = in_torch(options, coders.coder_weights(params, options))
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=TOLERANCE)
    np.testing.assert_allclose(ours[:, 1], theirs[:, 1], rtol=10 * TOLERANCE)
    # The comparison means something: some gradients were clipped, and the coder learnt.
    assert 0.1 < np.mean(ours[:, 1] > OPTIM.clip_norm) < 0.9
    assert np.mean(ours[-10:, 0]) < 0.7 * ours[0, 0]
