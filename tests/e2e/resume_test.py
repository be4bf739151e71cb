"""A run that is killed without warning and started again ends where an uninterrupted run ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

_ROOT = Path(__file__).parents[2]
_STEPS = 24
_OPTIONS = {
    "data_dir": "data",
    "records.options.patients": 60,
    "tokens.tokenizer.vocab_size": 500,
    "batches.tokens": 0,
    "batches.documents": 4,
    "batches.max_buckets": 2,
    "model.encoder.width": 16,
    "model.encoder.feedforward": 32,
    "model.encoder.heads": 2,
    "optim.ema": 0.9,
    "train.total": f"{_STEPS} steps",
    "train.evaluate_every": "8 steps",
    "train.checkpoint_every": "4 steps",
    "train.log_every": "2 steps",
}


def _command(workdir):
    options = [f"--config.{key}={value}" for key, value in _OPTIONS.items()]
    config = str(_ROOT / "configs/demo.py")
    arguments = ["--config", config, "--workdir", str(workdir), *options]
    return [sys.executable, "-m", "jaxcoder.train", *arguments]


def _environment():
    # One device: what is compared is going on and not going on, not sharding.
    return os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(_ROOT)}


def _lines(workdir):
    path = workdir / "train_metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _coder(workdir, step):
    return ocp.StandardCheckpointer().restore(workdir / "checkpoints" / str(step) / "coder")


@pytest.mark.slow
def test_killed_and_started_again_equals_uninterrupted(tmp_path):
    def run(workdir):
        subprocess.run(
            _command(workdir), cwd=tmp_path, env=_environment(), check=True, capture_output=True
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole)

    process = subprocess.Popen(_command(killed), cwd=tmp_path, env=_environment())
    # Between two checkpoints, so that steps are lost and done again.
    while not any(line["step"] >= 10 for line in _lines(killed)):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = [int(path.name) for path in (killed / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved and max(saved) < _STEPS
    run(killed)

    jax.tree.map(np.testing.assert_array_equal, _coder(whole, _STEPS), _coder(killed, _STEPS))
    for one, other in zip(_lines(whole), _lines(killed), strict=True):
        rates = {"train/documents_per_second", "train/tokens_per_second"}
        # A window of the log that the kill cut holds fewer steps the second time: compare what is
        # computed at one step.
        keys = {"step"} | {key for key in one if key.startswith("validation/")}
        assert {key: one[key] for key in keys} == {key: other[key] for key in keys}
        assert one.keys() == other.keys() and (rates <= one.keys() or "validation/map" in one)
