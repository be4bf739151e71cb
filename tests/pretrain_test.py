"""`jaxcoder pretrain` as a user meets it, on the notes of a synthetic cohort."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from jaxcoder import cli, distributed, experiment, hub, pretrain, pretrained
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import UserError
from jaxcoder.experiment import PretrainExperiment

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "pretrain_codiesp.py"
OPTIONS = {
    "records.source": "synthetic",
    "records.options": {"patients": 20},
    "tokens.serialise.max_tokens": 384,
    "tokens.tokenizer.splits": ("train",),
    "tokens.tokenizer.vocab_size": 400,
    "packing.splits": ("train",),
    "packing.rows": 8,
    "model.encoder.width": 16,
    "model.encoder.heads": 2,
    "model.encoder.feedforward": 32,
    "model.encoder.window": 64,
    "optim.learning_rate": 1e-2,
    "train.total": "24 steps",
    "train.evaluate_every": "8 steps",
    "train.checkpoint_every": "2 steps",
    "train.log_every": "1 step",
}


def arguments(folder, workdir, **options):
    options = {"data_dir": folder / "data", **OPTIONS, **options}
    flags = [f"--config.{key}={value}" for key, value in options.items()]
    return ["pretrain", f"--config={CONFIG}", f"--workdir={folder / workdir}", *flags]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quickly_compiled):
    return tmp_path_factory.mktemp("pretrain")


@pytest.fixture
def command(folder, capsys):
    """Runs `jaxcoder pretrain`; returns its exit status, and what it printed and complained of."""

    def run(workdir, **options):
        status = 0
        try:
            cli.main(arguments(folder, workdir, **options))
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def done(folder, command):
    """A run to its end, made by the first test that wants it."""
    if not (folder / "run").exists():
        status, out, err = command("run")
        assert status == 0, err
        (folder / "out").write_text(out)
    return folder / "run"


def lines(workdir):
    """What train_metrics.jsonl says, but for speed."""
    rows = map(json.loads, (workdir / "train_metrics.jsonl").read_text().splitlines())
    return [
        {k: v for k, v in row.items() if not k.endswith(("_per_second", "waiting_share"))}
        for row in rows
    ]


def weights(workdir):
    return safetensors.numpy.load((workdir / "encoder" / "model.safetensors").read_bytes())


def test_a_run_learns_and_leaves_an_encoder(done, folder):
    validation = [row for row in lines(done) if "validation/loss" in row]
    assert [row["step"] for row in validation] == [8, 16, 24]
    first, *_, last = validation
    assert last["validation/loss"] < first["validation/loss"] < np.log(400)
    assert last["validation/masked_accuracy"] > 0.03
    assert first["validation/masked_tokens"] == last["validation/masked_tokens"] > 1000
    train = [row for row in lines(done) if "train/loss" in row]
    # Rows of 64 tokens, in which a word has up to five: the last one often does not fit.
    assert 0.25 < np.mean([row["train/masked_share"] for row in train]) < 0.3
    assert np.mean([row["train/padding_share"] for row in train]) < 0.1
    config, array_file = (done / "encoder" / name for name in (hub.CONFIG, hub.WEIGHTS))
    assert config.stat().st_mtime_ns < array_file.stat().st_mtime_ns, "a better one: weights alone"
    out = (folder / "out").read_text()
    assert "24 of 24 steps, best at step 24 (loss " in out and "tokens/s" in out
    assert f"masked accuracy {last['validation/masked_accuracy']:.4f} on validation" in out


def test_its_encoder_starts_a_coder_and_more_pretraining(done, folder, command):
    encoder = done / "encoder"
    options = pretrained.options_of(str(encoder))
    assert (options.width, options.window, options.convolution) == (16, 64, 3)
    before = lines(done)[-1]["validation/loss"]
    # No learning to speak of: what it says of held-out text is what the first run said last.
    more = {"model.encoder.init": encoder, "optim.learning_rate": 1e-30, "train.total": "2 steps"}
    status, _, err = command("more", **more)
    assert status == 0, err
    assert lines(folder / "more")[-1]["validation/loss"] == pytest.approx(before, abs=1e-4)
    # The tokenizer came with it.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        kept = (folder / "more" / "tokenizer" / name).read_bytes()
        assert kept == (encoder / name).read_bytes()


def test_a_run_told_to_end_at_its_last_step_saves_first_and_evaluates_when_it_goes_on(
    done, folder, command, monkeypatch
):
    workdir = folder / "told"
    with monkeypatch.context() as patch:
        patch.setattr(distributed.Preemption, "reached", lambda self, step: step == 24)
        status, out, _ = command(workdir)
    assert status == 0 and "told to end, saved at step 24 of 24" in out
    assert "validation/loss" not in lines(workdir)[-1]
    assert command(workdir)[0] == 0
    for ours, expected in zip(lines(workdir), lines(done), strict=True):
        assert ours == pytest.approx(expected, rel=1e-5)
    for name, array in weights(done).items():
        np.testing.assert_allclose(weights(workdir)[name], array, atol=1e-5)
    assert Checkpoints(workdir / "checkpoints", read_only=True).step("best") == 24
    assert (workdir / "finished.json").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(done, folder):
    """Killed with -9 soon after its second checkpoint; same masks, batches and weights."""
    process = [sys.executable, "-m", "jaxcoder.cli", *arguments(folder, "killed")]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    running = subprocess.Popen(process, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    checkpoints = folder / "killed" / "checkpoints"
    while not any(path.name.isdigit() and int(path.name) >= 4 for path in checkpoints.glob("*")):
        assert running.poll() is None, "it ended by itself"
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    before = (folder / "killed" / "train_metrics.jsonl").stat().st_size
    subprocess.run(process, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert before < (folder / "killed" / "train_metrics.jsonl").stat().st_size
    for ours, expected in zip(lines(folder / "killed"), lines(done), strict=True):
        assert ours == pytest.approx(expected, rel=1e-5)
    for name, array in weights(done).items():
        np.testing.assert_allclose(weights(folder / "killed")[name], array, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"packing.rows": 12}, "config.packing.rows = 12: 8 devices do not divide it"),
        ({"packing.length": 32}, "bert reads windows of config.model.encoder.window = 64 tokens"),
        ({"packing.held_out": "background"}, "has train, validation"),
        ({"tokens.tokenizer.splits": ("train", "test")}, "none of those that are scored"),
        ({"packing.splits": ("train", "background")}, "expected what is pretrained on"),
        ({"packing.splits": ("train", "test")}, "config.packing: splits = ['train', 'test']: exp"),
        ({"tokens.serialise.sections": ("labs",), "masking.rate": 1.5}, "rate = 1.5"),
    ],
)
def test_a_mistake_is_one_line_and_begins_no_run(folder, command, options, message):
    workdir = folder / next(iter(options))
    status, _, err = command(workdir, **options)
    assert status == 2
    assert err.count("jaxcoder pretrain: error:") == 1 and message in err.splitlines()[-1]
    assert not workdir.exists()


def test_a_run_that_diverges_ends_and_leaves_no_encoder(folder, command):
    options = {"optim.learning_rate": 1e30, "train.total": "3 steps", "train.warmup": "1 step"}
    status, _, err = command("diverged", **options)
    assert status == 2
    assert "step 2: loss nan" in err and "lower config.optim.learning_rate" in err
    assert not (folder / "diverged" / "encoder").exists()


def test_text_too_short_to_hide_anything_decides_nothing():
    with pytest.raises(UserError, match="config.packing.held_out = 'validation': of so little"):
        pretrain._check({"masked_tokens": 0.0, "loss": 0.0}, "validation")


def test_runs_of_two_kinds_do_not_share_a_workdir(done, folder, command, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", f"--config={ROOT / 'configs/demo.py'}", f"--workdir={done}"])
    expected = "config.json: is not of a run of `jaxcoder train`; choose another --workdir"
    assert expected in capsys.readouterr().err
    shutil.copytree(done, folder / "coder")
    content = json.loads((folder / "coder" / "config.json").read_text())
    del content["packing"]
    (folder / "coder" / "config.json").write_text(json.dumps(content))
    status, _, err = command("coder")
    assert status == 2 and "is not of a run of `jaxcoder pretrain`" in err


def test_an_experiment_of_the_other_command_is_named(folder, capsys):
    for command, config, message in (
        ("train", "pretrain_codiesp", "this experiment is one of `jaxcoder pretrain`"),
        ("pretrain", "demo", "this experiment is one of `jaxcoder train`"),
    ):
        with pytest.raises(SystemExit):
            path = ROOT / "configs" / f"{config}.py"
            cli.main([command, f"--config={path}", f"--workdir={folder / 'none'}"])
        assert message in capsys.readouterr().err


def test_the_tokenizer_is_of_the_splits_that_are_pretrained_on():
    config = {"packing": {"splits": ["train", "background"]}}
    with pytest.raises(Exception, match=r"tokens.tokenizer.splits = \['train'\]: expected what"):
        experiment.read(config, PretrainExperiment)
    experiment.read(config | {"tokens": {"tokenizer": {"path": "FOLDER"}}}, PretrainExperiment)
