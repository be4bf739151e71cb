import functools
import re

import jax
import numpy as np
import pytest

from jaxcoder.bench import __main__ as bench
from jaxcoder.bench import torch_step, train_step
from jaxcoder.errors import UserError
from jaxcoder.models import coder
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.optim import OptimOptions

SIZES = ["--width=16", "--layers=2", "--heads=2", "--feedforward=32", "--window=16"]
SIZES += ["--tokens=32", "--shortest=8", "--batch=8", "--labels=40", "--steps=2"]


def test_both_sides_take_the_same_steps(capsys):
    bench.main(["train_step", *SIZES, "--against=torch", "--modes", "eager", "accumulated"])
    out = capsys.readouterr().out
    rows = re.findall(r"^(JAX|torch \w+) +\S+ +\S+ +\S+% +(\S+) +\S+ +- +(\S+)$", out, re.M)
    assert [name for name, _, _ in rows] == ["JAX", "torch eager", "torch accumulated"]
    losses = [float(loss) for _, _, loss in rows]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3) and losses[0] > 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--labels=8"], "--labels 8: expected at least the 16 of a document"),
        (["--shortest=33"], "--shortest 33: expected 0 to --tokens 32"),
    ],
)
def test_sizes_that_no_batch_can_have(flags, message):
    with pytest.raises(UserError, match=message):
        bench.main(["train_step", *SIZES, *flags])


def test_accumulation_updates_after_so_many_documents(monkeypatch):
    monkeypatch.setattr(torch_step, "ACCUMULATED", 3)
    encoder = EncoderOptions(
        width=16, layers=1, heads=2, feedforward=32, window=16, vocab_size=50, dropout=0.0
    )
    options = CoderOptions(encoder, HeadOptions(num_labels=20))
    params = jax.tree.map(np.asarray, coder.init(options, jax.random.key(0)))
    batch = train_step.made_up(options, 7, 8, 32, 0)
    batch["_mask"][5] = False  # no document: 6 are left, 2 updates
    optim = OptimOptions(learning_rate=0.05, schedule="constant")
    make = functools.partial(torch_step.make_step, options, params, optim)
    parts = [{key: each[rows] for key, each in batch.items()} for rows in ([0, 1, 2], [3, 4, 6])]
    step = make("eager")
    losses = [step(part) for part in parts]
    assert losses[1] != pytest.approx(make("eager")(parts[1]), rel=1e-2), "the first update tells"
    assert make("accumulated")(batch) == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_flops_are_those_that_xla_counts_but_for_what_is_no_product(family):
    """Of the forward pass, a third of the step; windows and local attention as small as can be."""
    encoder = EncoderOptions(
        family=family,
        width=64,
        layers=2,
        heads=2,
        feedforward=128,
        window=32,
        global_every=1,
        vocab_size=50,
        unroll=2,
    )
    options = CoderOptions(encoder, HeadOptions(num_labels=300, chunk=300))
    params = jax.eval_shape(lambda key: coder.init(options, key), jax.random.key(0))
    tokens, lengths = np.zeros((2, 32), np.int32), np.full(2, 32, np.int32)

    def logits(params):
        return coder.apply(options, params, tokens, lengths)[0]

    counted = jax.jit(logits).lower(params).compile().cost_analysis()["flops"]
    assert train_step.flops(options, 2, 32) / 3 == pytest.approx(counted, rel=0.1)
