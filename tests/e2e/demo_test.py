"""The demo, shrunk: train, be killed, go on, evaluate, predict, each as a user runs it."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import polars
import pytest

from jaxcoder.metrics.summary import KEYS

pytestmark = pytest.mark.slow

_ROOT = pathlib.Path(__file__).parents[2]
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


def _start(folder, command, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", f"jaxcoder.{command}", *map(str, arguments)],
        cwd=folder,
        # One device: the mesh has tests of its own.
        env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run(folder, command, *arguments):
    process = _start(folder, command, *arguments)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def _training(workdir):
    options = [f"--config.{key}={value}" for key, value in _OPTIONS.items()]
    return "--config", _ROOT / "configs/demo.py", "--workdir", workdir, *options


def _lines(workdir):
    path = workdir / "train_metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _coder(workdir, step):
    return ocp.StandardCheckpointer().restore(workdir / "checkpoints" / str(step) / "coder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `data/` and the finished run `whole/`."""
    path = tmp_path_factory.mktemp("demo")
    out = _run(path, "train", *_training(path / "whole"))
    assert f"{_STEPS} of {_STEPS} steps" in out
    return path


def test_killed_and_started_again_equals_uninterrupted(folder):
    whole, killed = folder / "whole", folder / "killed"
    process = _start(folder, "train", *_training(killed))
    # Between two checkpoints, so that steps are lost and done again.
    while not any(line["step"] >= 10 for line in _lines(killed)):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    saved = [int(path.name) for path in (killed / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved and max(saved) < _STEPS
    _run(folder, "train", *_training(killed))

    jax.tree.map(np.testing.assert_array_equal, _coder(whole, _STEPS), _coder(killed, _STEPS))
    for one, other in zip(_lines(whole), _lines(killed), strict=True):
        assert one.keys() == other.keys()
        # Rates differ from run to run, and the first line after going on averages fewer steps.
        keys = {"step"} | {key for key in one if key.startswith("validation/")}
        assert {key: one[key] for key in keys} == {key: other[key] for key in keys}


def test_evaluate_leaves_what_the_design_promises(folder):
    out = _run(folder, "evaluate", "--workdir", "whole", "--split", "test")
    assert "micro_f1" in out and "ceiling" in out
    results = folder / "whole" / "eval" / "test"
    metrics = json.loads((results / "metrics.json").read_text())
    assert set(KEYS) <= metrics.keys()
    assert 0 < metrics["threshold"] < 1
    predictions = polars.read_parquet(results / "predictions.parquet")
    assert len(predictions) == metrics["num_contacts"]
    with (results / "groups.csv").open() as file:
        groups = list(csv.DictReader(file))
    for grouping in ("all", "specialty", "sex", "age", "kind", "year", "notes", "tokens"):
        mine = [int(row["contacts"]) for row in groups if row["grouping"] == grouping]
        assert sum(mine) == metrics["num_contacts"]
    assert float(groups[0]["micro_f1"]) == pytest.approx(metrics["micro_f1"], rel=1e-5)
    for name in ("codes.csv", "roles.csv", "granularity.csv", "contacts.parquet", "details.json"):
        assert (results / name).exists()


def test_predict_needs_no_labels(folder):
    contacts = folder / "contacts.jsonl"
    lines = [{"contact_id": f"c{i}", "text": "Admitted with chest pain."} for i in range(3)]
    contacts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _run(folder, "predict", "--workdir", "whole", "--input", contacts, "--output", "out.jsonl")
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["contact_id"] for row in rows] == ["c0", "c1", "c2"]
    first = [code["probability"] for code in rows[0]["codes"]]
    assert len(first) >= 15 and first == sorted(first, reverse=True)
    # The same text in another row of the batch: the same codes.
    assert [c["code"] for c in rows[0]["codes"]] == [c["code"] for c in rows[2]["codes"]]


def test_a_trained_run_can_be_fused_later(folder):
    shutil.copytree(folder / "whole", folder / "fused")
    _run(folder, "train", *_training(folder / "fused"), "--config.fusion.enabled=True")
    assert (folder / "fused" / "lexicon.npz").exists()
    out = _run(folder, "evaluate", "--workdir", "fused", "--split", "test")
    assert "with lexicon" in out
    _run(folder, "predict", "--workdir", "fused", "--text", "Admitted with chest pain.")


def test_another_label_space_is_one_clear_line(folder):
    path = folder / "whole" / "label_space.json"
    kept = path.read_text()
    changed = json.loads(kept)
    changed["codes"] = changed["codes"][:-1]
    path.write_text(json.dumps(changed))
    process = _start(folder, "evaluate", "--workdir", "whole", "--split", "test")
    _, err = process.communicate()
    path.write_text(kept)
    assert process.returncode == 2
    assert len(err.strip().splitlines()) == 1 and "label_space.json" in err
