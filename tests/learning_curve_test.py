"""Runs of rising shares: real ones, in this process."""

import csv

import pytest
from etils import epath

from jaxcoder import cli, learning_curve
from jaxcoder.errors import UserError
from jaxcoder.workdir import Workdir

pytestmark = pytest.mark.usefixtures("quickly_compiled")

OPTIONS = {
    "records.options.patients": 60,
    "tokens.serialise.max_tokens": 128,
    "tokens.tokenizer.vocab_size": 500,
    "tokens.silver.enabled": False,
    "batches.tokens": 2048,
    "batches.max_buckets": 1,
    "model.encoder.width": 16,
    "model.encoder.feedforward": 32,
    "train.total": "3 steps",
}


@pytest.fixture
def commands(monkeypatch):
    """What was run, in the order of it."""
    seen = []

    def run(*words):
        seen.append((words[0], str(words[words.index("--workdir") + 1]).rpartition("/")[2]))
        cli.main(list(map(str, words)))

    monkeypatch.setattr(learning_curve, "_run", run)
    return seen


def test_each_share_is_trained_and_evaluated_once(commands, tmp_path, capsys):
    flags = [f"--config.{key}={value}" for key, value in OPTIONS.items()]
    arguments = ["--config=configs/demo.py", f"--workdir={tmp_path / 'curve'}"]
    arguments += [*flags, f"--config.data_dir={tmp_path / 'data'}"]
    learning_curve.main([*arguments, "--shares=0.3"])
    learning_curve.main([*arguments, "--shares=1,0.3"])
    assert commands == [("train", "0.3"), ("evaluate", "0.3"), ("train", "1"), ("evaluate", "1")]
    with pytest.raises(UserError, match="begun with options .*, now .*learning_rate=1.*another"):
        learning_curve.main([*arguments, "--shares=1", "--config.optim.learning_rate=1"])
    with (tmp_path / "curve" / "learning_curve.csv").open() as file:
        small, whole = csv.DictReader(file)
    assert tuple(small) == learning_curve.COLUMNS
    assert (small["share"], whole["share"]) == ("0.3", "1")
    for row, share in ((small, "0.3"), (whole, "1")):
        data = Workdir(tmp_path / "curve" / share).open_tokens()
        people = {each["patient_id"] for each in data.split("train")}
        assert int(row["patients"]) == len(people)
        assert int(row["contacts"]) == len(data.split("train"))
        assert int(row["labels"]) == len(data.label_space)
    assert int(small["patients"]) < int(whole["patients"]) / 2
    assert "recall_at_10" in capsys.readouterr().out


@pytest.mark.parametrize("shares", ["0,1", "0.5,2", "half", ""])
def test_shares_that_make_no_sense(shares):
    with pytest.raises(UserError, match="expected shares in"):
        learning_curve.read_shares(shares)


def test_only_keys_of_the_config_go_to_train(tmp_path):
    with pytest.raises(UserError, match="--epochs=3: unexpected argument"):
        learning_curve.main(["--config=configs/demo.py", f"--workdir={tmp_path}", "--epochs=3"])


def test_a_mistake_before_the_first_share_has_begun_is_not_kept(tmp_path):
    learning_curve._same(tmp_path, "configs/demo.py", ["--config.no.such=1"])
    learning_curve._same(tmp_path, "configs/demo.py", [])
    (tmp_path / "0.1").mkdir()
    (tmp_path / "0.1" / "config.json").write_text("{}")
    learning_curve._same(tmp_path, "configs/demo.py", [])
    with pytest.raises(UserError, match="begun with --config configs/demo.py, now other.py"):
        learning_curve._same(tmp_path, "other.py", [])


@pytest.mark.parametrize("content", ['{"conf', "{}", ""])
def test_what_it_was_begun_with_was_cut(tmp_path, content):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "config.json").write_text("{}")
    (tmp_path / "learning_curve.json").write_text(content)
    with pytest.raises(UserError, match=r"learning_curve.json: cannot be read; .* delete it"):
        learning_curve._same(tmp_path, "configs/demo.py", [])


def test_counts_are_written_whole(tmp_path):
    row = dict.fromkeys(learning_curve.COLUMNS, 0.123456789) | {"patients": 5_800_123}
    learning_curve.write(epath.Path(tmp_path / "curve.csv"), [row])
    (read,) = csv.DictReader((tmp_path / "curve.csv").read_text().splitlines())
    assert (read["patients"], read["map"]) == ("5800123", "0.123457")
