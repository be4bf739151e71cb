"""Evaluation of a tiny random coder and of the lexicon, from records to files."""

import collections
import csv
import dataclasses
import functools
import json
import pathlib
import re

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from jaxcoder import (
    batches,
    cli,
    evaluate,
    evaluation_files,
    experiment,
    outcomes,
    sharding,
    split_pass,
    steps,
    trained,
)
from jaxcoder.baseline import fit_evidence_lexicon
from jaxcoder.checkpoint import Checkpoints
from jaxcoder.fusion import Sample
from jaxcoder.metrics import automation, calibration
from jaxcoder.metrics.summary import KEYS
from jaxcoder.progress import Progress
from jaxcoder.records import builder as records_builder
from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import Code, Contact, Note
from jaxcoder.records.sources import Source
from jaxcoder.scorer import fit_fusion, make_scorer, model_score
from jaxcoder.tokens import builder as tokens_builder
from jaxcoder.tokens import data as tokens_data
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon
from jaxcoder.tokens.serialise import serialise
from jaxcoder.whole_file import write_json
from jaxcoder.workdir import Workdir

CONFIG = {
    "tokens": {"tokenizer": {"vocab_size": 300}, "mini": {"per_contact": 0.1}},
    "batches": {"documents": 8},
    "model": {
        "encoder": {"width": 16, "layers": 1, "heads": 2, "feedforward": 32, "window": 32},
        "head": {"bias_init": 0.0},
    },
}
FINDINGS = ("asthma", "cough", "croup", "empyema", "fever", "flu", "mucus", "polyp", "rales")
ROLES = ("primary", "secondary", "unknown", "secondary", "secondary")
SIZES = {"train": 60, "validation": 21, "test": 19}


class Wards(Source):
    """Contacts whose codes stand in their text; and codes that train lacks."""

    name = "wards"
    identity = {"source": "wards"}

    def parts(self, runner):
        return {split: [functools.partial(self.stream, split)] for split in SIZES}, Findings()

    def stream(self, split, found):
        rng = np.random.default_rng(list(SIZES).index(split))
        for number in range(SIZES[split]):
            drawn = rng.choice(len(FINDINGS), rng.integers(0, 4), replace=False)
            codes = [f"J{code:02}.1" for code in drawn]
            text = " ".join(FINDINGS[code] for code in drawn) + " nothing else "
            if split != "train" and number % 5 == 0:
                codes.append(f"Z{number % 2:02}.9")
            yield Contact(
                contact_id=f"{split}-{number}",
                patient_id=f"patient-{split}-{number // 2}",
                specialty=("", "lung", "heart")[number % 3],
                start=f"20{20 + number % 2}-01-01T00:00:00",
                age=float(7 * number % 100) if number % 4 else None,
                notes=(Note(text * int(rng.integers(1, 5))),),
                codes=tuple(
                    Code(code, "icd10", ROLES[place] if split == "test" else "unknown")
                    for place, code in enumerate(codes)
                ),
            )


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    config = CONFIG | {"data_dir": str(folder / "data")}
    options = experiment.read(config)
    contacts = records_builder.build(Wards(), options.data_dir, say=lambda _: None)
    data = tokens_builder.build(contacts, options.data_dir, options.tokens, say=lambda _: None)
    workdir = Workdir(folder / "run")
    workdir.create(config, data)
    tokenizer, labels = data.tokenizer, data.label_space
    model = experiment.fitted_model(options, tokenizer.vocab_size, tokenizer.pad_id, len(labels))
    jitted = steps.make_steps(sharding.make_mesh(), model, options.loss, options.optim)
    params = jax.tree.map(lambda x: x * 5, jitted.evaluation_params(jitted.init(0)))
    checkpoints = Checkpoints(workdir.checkpoints)
    checkpoints.save(Progress(step=7, label_space=labels.hash), {"coder": params})
    checkpoints.close()
    return workdir


def command(*arguments: object) -> int:
    """Runs `jaxcoder evaluate`, returns its exit status."""
    try:
        cli.main(["evaluate", *map(str, arguments)])
    except SystemExit as exit:
        return exit.code
    return 0


def read_evaluation(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    details = json.loads((folder / "details.json").read_text())
    tables = {}
    for name in ("groups", "codes", "roles", "granularity"):
        with (folder / f"{name}.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
    return metrics, details, tables, pq.read_table(folder / "predictions.parquet").to_pylist()


def matrices(rows):
    """Gold and assigned codes of predictions.parquet as matrices over all codes."""
    codes = sorted({code for row in rows for code in (*row["gold"], *row["codes"])})
    gold = np.array([[code in row["gold"] for code in codes] for row in rows])
    assigned = np.zeros_like(gold)
    for place, row in enumerate(rows):
        for code, yes in zip(row["codes"], row["assigned"], strict=True):
            assigned[place, codes.index(code)] = yes
    return gold, assigned


def check_codes(rows):
    """Chapter, category, occurrences in training, and roles here, from the contacts themselves."""
    contacts = {split: list(Wards().contacts(split)) for split in ("train", "test")}
    for row in rows:
        here, train = (
            [code.role for one in contacts[split] for code in one.codes if code.code == row["code"]]
            for split in ("test", "train")
        )
        assert row["chapter"] == {"J": "J00-J99", "Z": "Z00-Z99"}[row["code"][0]]
        assert row["category"] == row["code"][:3]
        assert (int(row["support"]), int(row["train_support"])) == (len(here), len(train))
        known = [role for role in here if role != "unknown"]
        share = f"{known.count('secondary') / len(known):.6g}" if known else ""
        assert row["share_secondary"] == share
    assert {bool(row["share_secondary"]) for row in rows} == {True, False}


def check_groups(metrics, details, rows, contacts, predictions):
    """The first row is metrics.json; the groups' are of their contacts."""
    assert contacts["contact_id"].tolist() == [row["contact_id"] for row in predictions]
    for name, count in (("gold", "gold"), ("predicted", "assigned")):
        assert contacts[name].tolist() == [
            sum(row[count]) if name == "predicted" else len(row[count]) for row in predictions
        ]
    assert contacts["gold_outside"].sum() == metrics["num_gold_outside_label_space"]
    assert np.mean(contacts["loss"]) == pytest.approx(metrics["loss"], rel=1e-5)
    whole = rows[0]
    assert (whole["grouping"], whole["group"]) == ("all", "all")
    assert (int(whole["contacts"]), int(whole["patients"])) == (19, 10)
    for name in ("micro_f1", "micro_precision", "micro_recall", "recall_at_10", "map"):
        assert float(whole[name]) == pytest.approx(metrics[name], rel=1e-5), name
    for name in ("exact_match", "jaccard"):
        assert float(whole[name]) == pytest.approx(metrics[name], rel=1e-5), name
    assert details["groups_absent"] == ["sex", "kind"]
    groupings = collections.defaultdict(list)
    for row in rows[1:]:
        groupings[row["grouping"]].append(row)
    assert list(groupings) == ["specialty", "age", "year", "notes", "tokens"]
    names = [row["group"] for row in groupings["specialty"]]
    assert names == ["heart", "lung", "unknown"]
    assert groupings["age"][-1]["group"] == "unknown"
    for each in groupings.values():
        assert sum(int(row["contacts"]) for row in each) == 19


def test_without_an_input_lies_beside_and_keeps_the_threshold(workdir, capsys):
    assert command("--workdir", workdir.path, "--split", "test") == 0
    whole, details, _, rows = read_evaluation(workdir.evaluation("test"))
    assert command("--workdir", workdir.path, "--split", "test", "--without", "medications") == 0
    folder = workdir.evaluation("test", without=["medications"])
    assert folder.name == "without_medications" and folder.parent == workdir.evaluation("test")
    metrics, its_details, _, its_rows = read_evaluation(folder)
    assert metrics["threshold"] == whole["threshold"]
    assert (details["without"], its_details["without"]) == ([], ["medications"])
    # These contacts have none: it is the same document, with the same probabilities.
    assert metrics["micro_f1"] == whole["micro_f1"] and its_rows == rows
    assert capsys.readouterr().out.count(", without medications") == 1
    # They have notes: without these the coder sees other documents, and a lexicon finds nothing.
    assert command("--workdir", workdir.path, "--without", "notes") == 0
    metrics, _, _, its_rows = read_evaluation(workdir.evaluation("test", without=["notes"]))
    before = {row["contact_id"]: row["probabilities"] for row in rows}
    assert not any(row["probabilities"] == before[row["contact_id"]] for row in its_rows)
    lexicon = ("--baseline", "lexicon", "--without", "notes")
    assert command("--workdir", workdir.path, *lexicon) == 0
    folder = workdir.evaluation("test", "lexicon", ["notes"])
    assert read_evaluation(folder)[1]["num_predicted"] == 0
    assert read_evaluation(workdir.evaluation("test"))[0] == whole
    capsys.readouterr()
    assert command("--workdir", workdir.path, "--without", "notes,medications,labs") == 2
    assert "leaves nothing to read" in capsys.readouterr().err


@pytest.mark.parametrize("baseline", ["", "lexicon", "evidence"])
def test_files_agree_with_each_other_and_with_scikit_learn(workdir, capsys, baseline):
    flags = ["--baseline", baseline] if baseline else []
    assert command("--workdir", workdir.path, "--split", "test", "--top", 3, *flags) == 0
    printed = capsys.readouterr().out
    folder = workdir.evaluation("test", baseline)
    metrics, details, tables, rows = read_evaluation(folder)
    assert set(metrics) == set(KEYS)
    assert f"{metrics['micro_f1']:.4f}" in printed and str(folder) in printed

    assert sorted(row["contact_id"] for row in rows) == sorted(f"test-{n}" for n in range(19))
    truth = {each.contact_id: each for each in Wards().contacts("test")}
    for row in rows:
        contact = truth[row["contact_id"]]
        assert sorted(row["gold"]) == sorted(code.code for code in contact.codes)
        assert (row["patient_id"], row["specialty"]) == (contact.patient_id, contact.specialty)
        assert row["probabilities"] == sorted(row["probabilities"], reverse=True)
        assert len(row["codes"]) == max(3, sum(row["assigned"]))
        above = [value > np.float32(metrics["threshold"]) for value in row["probabilities"]]
        assert row["assigned"] == above

    gold, assigned = matrices(rows)
    assert metrics["num_contacts"] == 19 and metrics["num_gold"] == gold.sum()
    assert metrics["num_gold_outside_label_space"] == 4
    assert details["rows"] == {
        path.stem: len(path.read_text().splitlines()) - 1 for path in folder.glob("*.csv")
    }
    assert details["num_contacts_without_gold"] == (~gold.any(1)).sum() > 0
    micro = f1_score(gold, assigned, average="micro", zero_division=0.0)
    assert metrics["micro_f1"] == pytest.approx(micro)
    occurring = gold.any(0)
    macro = f1_score(gold[:, occurring], assigned[:, occurring], average="macro", zero_division=0.0)
    assert metrics["macro_f1"] == pytest.approx(macro)

    by_code = {row["code"]: row for row in tables["codes"]}
    assert int(by_code["Z00.9"]["support"]) == int(by_code["Z00.9"]["fn"]) == 2
    assert sum(int(row["support"]) for row in tables["codes"]) == gold.sum()
    assert sum(int(row["tp"]) for row in tables["codes"]) == (gold & assigned).sum()
    check_codes(tables["codes"])
    check_groups(
        metrics, details, tables["groups"], outcomes.read(folder / "contacts.parquet"), rows
    )
    full, *coarser = tables["granularity"]
    assert [row["granularity"] for row in coarser] == ["subcategory", "category", "chapter"]
    for name in ("micro_f1", "micro_precision", "micro_recall", "macro_f1"):
        assert float(full[name]) == pytest.approx(metrics[name], rel=1e-5)
    held = [row for row in tables["codes"] if int(row["support"])]
    assert sum(int(row["codes"]) for row in tables["roles"]) == len(held)
    assert sum(int(row["occurrences"]) for row in tables["roles"]) == gold.sum()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == [".lock"]
    assert not [
        word for word in FINDINGS if word in (folder / "details.json").read_text() + printed
    ]


def test_the_readme_explains_every_key_and_column(workdir):
    assert command("--workdir", workdir.path, "--split", "test") == 0
    folder = workdir.evaluation("test")
    text = (pathlib.Path(evaluate.__file__).parent / "metrics" / "README.md").read_text()
    for section in text.split("\n## ")[1:]:
        file = folder / section.split("\n")[0].split(":")[0]
        cells = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
        told = {name for cell in cells for name in re.findall("`([a-z0-9_]+)`", cell)}
        if file.suffix == ".json":
            held = set(json.loads(file.read_text()))
            held |= {"ceiling_micro_f1", "share_of_ceiling"} & told  # of synthetic cohorts alone
        elif file.suffix == ".csv":
            held = set(file.read_text().split("\n", 1)[0].split(","))
            told -= {"_low", "_high"}
            held -= {f"{name}_{end}" for name in told for end in ("low", "high") if name in held}
        else:
            held = set(pq.read_schema(file).names)
        assert told == held, file.name
    explained = set(re.findall("^## ([a-z]+[.][a-z]+)", text, re.M))
    assert {path.name for path in folder.iterdir() if path.is_file()} - {".lock"} == explained


def test_a_fused_coder_and_its_network_alone(workdir, tmp_path):
    fused = Workdir(tmp_path / "fused")
    fused.path.mkdir()
    for name in ("data.json", "label_space.json", "tokenizer", "checkpoints"):
        (tmp_path / "fused" / name).symlink_to(workdir.path / name)
    config = json.loads(workdir.config.read_text())
    write_json(fused.config, config | {"fusion": {"enabled": True}})
    fused.write_lexicon(fit_evidence_lexicon(workdir.open_tokens(), fused.read_experiment()))
    flags = ["--workdir", fused.path, "--split", "test", "--top", 99]
    assert command(*flags) == 0
    kept = json.loads(fused.tuned.threshold.read_text())
    metrics, details, _, rows = read_evaluation(fused.evaluation("test"))
    assert details["fusion"] == kept["fusion"] and metrics["threshold"] == kept["threshold"]
    # The lexicon knows what the random network does not.
    assert metrics["micro_f1"] > 0.8
    assert command(*flags, "--baseline", "network") == 0
    assert json.loads(fused.tuned.threshold.read_text()) == kept  # the network's is not kept
    alone, _, _, random_rows = read_evaluation(fused.evaluation("test", "network"))
    assert alone["micro_f1"] < 0.7
    lexicon, options = EvidenceLexicon.load(fused.lexicon), fused.read_experiment()
    texts = {
        contact.contact_id: serialise(contact, options.tokens.serialise).text
        for contact in Wards().contacts("test")
    }
    found, other = kept["fusion"]["found"], kept["fusion"]["other"]
    network = {row["contact_id"]: row for row in random_rows}
    seen = set()
    for row in rows:
        score = lexicon.scores(texts[row["contact_id"]])
        alone = network[row["contact_id"]]
        logits = {
            code: np.log(p / (1 - p))
            for code, p in zip(alone["codes"], alone["probabilities"], strict=True)
        }
        for code, p in zip(row["codes"], row["probabilities"], strict=True):
            z, s = logits[code], score.get(code, 0.0)
            expected = other[0] * z + other[1]
            if s:
                expected = found[0] * z + found[1] * np.log(s) + found[2] * s + found[3]
            assert p == pytest.approx(1 / (1 + np.exp(-expected)), rel=1e-3)
            seen.add(bool(s))
    assert seen == {True, False}


def test_fusion_is_fitted_on_as_many_contacts_as_asked(workdir, monkeypatch):
    asked = []
    monkeypatch.setattr(Sample, "add", lambda self, *arrays: asked.extend(arrays[0]))
    coder = trained.restore(workdir)
    for most, expected in ((5, 5), (1000, SIZES["validation"])):
        fusion = dataclasses.replace(coder.experiment.fusion, max_contacts=most)
        options = dataclasses.replace(coder.experiment, fusion=fusion)
        asked.clear()
        fit_fusion(
            dataclasses.replace(coder, experiment=options),
            workdir.open_tokens(),
            lambda batch: np.zeros((len(batch["index"]), len(coder.label_space)), np.float32),
        )
        assert len(asked) == expected


def test_the_threshold_is_tuned_on_validation_and_applied_unchanged(workdir):
    workdir.tuned.threshold.unlink(missing_ok=True)
    assert command("--workdir", workdir.path, "--split", "test") == 0
    test = read_evaluation(workdir.evaluation("test"))[0]
    kept = json.loads(workdir.tuned.threshold.read_text())
    assert (kept["step"], kept["split"]) == (7, "validation")
    assert test["threshold"] == kept["threshold"]
    assert command("--workdir", workdir.path, "--split", "validation") == 0
    validation, details, _, rows = read_evaluation(workdir.evaluation("validation"))
    assert validation["threshold"] == kept["threshold"]
    assert validation["micro_f1"] == kept["micro_f1"]
    assert details["threshold_from"] == "tuned on validation"
    # No other threshold is better there.
    assert command("--workdir", workdir.path, "--split", "validation", "--threshold", 0) == 0
    *_, rows = read_evaluation(workdir.evaluation("validation"))
    gold = sum(len(row["gold"]) for row in rows)
    scores = [
        (p, code in row["gold"])
        for row in rows
        for p, code in zip(row["probabilities"], row["codes"], strict=True)
    ]
    best = 0.0
    for threshold, _ in scores:
        found = [right for p, right in scores if p > threshold]
        best = max(best, 2 * sum(found) / (len(found) + gold))
    assert best - 0.02 <= validation["micro_f1"] <= best


@pytest.mark.parametrize("baseline", ["lexicon", "evidence"])
def test_a_baseline_needs_no_checkpoint_and_beats_chance(workdir, tmp_path, baseline):
    for name in ("config.json", "data.json", "label_space.json"):
        (tmp_path / name).symlink_to(workdir.path / name)
    assert command("--workdir", tmp_path, "--split", "test", "--baseline", baseline) == 0
    metrics, details, *_ = read_evaluation(tmp_path / "eval" / "test" / f"baseline_{baseline}")
    assert metrics["micro_f1"] > 0.8  # all but the codes that train lacks
    assert metrics["recall_at_10"] < 1
    assert details["baseline"] == baseline
    assert not (tmp_path / "threshold.json").exists()  # that is the coder's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "tset"], "--split tset: not in .*expected one of train, validation, test"),
        (["--split", "mini"], "--split mini: not in"),
        (
            ["--groups", "sex,ward"],
            "--groups ward: expected some of specialty, sex, age, kind, year",
        ),
        (["--threshold", "1.5"], r"--threshold = 1.5: expected a probability in \[0, 1\]"),
        (
            ["--threshold", "0.5", "--thresholds", "code"],
            "--threshold 0.5, --thresholds code: expected one of the two; leave the other out",
        ),
        (["--threshold", "0.5", "--tune", "exact"], "--tune exact: expected one of the two"),
        (["--baseline", "network"], "--baseline network: the coder is not fused .*; leave --base"),
        (["--data_dir", "/nowhere"], "/nowhere/token_records/.*: no token records here"),
    ],
)
def test_mistakes_are_one_line(workdir, capsys, arguments, message):
    assert command("--workdir", workdir.path, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert re.search(message, error), error


def test_a_label_space_that_was_exchanged_is_refused(workdir, tmp_path, capsys):
    for name in ("config.json", "data.json", "tokenizer", "checkpoints"):
        (tmp_path / name).symlink_to(workdir.path / name)
    space = workdir.read_label_space()
    type(space)(space.codes[:-1], space.descriptions[:-1]).save(tmp_path / "label_space.json")
    assert command("--workdir", tmp_path, "--split", "test") == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and space.hash in error
    assert not (tmp_path / "eval").exists()


def test_the_bar_counts_the_contacts_of_all_processes(workdir, monkeypatch):
    counted = []

    class Bar(split_pass.tqdm):
        def update(self, count):
            counted.append(count)

    monkeypatch.setattr(split_pass, "tqdm", Bar)
    # Of two processes this one makes the first half of the rows.
    monkeypatch.setattr(sharding, "share_of", lambda rows: sharding.Share((0,), 2))
    data = workdir.open_tokens()
    coder = make_scorer(workdir, data, "network", "last")
    mine = list(split_pass.batches_of(coder, data, "validation"))
    assert sum(counted) == SIZES["validation"] > sum(int(each["_mask"].sum()) for each in mine)


def test_one_evaluation_of_a_split_at_a_time(workdir, capsys):
    folder = workdir.evaluation("train")
    with evaluation_files.lock(folder):
        arguments = ["--workdir", workdir.path, "--split", "train", "--threshold", 0.5]
        assert command(*arguments) == 2
    assert "another process evaluates here; wait for it" in capsys.readouterr().err


def test_what_fails_midway_leaves_no_files(workdir, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("the device is gone")

    arguments = ["--workdir", workdir.path, "--split", "train", "--threshold", 0.5]
    folder = workdir.evaluation("train")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(evaluate, "summarise", fail)
        command(*arguments)
    assert [path.name for path in folder.iterdir()] == [".lock"]
    assert command(*arguments, "--groups", "specialty") == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "metrics.json" in before and len(before) == 10
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(evaluate, "summarise", fail)  # in the pass: what was there stays whole
        command(*arguments)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(evaluate, "group_rows", fail)  # after it: the files no longer go together
        command(*arguments)
    assert not (folder / "metrics.json").exists()


def test_a_split_without_codes_is_one_line(workdir, monkeypatch, capsys):
    monkeypatch.setattr(tokens_data.TokenData, "code_counts", lambda self, split: {})
    assert command("--workdir", workdir.path, "--split", "test") == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "no contact of its split test has a code to score" in error


def test_a_second_evaluation_compiles_nothing(workdir):
    options = workdir.read_experiment()
    data = workdir.open_tokens()
    model = experiment.fitted_model(
        options, data.tokenizer.vocab_size, data.tokenizer.pad_id, len(data.label_space)
    )
    jitted = steps.make_steps(sharding.make_mesh(), model, options.loss, options.optim)
    codes = split_pass.split_codes(data, "validation")

    def once(state):
        return evaluate.evaluate(
            model_score(jitted, jitted.evaluation_params(state)),
            batches.evaluation_batches(data, "validation", options.batches, sharding.Share()),
            codes,
            data.label_space,
            jitted.batch_sharding,
        )

    once(jitted.init(0))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    other = jitted.init(1)
    compiled.clear()
    once(other)
    assert not compiled
    jax.jit(lambda x: x + 41)(1.0)
    assert compiled  # the listener does hear


def test_the_comparable_threshold_is_of_validation_and_kept(workdir):
    workdir.tuned.threshold.unlink(missing_ok=True)
    assert command("--workdir", workdir.path, "--split", "test") == 0
    kept = json.loads(workdir.tuned.threshold.read_text())
    details = read_evaluation(workdir.evaluation("test"))[1]
    assert details["comparable"]["threshold"] == kept["comparable"]
    assert np.float32(kept["comparable"]) in np.linspace(0, 1, 100).astype(np.float32)
    assert details["thresholds"] == {"by": "global"}
    # A file of an older version lacks it: it is tuned, and the threshold stays what it was.
    write_json(workdir.tuned.threshold, {key: kept[key] for key in kept if key != "comparable"})
    older = json.loads(workdir.tuned.threshold.read_text()) | {"threshold": 0.25}
    del older["exact"]
    write_json(workdir.tuned.threshold, older)
    assert command("--workdir", workdir.path, "--split", "test") == 0
    again = json.loads(workdir.tuned.threshold.read_text())
    assert (again["threshold"], again["comparable"]) == (0.25, kept["comparable"])
    workdir.tuned.threshold.unlink()


def test_exact_tuning_is_as_good_as_any_threshold_and_is_kept(workdir):
    workdir.tuned.threshold.unlink(missing_ok=True)
    flags = ["--workdir", workdir.path, "--split", "validation", "--top", 99]
    assert command(*flags) == 0
    of_grid = read_evaluation(workdir.evaluation("validation"))[0]
    assert command(*flags, "--tune", "exact") == 0
    metrics, _, _, rows = read_evaluation(workdir.evaluation("validation"))
    kept = json.loads(workdir.tuned.threshold.read_text())
    assert kept["exact"] and kept["threshold"] == metrics["threshold"]
    assert kept["micro_f1"] == pytest.approx(metrics["micro_f1"])
    scores = [
        (np.float32(p), code in row["gold"])
        for row in rows
        for p, code in zip(row["probabilities"], row["codes"], strict=True)
    ]
    gold = sum(len(row["gold"]) for row in rows)
    best = 0.0
    for lowest, _ in scores:
        found = [right for p, right in scores if p >= lowest]
        best = max(best, 2 * sum(found) / (len(found) + gold))
    assert metrics["micro_f1"] == pytest.approx(best) and best >= of_grid["micro_f1"]
    assert command(*flags) == 0  # without the flag, what was kept is used
    assert read_evaluation(workdir.evaluation("validation"))[0] == metrics
    workdir.tuned.threshold.unlink()


@pytest.mark.parametrize("by", ["code", "specialty"])
def test_thresholds_of_their_own_are_tuned_on_validation_and_applied_to_test(
    workdir, monkeypatch, by
):
    monkeypatch.setitem(evaluate.thresholds.LEAST, by, 3)
    flags = ["--workdir", workdir.path, "--split", "test", "--top", 1]
    assert command(*flags) == 0
    plain = read_evaluation(workdir.evaluation("test"))[0]
    assert command(*flags, "--thresholds", by) == 0
    folder = workdir.evaluation("test", by=by)
    metrics, details, tables, rows = read_evaluation(folder)
    kept = json.loads((workdir.path / f"thresholds_{by}.json").read_text())
    assert kept["own"] and details["thresholds"]["by"] == by
    names = {row["specialty"] or "unknown" for row in rows}
    names = workdir.read_label_space().codes if by == "code" else names
    assert details["thresholds"]["own"] == len(set(names) & set(kept["own"]))
    assert details["thresholds"]["default"] == len(set(names) - set(kept["own"]))
    default = metrics["threshold"]
    for row in rows:
        for code, p, yes in zip(row["codes"], row["probabilities"], row["assigned"], strict=True):
            name = code if by == "code" else row["specialty"] or "unknown"
            assert yes == (np.float32(p) > np.float32(kept["own"].get(name, default)))
        assert row["probabilities"] == sorted(row["probabilities"], reverse=True)
    gold, assigned = matrices(rows)
    micro = f1_score(gold, assigned, average="micro", zero_division=0.0)
    assert metrics["micro_f1"] == pytest.approx(micro) and metrics["micro_f1"] != plain["micro_f1"]
    contacts = outcomes.read(folder / "contacts.parquet")
    assert contacts["predicted"].tolist() == [sum(row["assigned"]) for row in rows]
    assert sum(int(row["tp"]) for row in tables["codes"]) == contacts["hits"].sum()
    for name in ("map", "recall_at_10", "auc_macro"):
        assert metrics[name] == plain[name]
    # Kept: used again as it is, and void when the threshold for all is another.
    path = workdir.path / f"thresholds_{by}.json"
    write_json(path, kept | {"own": dict.fromkeys(kept["own"], 0.999)})
    assert command(*flags, "--thresholds", by) == 0
    assert read_evaluation(folder)[0]["micro_recall"] < metrics["micro_recall"]
    write_json(path, kept | {"tuned": kept["tuned"] | {"threshold": 0.123}})
    assert command(*flags, "--thresholds", by) == 0
    assert read_evaluation(folder)[0] == metrics
    # What predict uses is the one for all.
    assert trained.restore(workdir).threshold == default


def test_reliability_is_the_histogram_of_all_pairs(workdir):
    assert command("--workdir", workdir.path, "--split", "test", "--top", 99) == 0
    folder = workdir.evaluation("test")
    metrics, *_ = read_evaluation(folder)
    with (folder / "reliability.csv").open() as file:
        rows = list(csv.DictReader(file))
    pairs = metrics["num_contacts"] * metrics["num_labels"]
    assert sum(int(row["seen"]) for row in rows) == pairs
    inside = metrics["num_gold"] - metrics["num_gold_outside_label_space"]
    assert sum(int(row["positive"]) for row in rows) == inside
    found = calibration.scores(calibration.Reliability.of(rows))
    assert found["brier_at_least"] <= found["brier"] <= found["brier_at_most"]


def test_what_automation_reads_is_what_is_written(workdir):
    assert command("--workdir", workdir.path, "--split", "test") == 0
    folder = workdir.evaluation("test")
    metrics, *_ = read_evaluation(folder)
    contacts = automation.Contacts.of(outcomes.read(folder / "contacts.parquet"))
    for name in ("exact_match", "jaccard"):
        assert contacts.quality(name).mean() == pytest.approx(metrics[name])
    row = automation.curve(contacts, automation.exact_match_line(contacts))[-1]
    assert row["micro_f1"] == pytest.approx(metrics["micro_f1"]) and row["contacts"] == 19
    assert contacts.patient.max() == 9
