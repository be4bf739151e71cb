"""What a user of train meets: early stopping, going on, refusals that leave a run as it was."""

import json
import pathlib
import shutil

import jax
import pytest

from jaxcoder import cli, distributed, experiment, train
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.errors import UserError

CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "demo.py"
OPTIONS = {
    "records.options.patients": 20,
    "tokens.serialise.max_tokens": 64,
    "tokens.mini_tokens": 0,
    "tokens.serialise.sections": ("notes",),
    "tokens.tokenizer.vocab_size": 300,
    "batches.tokens": 0,
    "batches.documents": 8,
    "batches.max_buckets": 1,
    "model.encoder.width": 8,
    "model.encoder.heads": 2,
    "model.encoder.layers": 0,
    "model.encoder.convolution": 0,
    "model.encoder.window": 16,
    # So small that no evaluation is better than the first.
    "optim.learning_rate": 1e-30,
    "train.total": "20 steps",
    "train.evaluate_every": "2 steps",
    "train.log_every": "5 steps",
    "train.patience": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quickly_compiled):
    return tmp_path_factory.mktemp("train")


@pytest.fixture
def command(folder, capsys):
    """Runs `jaxcoder train`; returns its exit status, and what it printed and complained of."""

    def run(workdir, *more, **options):
        options = {"data_dir": folder / "data", **OPTIONS, **options}
        flags = [*(f"--config.{key}={value}" for key, value in options.items()), *more]
        status = 0
        try:
            cli.main(["train", f"--config={CONFIG}", f"--workdir={folder / workdir}", *flags])
        except SystemExit as ended:
            status = ended.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def stopped(folder, command):
    """A run that stopped early, made by the first test that wants it."""
    if not (folder / "run").exists():
        assert command("run")[0] == 0
    return folder / "run"


def lines(workdir):
    return [json.loads(line) for line in (workdir / "train_metrics.jsonl").read_text().splitlines()]


def state(workdir):
    """Name, content and time of every file but checkpoints' and curves' own."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in workdir.iterdir()
        if path.is_file()
    }


def test_a_run_that_no_longer_improves_stops_and_keeps_its_best_checkpoint(stopped, command):
    status, out, _ = command("run")  # started again it has nothing to do, and says the same
    assert status == 0
    assert "6 of 20 steps (2 evaluations without improvement end a run), best at step 2" in out
    kept = {path.name for path in (stopped / "checkpoints").iterdir() if path.name.isdigit()}
    assert kept == {"2", "6"}
    validated = [line for line in lines(stopped) if "validation/micro_f1" in line]
    assert [line["step"] for line in validated] == [2, 4, 6]
    assert len({line["validation/micro_f1"] for line in validated}) == 1


def test_a_trace_is_left_where_one_is_wanted(stopped, command, folder):
    assert not (stopped / "profile").exists()
    assert command("traced", "--profile_steps=2", **{"train.total": "4 steps"})[0] == 0
    assert len(list((folder / "traced" / "profile").rglob("*.xplane.pb"))) == 1
    logged = [line for line in lines(folder / "traced") if "train/loss" in line]
    shares = [line["train/waiting_share"] for line in logged]
    assert shares and all(0 <= share < 1 for share in shares)


def test_more_patience_goes_on_where_the_run_stopped(stopped, command, folder):
    shutil.copytree(stopped, folder / "patient")
    assert command("patient", **{"train.patience": 3})[0] == 0
    steps = [line["step"] for line in lines(folder / "patient") if "validation/micro_f1" in line]
    assert steps == [2, 4, 6, 8]


def untimed(workdir):
    """What train_metrics.jsonl says, but for speed."""
    return [
        {
            name: value
            for name, value in line.items()
            if not name.endswith(("_per_second", "waiting_share"))
        }
        for line in lines(workdir)
    ]


@pytest.mark.parametrize("told", [2, 4, 6])  # the best step, one between, the last one
def test_a_run_told_to_end_at_an_evaluation_saves_first_and_evaluates_when_it_goes_on(
    stopped, command, folder, monkeypatch, told
):
    workdir, name = folder / f"told_{told}", f"told_{told}"
    with monkeypatch.context() as patch:
        patch.setattr(distributed.Preemption, "reached", lambda self, step: step == told)
        status, out, _ = command(name)
    assert status == 0 and f"told to end, saved at step {told} of 20" in out
    assert untimed(workdir) == untimed(stopped)[: len(untimed(workdir))]
    assert "validation/micro_f1" not in lines(workdir)[-1]
    assert not (workdir / "finished.json").exists()
    # Killed after the evaluation was written to the log, before the checkpoint heard of it.
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "amend", killed)
        with pytest.raises(RuntimeError, match="killed"):
            command(name)
    assert untimed(workdir) == untimed(stopped)[: len(untimed(workdir))]
    assert command(name)[0] == 0
    assert untimed(workdir) == untimed(stopped) and (workdir / "finished.json").exists()
    ours, expected = (
        Checkpoints(run / "checkpoints", read_only=True) for run in (workdir, stopped)
    )
    assert [ours.step(which) for which in ("best", "last")] == [2, 6]
    assert ours.progress(6) == expected.progress(6)


def killed(*_):
    raise RuntimeError("killed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train.metric": "map"}, "best checkpoint was chosen by 'micro_f1'; set it back"),
        ({"model.encoder.width": 16}, "config.model.encoder.width = 16: this workdir was trained"),
        ({"tokens.labels.min_count": 3}, "train in a new workdir"),
    ],
)
def test_a_run_that_cannot_go_on_so_is_left_as_it_was(stopped, command, options, message):
    before = state(stopped)
    status, _, err = command("run", **options)
    assert status == 2
    assert message in err.splitlines()[-1]
    assert state(stopped) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mesh.tensor": 3}, "config.mesh: mesh = (-1, 1, 3): expected sizes"),
        ({"mesh.tensor": 4, "model.encoder.layers": 1}, "config.model: "),
        ({"train.metric": "micro_f2"}, "metric = 'micro_f2': expected one of micro_f1, "),
        ({"batches.documents": 12}, "config.batches.documents = 12: gives 12 rows of 64 tokens"),
        ({"tokens.silver.enabled": False, "fusion.enabled": True}, "no silver evidence"),
    ],
)
def test_a_mistake_is_one_line_and_begins_no_run(folder, command, options, message):
    workdir = folder / next(iter(options))
    status, _, err = command(workdir, **options)
    assert status == 2
    assert err.count("jaxcoder train: error:") == 1 and message in err.splitlines()[-1]
    assert not workdir.exists()


def test_on_a_pod_what_is_missing_is_named_with_the_command_that_builds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    options = experiment.read({"data_dir": str(tmp_path), "records": {"options": {"patients": 3}}})
    with pytest.raises(
        UserError, match="no such contact records; run `jaxcoder tokens --config CONFIG"
    ):
        train.prepare(options)
    assert not list(tmp_path.iterdir()), "no process of a pod builds"
