"""A small workdir as training and evaluation leave it, drawn at random, consistent in itself."""

import csv
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxcoder import outcomes
from jaxcoder.metrics.granularity import GranularCounts
from jaxcoder.metrics.groups import group_rows
from jaxcoder.metrics.roles import role_rows
from jaxcoder.metrics.summary import KEYS
from jaxcoder.records.codes import LabelSpace, coarsenings, coarser

THRESHOLD, STEP = 0.4, 300


def write_csv(path: pathlib.Path, rows: list[dict]) -> None:
    with path.open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            empty = {
                key for key, value in row.items() if isinstance(value, float) and value != value
            }
            writer.writerow({key: "" if key in empty else value for key, value in row.items()})


def write_evaluation(
    folder: pathlib.Path,
    space: LabelSpace,
    *,
    contacts: int = 240,
    seed: int = 0,
    noise: float = 1.5,
    roles: bool = True,
) -> None:
    """Writes every file of an evaluated split.

    Args:
      folder: of the split.
      space: the codes.
      contacts: N.
      seed: of patients, gold codes and noise; of two runs on the same contacts the same.
      noise: how bad the coder is.
      roles: whether roles are known.
    """
    rng = np.random.default_rng(seed)
    size = len(space)
    often = 0.6 / np.arange(1, size + 1)
    gold_NxL = rng.random((contacts, size)) < often
    z_NxL = np.log(often / (1 - often)) + rng.normal(0, 0.3, (contacts, size)) + 4 * gold_NxL
    z_NxL += np.random.default_rng(seed + int(10 * noise)).normal(0, noise, (contacts, size)) - 1
    p_NxL = 1 / (1 + np.exp(-z_NxL))
    assigned_NxL = p_NxL > THRESHOLD
    hits_NxL = gold_NxL & assigned_NxL
    gold, predicted, hits = (x.sum(1) for x in (gold_NxL, assigned_NxL, hits_NxL))
    ranked = np.argsort(-p_NxL, axis=1)
    found_NxL = np.take_along_axis(gold_NxL, ranked, 1)
    safe = np.maximum(gold, 1)
    recall = {k: found_NxL[:, :k].sum(1) / safe for k in (5, 10, 15)}
    precision_NxL = found_NxL.cumsum(1) / np.arange(1, size + 1)
    confidence = np.where(assigned_NxL, np.log(p_NxL), np.log1p(-p_NxL)).sum(1)
    columns = {
        "contact_id": [f"secret-contact-{n}" for n in range(contacts)],
        "patient_id": [f"secret-patient-{n // 2}" for n in range(contacts)],
        "specialty": [("cardiology", "lung <b>&", "surgery", "")[n % 4] for n in range(contacts)],
        "sex": [("F", "M", "U")[n % 3] for n in range(contacts)],
        "kind": [""] * contacts,
        "age": [float(n % 90) if n % 7 else None for n in range(contacts)],
        "year": [2020 + n % 3 for n in range(contacts)],
        "notes": [n % 5 for n in range(contacts)],
        "tokens": [100 + n for n in range(contacts)],
        "gold": gold,
        "gold_outside": np.zeros(contacts, int),
        "predicted": predicted,
        "hits": hits,
        **{f"recall_at_{k}": value for k, value in recall.items()},
        "r_precision": recall[5],
        "map": (precision_NxL * found_NxL).sum(1) / safe,
        "loss": -confidence,
        "confidence": confidence,
    }
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: list(columns[name]) for name in outcomes.SCHEMA.names}, outcomes.SCHEMA)
    pq.write_table(table, folder / "contacts.parquet")

    support, tp, fp = gold_NxL.sum(0), hits_NxL.sum(0), (assigned_NxL & ~gold_NxL).sum(0)
    f1 = 2 * tp / np.maximum(support + tp + fp, 1)
    codes = [
        {
            "code": code,
            "description": space.descriptions[n],
            "support": int(support[n]),
            "tp": int(tp[n]),
            "fp": int(fp[n]),
            "fn": int(support[n] - tp[n]),
            "precision": float(tp[n] / max(tp[n] + fp[n], 1)),
            "recall": float(tp[n] / max(support[n], 1)),
            "f1": float(f1[n]),
            "auc": 0.9 if support[n] else float("nan"),
            "chapter": coarser(code, "chapter"),
            "category": coarser(code, "category"),
            "train_support": int(1000 / (n + 1)),
            "share_secondary": (n % 11) / 10 if roles and support[n] else float("nan"),
        }
        for n, code in enumerate(space.codes)
    ]
    groups, absent = group_rows(outcomes.read(folder / "contacts.parquet"), resamples=50)
    granular = GranularCounts(coarsenings("full"))
    for n in range(contacts):
        granular.add(*(np.array(space.codes)[x[n]].tolist() for x in (gold_NxL, assigned_NxL)))
    edges = np.linspace(0, 1, 201)
    seen, positive = (np.histogram(x, edges)[0] for x in (p_NxL, p_NxL[gold_NxL]))
    reliability = [
        {"low": round(edges[c], 6), "high": round(edges[c + 1], 6), "seen": s, "positive": p}
        for c, (s, p) in enumerate(zip(seen, positive, strict=True))
    ]
    for name, rows in (
        ("codes", codes),
        ("groups", groups),
        ("roles", role_rows(codes)),
        ("granularity", granular.rows()),
        ("reliability", reliability),
    ):
        write_csv(folder / f"{name}.csv", rows)

    everybody = groups[0]
    metrics = dict.fromkeys(KEYS, 0.5)
    metrics |= {key: everybody[key] for key in everybody if key in KEYS}
    metrics |= {"macro_f1": float(f1[support > 0].mean()), "recall_at_5": float(recall[5].mean())}
    metrics |= {"threshold": THRESHOLD, "num_contacts": contacts, "num_labels": size}
    metrics |= {"num_gold": int(gold.sum()), "num_gold_outside_label_space": 0}
    details = {
        "step": STEP,
        "checkpoint": "best",
        "label_space": space.hash,
        "threshold_from": "tuned on validation",
        "groups_absent": absent,
        "macro_f1_of_means": 0.4321,
        "comparable": {"micro_f1": 0.6543, "num_codes": size},
        "ceiling_micro_f1": 0.9,
        "share_of_ceiling": metrics["micro_f1"] / 0.9,
    }
    (folder / "details.json").write_text(json.dumps(details))
    (folder / "metrics.json").write_text(json.dumps(metrics))


def make_space(size: int = 30) -> LabelSpace:
    codes = tuple(f"{'AEIJKZ'[n % 6]}{10 + n // 60:02}.{n // 6 % 10}" for n in range(size))
    described = tuple(f"finding {n} </script> & more" for n in range(size))
    return LabelSpace(tuple(sorted(codes)), described)


def write_workdir(folder: pathlib.Path, **options) -> pathlib.Path:
    """Writes a workdir whose test and validation splits have been evaluated."""
    space = make_space()
    folder.mkdir(parents=True)
    space.save(folder / "label_space.json")
    config = {"data_dir": str(folder / "data"), "records": {"source": "wards", "source_dir": ""}}
    config["records"]["source_dir"] = "postgresql://me:pass@word@host/db?x=1&password=word"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "data.json").write_text(json.dumps({"tokens": "token_records/wards/1"}))
    (folder / "checkpoints" / str(STEP)).mkdir(parents=True)
    lines = [{"step": 10 * n, "train/loss": 9 / n} for n in range(1, 30)]
    lines += [{"step": STEP, "validation/micro_f1": 0.7, "validation/macro_f1": None}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "train_metrics.jsonl").write_text(text + '{"step": 31')  # killed while it wrote
    splits = {
        "test": {
            "records": 240,
            "tokens_per_record": {"mean": 219.5, "p95": 330},
            "truncated_share": 0.125,
        }
    }
    part = {"contacts": 240, "patients": 120, "codes": 600, "without_notes_share": 0.2}
    part |= {"dropped": {"rows of no contact": 17}, "examples": {"x": "secret-contact-3"}}
    records = {"splits": {"test": part}, "dropped": {}, "failed_codes": {"icd10 secret": 3}}
    data = folder / "data" / "token_records" / "wards" / "1"
    data.mkdir(parents=True)
    (data / "tokens_report.json").write_text(json.dumps({"splits": splits, "records": records}))
    write_evaluation(folder / "eval" / "validation", space, seed=1, **options)
    write_evaluation(folder / "eval" / "test", space, seed=0, **options)
    for name, f1 in (("baseline_lexicon", 0.1234), ("without_labs_medications", 0.2345)):
        beside = folder / "eval" / "test" / name
        beside.mkdir()
        metrics = json.loads((folder / "eval" / "test" / "metrics.json").read_text())
        (beside / "metrics.json").write_text(json.dumps(metrics | {"micro_f1": f1}))
        details = json.loads((folder / "eval" / "test" / "details.json").read_text())
        if name.startswith("baseline"):  # which has no checkpoint
            details.pop("step", None)
        (beside / "details.json").write_text(json.dumps(details))
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> pathlib.Path:
    """A workdir; not to be changed."""
    return write_workdir(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture
def make_workdir():
    """What writes one, with options of its own."""
    return write_workdir


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
    """A workdir of one test's own."""
    return write_workdir(tmp_path / "run", contacts=120)
