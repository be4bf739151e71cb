"""Prediction with a tiny random coder, whose workdir is made on the spot."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxcoder import cli, experiment, predict, sharding, steps, trained
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.fusion import Weights
from jaxcoder.progress import Progress
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import Contact, Note
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon, EvidenceLexiconOptions
from jaxcoder.tokens.tokenizer import TokenizerOptions, train_tokenizer
from jaxcoder.tuned import Tuned
from jaxcoder.whole_file import write_json
from jaxcoder.workdir import Workdir

WORDS = ["chest", "pain", "fever", "cough", "fracture", "left", "wrist", "diabetes", "metformin"]
CODES = tuple(f"{letter}{number:02}.{number}" for letter in "EIJS" for number in range(6))
CONFIG = {
    "tokens": {"serialise": {"max_tokens": 128}},
    "batches": {"documents": 5},  # which no two devices share: one device, quick to compile
    "model": {
        "encoder": {"width": 16, "layers": 1, "heads": 2, "feedforward": 32, "window": 32},
        "head": {"bias_init": 0.0},
    },
}


@pytest.fixture(scope="session")
def trained_workdir(tmp_path_factory):
    workdir = Workdir(tmp_path_factory.mktemp("run"))
    space = LabelSpace(CODES, tuple(f"disease {code}" for code in CODES))
    space.save(workdir.label_space)
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, TokenizerOptions(vocab_size=300))
    tokenizer.save(workdir.tokenizer)
    write_json(workdir.config, CONFIG)
    options = experiment.read(CONFIG)
    model = experiment.fitted_model(options, tokenizer.vocab_size, tokenizer.pad_id, len(space))
    jitted = steps.make_steps(
        sharding.make_mesh(devices=jax.devices()[:1]), model, options.loss, options.optim
    )
    # Weights large enough for contacts to differ.
    params = jax.tree.map(lambda x: x * 5, jitted.evaluation_params(jitted.init(0)))
    checkpoints = Checkpoints(workdir.checkpoints)
    progress = Progress(step=3, label_space=space.hash, best_value=0.1, best_step=3, threshold=0.5)
    checkpoints.save(progress, {"coder": params})
    checkpoints.close()
    return workdir


def contact_line(number: int, words: int) -> str:
    rng = np.random.default_rng(number)
    text = " ".join(rng.choice(WORDS, words))
    return json.dumps({"contact_id": f"contact-{number}", "text": text})


def command(*arguments: object) -> int:
    """Runs `jaxcoder predict`, returns its exit status."""
    try:
        cli.main(["predict", *map(str, arguments)])
    except SystemExit as exit:
        return exit.code
    return 0


def read_codes(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_in_the_order_of_the_input_and_as_if_alone(trained_workdir, tmp_path, monkeypatch):
    sizes = [3, 60, 1, 30, 500, 2, 12, 45, 7, 1, 90, 33, 5]  # one is longer than max_tokens
    lines = [contact_line(number, size) for number, size in enumerate(sizes)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(predict, "LOOK_AHEAD", 5)
    source, target, alone = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "alone.jsonl"))
    flags = ["--workdir", trained_workdir.path, "--top", 4]
    assert command(*flags, "--input", source, "--output", target) == 0
    found = read_codes(target)
    assert [each["contact_id"] for each in found] == [f"contact-{n}" for n in range(len(sizes))]
    source.write_text(lines[3])
    assert command(*flags, "--input", source, "--output", alone) == 0
    (expected,) = read_codes(alone)
    for one, other in zip(expected["codes"], found[3]["codes"], strict=True):
        assert one["code"] == other["code"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
    assert found[0]["codes"] != found[1]["codes"]


def test_top_codes_in_falling_order_and_every_assigned_one(trained_workdir, tmp_path):
    (tmp_path / "in.jsonl").write_text(contact_line(1, 20))
    flags = ["--workdir", trained_workdir.path, "--input", tmp_path / "in.jsonl"]
    flags += ["--output", tmp_path / "out.jsonl", "--top", 3]

    def codes(*more):
        assert command(*flags, *more) == 0
        return read_codes(tmp_path / "out.jsonl")[0]["codes"]

    everything = codes("--threshold", 0)
    assert len(everything) == len(CODES) and all(code["assigned"] for code in everything)
    probabilities = [code["probability"] for code in everything]
    assert probabilities == sorted(probabilities, reverse=True)
    assert set(everything[0]) == {"code", "description", "probability", "assigned"}
    assert everything[0]["description"] == f"disease {everything[0]['code']}"
    nothing = codes("--threshold", 1)
    assert len(nothing) == 3 and not any(code["assigned"] for code in nothing)
    assert [code["code"] for code in nothing] == [code["code"] for code in everything[:3]]
    between = (probabilities[4] + probabilities[5]) / 2
    assert [code["assigned"] for code in codes("--threshold", between)] == [True] * 5
    own = codes()  # the workdir's threshold is 0.5
    assert [code["assigned"] for code in own] == [p > 0.5 for p in probabilities[: len(own)]]
    assert len(own) == max(3, sum(p > 0.5 for p in probabilities))


def test_a_broken_line_is_named_and_the_rest_predicted(trained_workdir, tmp_path, capsys):
    lines = [contact_line(0, 5), '{"contact_id": "SECRET', "", contact_line(3, 5)]
    lines += ['{"contact_id": "e", "text": " "}', contact_line(5, 5)[:-1] + ', "note": 1}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    status = command(
        *("--workdir", trained_workdir.path, "--input", tmp_path / "in.jsonl"),
        *("--output", tmp_path / "out.jsonl"),
    )
    assert status == 1
    found = [each["contact_id"] for each in read_codes(tmp_path / "out.jsonl")]
    assert found == ["contact-0", "contact-3", "contact-5"]
    first, second, last, ignored = capsys.readouterr().err.strip().splitlines()
    assert "in.jsonl, line 2: not JSON at column 23" in first and "SECRET" not in first
    assert "in.jsonl, line 5: nothing to code" in second
    assert last.startswith("3 contacts predicted") and last.endswith("2 lines left out")
    assert ignored.startswith("1 × note: unknown key (ignored); did you mean notes?, such as ")


def test_a_single_text(trained_workdir, capsys):
    flags = ["--workdir", trained_workdir.path, "--top", 2]
    assert command(*flags, "--text", "fever and cough") == 0
    printed = capsys.readouterr().out
    assert "disease" in printed and "fever" not in printed
    assert command(*flags, "--text", " ") == 2
    assert "--text is empty" in capsys.readouterr().err


def test_what_fails_midway_leaves_no_output(trained_workdir, tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text(contact_line(0, 5))
    (tmp_path / "out.jsonl").write_text("of before")

    def fail(*_):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(predict, "_probabilities", fail)
    with pytest.raises(RuntimeError):
        command(
            *("--workdir", trained_workdir.path, "--input", tmp_path / "in.jsonl"),
            *("--output", tmp_path / "out.jsonl"),
        )
    assert (tmp_path / "out.jsonl").read_text() == "of before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere.jsonl", "--output", "x"], "nowhere.jsonl: not found"),
        (["--input", "nowhere.jsonl"], "--output is missing"),
        ([], "expected either --text TEXT or --input FILE"),
        (["--text", "a", "--threshold", "2"], "expected a probability in [0, 1]"),
        (["--text", "a", "--top", "0"], "--top"),
    ],
)
def test_mistakes_in_the_flags_are_one_line(trained_workdir, capsys, arguments, message):
    assert command("--workdir", trained_workdir.path, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error


def test_a_label_space_of_another_checkpoint_is_refused(trained_workdir, tmp_path, capsys):
    for name in ("config.json", "tokenizer", "checkpoints"):
        (tmp_path / name).symlink_to(trained_workdir.path / name)
    other = LabelSpace((*CODES[:-1], "Z99.9"))
    other.save(tmp_path / "label_space.json")
    assert command("--workdir", tmp_path, "--text", "fever") == 2
    error = capsys.readouterr().err.strip()
    assert other.hash in error and LabelSpace(CODES).hash in error and "\n" not in error


def test_a_workdir_without_checkpoints_is_named(trained_workdir, tmp_path, capsys):
    assert command("--workdir", tmp_path / "nowhere", "--text", "fever") == 2
    assert "config.json: not found" in capsys.readouterr().err
    for name in ("config.json", "tokenizer", "label_space.json"):
        (tmp_path / name).symlink_to(trained_workdir.path / name)
    assert command("--workdir", tmp_path, "--text", "fever") == 2
    assert "no checkpoints here" in capsys.readouterr().err


def test_a_threshold_tuned_since_counts_and_only_for_its_checkpoint(trained_workdir):
    coder = trained.restore(trained_workdir)
    assert (coder.step, coder.threshold, coder.tuned) == (3, 0.5, Tuned(0.5))
    try:
        trained_workdir.tuned.write(Tuned(0.25), 3, 0.2)
        assert trained.restore(trained_workdir).threshold == 0.25
        trained_workdir.tuned.write(Tuned(0.25), 2, 0.2)
        assert trained.restore(trained_workdir).threshold == 0.5
    finally:
        trained_workdir.tuned.threshold.unlink()


def test_a_fused_coder_hears_its_lexicon(trained_workdir, tmp_path, capsys):
    workdir = Workdir(tmp_path / "run")
    workdir.path.mkdir()
    for name in ("tokenizer", "label_space.json", "checkpoints"):
        (tmp_path / "run" / name).symlink_to(trained_workdir.path / name)
    write_json(workdir.config, CONFIG | {"fusion": {"enabled": True}})
    flags = ["--workdir", workdir.path, "--input", tmp_path / "in.jsonl"]
    flags += ["--output", tmp_path / "out.jsonl", "--threshold", 0]
    (tmp_path / "in.jsonl").write_text(
        '{"contact_id": "a", "text": "fever and cough"}\n{"contact_id": "b", "text": "fracture"}'
    )
    assert command(*flags) == 2
    assert "lexicon.npz: not a lexicon" in capsys.readouterr().err
    workdir.write_lexicon(
        EvidenceLexicon.fit(
            ["fever", "cough"],
            [["E00.0"], []],
            [[("fever", "E00.0", True)], []],
            EvidenceLexiconOptions(),
        )
    )
    assert command(*flags) == 2
    assert "have yet to be fused; run `jaxcoder evaluate" in capsys.readouterr().err

    def probabilities(path):
        trained = ["--workdir", path, *flags[2:]]
        assert command(*trained) == 0
        return [
            {code["code"]: code["probability"] for code in line["codes"]}
            for line in read_codes(tmp_path / "out.jsonl")
        ]

    found, other = (0.5, 2.0, -1.0, 3.0), (0.25, -2.0)
    workdir.tuned.write(Tuned(0.5, Weights(found, other)), 3, 0.1)
    alone, fused = probabilities(trained_workdir.path), probabilities(workdir.path)
    score = (1 + 1) / 2 / (1 + 1)
    for row, contact in enumerate(alone):
        for code, probability in contact.items():
            z = np.log(probability / (1 - probability))
            expected = other[0] * z + other[1]
            if (row, code) == (0, "E00.0"):
                expected = found[0] * z + found[1] * np.log(score) + found[2] * score + found[3]
            assert fused[row][code] == pytest.approx(1 / (1 + np.exp(-expected)), rel=1e-3)


def test_contacts_of_like_length_share_a_batch():
    seen = []

    def probabilities(tokens_BxT, length_B, contacts):
        assert [len(contact.notes[0].text) for contact in contacts] == [n for n in length_B if n]
        seen.append((tokens_BxT.shape, length_B.tolist()))
        return jax.numpy.zeros((len(length_B), 4))

    def encode(contacts):
        return [np.ones(len(contact.notes[0].text), np.int32) for contact in contacts]

    predictor = predict.Predictor(
        encode, probabilities, threshold=0.5, top=1, documents=3, max_tokens=1000
    )
    contacts = [Contact(str(n), "", notes=(Note("x" * n),)) for n in (1, 1000, 5, 999, 3, 9)]
    found = list(predictor.predict(contacts))
    assert [each.contact_id for each in found] == ["1", "1000", "5", "999", "3", "9"]
    assert [shape for shape, _ in seen] == [(3, 32), (3, 32), (3, 1024)]
    assert seen[-1][1] == [1000, 999, 0]
    assert dataclasses.asdict(found[0])["assigned"].tolist() == [False]
