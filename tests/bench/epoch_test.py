import pathlib
import re

import numpy as np

from jaxcoder.bench import __main__ as bench
from jaxcoder.bench import epoch
from jaxcoder.bench.epoch import Side

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "demo.py"
OPTIONS = {
    "records.options.patients": 20,
    "tokens.serialise.max_tokens": 1024,  # few documents are cut, and lengths differ
    "tokens.serialise.sections": ("notes",),
    "tokens.tokenizer.vocab_size": 500,
    "batches.tokens": 8 * 128,
    "batches.row_multiple": 8,  # as many devices
    "batches.max_buckets": 6,
    "model.encoder.width": 16,
    "model.encoder.heads": 2,
    "model.encoder.feedforward": 32,
}


def test_both_sides_see_every_contact_and_ours_less_padding(tmp_path, capsys):
    options = {**OPTIONS, "data_dir": tmp_path}
    flags = [f"--config.{key}={value}" for key, value in options.items()]
    bench.main(["epoch", f"--config={CONFIG}", "--batch=4", *flags])
    out = capsys.readouterr().out
    rows = re.findall(r"^(JAX|torch).*? +([\d,]+) +\S+ +\S+ +(\S+)% +(\S+)$", out, re.M)
    (ours, real, padding, _), (theirs, other_real, other_padding, to_itself) = rows
    assert (ours, theirs, float(to_itself)) == ("JAX", "torch", 1.0)
    assert real == other_real and float(padding) < float(other_padding)


def test_turns_take_each_batch_once(monkeypatch):
    monkeypatch.setattr(epoch, "_TURN", 5)
    batches = [{"length": np.array([2]), "tokens": np.zeros((1, 3)), "n": n} for n in range(4)]
    taken = []
    side = Side(lambda batch: taken.append(batch["n"]), iter(batches))
    assert side.turn() and taken == [0, 1, 2]
    assert side.turn() and taken == [0, 1, 2, 3]
    assert not side.turn() and (side.real, side.computed) == (8, 12)
