"""What a report is made of: the files of a workdir, read and checked against each other.

Nothing here needs a device: the tables of an evaluation are enough, on any machine.
"""

import csv
import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxcoder import outcomes
from jaxcoder.errors import UserError
from jaxcoder.records.codes import LabelSpace

Row = Mapping[str, str]
"""A row of a CSV file, by column."""

MEASURES = {
    "micro_f1": "micro-F1",
    "micro_precision": "precision (micro)",
    "micro_recall": "recall (micro)",
    "macro_f1": "macro-F1",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "recall_at_15": "recall@15",
    "map": "MAP",
    "exact_match": "exact match",
    "jaccard": "Jaccard",
    "auc_micro": "AUC (micro)",
    "auc_macro": "AUC (macro)",
}
"""Measures of metrics.json and what people call them."""

REPORT_OF_RECORDS = "tokens_report.json"
LEARNING_CURVE = "learning_curve.csv"


def number(text: str) -> float:
    """The number in a cell of a CSV file; NaN where it is empty."""
    return float(text) if text else math.nan


def percent(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as per cent without the sign, such as `71.8`; a dash where unknown."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def points(value: float) -> str:
    """A difference of shares as points of per cent with its sign, such as `−0.4`."""
    return f"{100 * value:+.1f}".replace("-", "−")


OUTDATED = "It is of another checkpoint, threshold or label space."
_SAME = ("step", "label_space")  # of details.json, in evaluations that can be compared


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluated split.

    Attributes:
      folder: `WORKDIR/eval/SPLIT`.
      split: its name.
      metrics: metrics.json.
      details: details.json.
    """

    folder: epath.Path
    split: str
    metrics: Mapping[str, float]
    details: Mapping[str, Any]

    @functools.cached_property
    def groups(self) -> list[Row]:
        """groups.csv; empty where it is not there, or knows no intervals."""
        rows = self.table("groups")
        return rows if rows and "grouping" in rows[0] else []

    @functools.cached_property
    def codes(self) -> list[Row]:
        """codes.csv."""
        return self.table("codes")

    @functools.cached_property
    def contacts(self) -> dict[str, np.ndarray]:
        """Columns of contacts.parquet, [N] each: text as objects, unknown numbers as NaN.

        Empty where it is not there.

        Raises:
          UserError: it cannot be read, lacks a column, or is of another evaluation than
            metrics.json.
        """
        path = self.folder / "contacts.parquet"
        if not path.exists():
            return {}
        columns = outcomes.read(path, remedy=self.remedy)
        count = len(columns["contact_id"])
        if count != self.metrics["num_contacts"]:
            raise UserError(
                f"{path}: {count:,} contacts, but metrics.json beside it has "
                f"{self.metrics['num_contacts']:,}; {self.remedy}"
            )
        return columns

    def table(self, name: str) -> list[Row]:
        """The rows of `NAME.csv`; empty where it is not there.

        Raises:
          UserError: it was cut, or is of another evaluation than details.json.
        """
        path = self.folder / f"{name}.csv"
        if not path.exists():
            return []
        rows, whole = read_csv(path), path.read_text().endswith("\n")
        expected = self.details.get("rows", {}).get(name, len(rows))
        if not whole or len(rows) != expected:
            raise UserError(
                f"{path}: {len(rows):,} rows, expected {expected:,} that end in a line break: it "
                f"was cut, or is of another evaluation; {self.remedy}"
            )
        return rows

    def beside(self, prefix: str) -> tuple[dict[str, Mapping[str, float]], list[str]]:
        """What other evaluations of the same contacts found.

        Args:
          prefix: of the folders below, such as `baseline_` of `baseline_lexicon`.

        Returns:
          metrics.json by what follows the prefix; and what follows it where the evaluation is of
          another checkpoint, label space or threshold. Baselines have a threshold of their own, and
          thresholds by code or specialty do not come with one that was given.
        """
        found, outdated = {}, []
        for folder in sorted(self.folder.iterdir(), key=lambda each: each.name):
            path, name = folder / "metrics.json", folder.name.removeprefix(prefix)
            if not folder.name.startswith(prefix) or not path.exists():
                continue
            theirs = _read_json(folder / "details.json", self.remedy)
            metrics = _read_json(path, self.remedy)
            # What counts words has no step.
            same = all(theirs[key] == self.details.get(key) for key in _SAME if key in theirs)
            if prefix == "without_" or (prefix == "thresholds_" and not self.given_threshold):
                same &= metrics["threshold"] == self.metrics["threshold"]
            if same:
                found[name] = metrics
            else:
                outdated.append(name)
        return found, outdated

    @property
    def given_threshold(self) -> str:
        """The flag of a threshold that was given and not tuned, such as ` --threshold 0.5`."""
        given = self.details.get("threshold_from") == "given"
        return f" --threshold {self.metrics['threshold']}" if given else ""

    @property
    def command(self) -> str:
        """What makes it."""
        return evaluate_command(self.folder.parent.parent, self.split)

    @property
    def remedy(self) -> str:
        """What to do where it is broken."""
        return f"run `{self.command}` again"


def evaluate_command(workdir: epath.PathLike, split: str) -> str:
    """The command that evaluates a split."""
    return f"jaxcoder evaluate --workdir {workdir} --split {split}"


class Run:
    """A workdir, as far as a report is concerned.

    Attributes:
      workdir: the folder.
      config: config.json.
      label_space: label_space.json.
    """

    def __init__(self, workdir: epath.PathLike) -> None:
        """Reads what every workdir has.

        Args:
          workdir: folder of `jaxcoder train`.

        Raises:
          UserError: it is none.
        """
        self.workdir = epath.Path(workdir)
        self.config = _read_json(
            self.workdir / "config.json", "--workdir must name a folder of `jaxcoder train`"
        )
        self.label_space = LabelSpace.load(self.workdir / "label_space.json")

    @property
    def name(self) -> str:
        """The folder's own name."""
        return epath.Path(self.workdir).resolve().name

    def missing(self, split: str) -> str:
        """Why a split has to be evaluated first; empty where it has been.

        An evaluation writes metrics.json last, so files without it are not whole. Training keeps
        the best checkpoint and the last: an evaluation of one that is gone is out of date.
        """
        folder = self.workdir / "eval" / split
        if not (folder / "metrics.json").exists():
            begun = folder.exists() and any(path.is_file() for path in folder.iterdir())
            return f"{folder}: {'half written' if begun else 'not there'}"
        step = self._read_details(folder).get("step")
        kept = self.workdir / "checkpoints"
        steps = {path.name for path in kept.iterdir()} if kept.exists() else {str(step)}
        if step is not None and str(step) not in steps:
            return f"{folder}: of the checkpoint of step {step}, which training has replaced since"
        return ""

    def evaluation(self, split: str) -> Evaluation:
        """Reads a split's evaluation.

        Raises:
          UserError: it is not there, not whole, out of date, or of another label space.
        """
        folder = self.workdir / "eval" / split
        remedy = f"run `{evaluate_command(self.workdir, split)}`"
        if reason := self.missing(split):
            raise UserError(f"{reason}; {remedy}")
        found = Evaluation(
            folder,
            split,
            _read_json(folder / "metrics.json", remedy),
            self._read_details(folder),
        )
        theirs = found.details.get("label_space")
        if theirs != self.label_space.hash:
            raise UserError(
                f"{folder}: evaluated with the label space {theirs}, but {self.workdir} has "
                f"{self.label_space.hash}; delete {folder}, then {remedy}"
            )
        if not found.metrics["num_contacts"]:
            raise UserError(f"{folder}: no contacts; evaluate a split that has some")
        return found

    def _read_details(self, folder: epath.Path) -> Mapping[str, Any]:
        remedy = f"run `{evaluate_command(self.workdir, folder.name)}`"
        return _read_json(folder / "details.json", remedy)

    def train_lines(self) -> list[dict[str, Any]]:
        """The lines of train_metrics.jsonl; the last may be cut short, and is then left out."""
        path = self.workdir / "train_metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def data_report(self, data_dir: str = "") -> Mapping[str, Any]:
        """The report of the token records that it was trained on, contact records included.

        Args:
          data_dir: where they lie now; that of the config when empty.

        Raises:
          UserError: it is not there.
        """
        folder = _read_json(
            self.workdir / "data.json", "run the same `jaxcoder train` again to restore it"
        )["tokens"]
        path = epath.Path(data_dir or self.config["data_dir"]) / folder / REPORT_OF_RECORDS
        return _read_json(path, "name the folder that holds token_records/ with --data_dir")


def check_together(test: Evaluation, validation: Evaluation) -> None:
    """Checks that two splits were evaluated with the same checkpoint and threshold.

    Raises:
      UserError: they were not, so that what is fitted on the one says nothing of the other.
    """
    for key, of in (("step", "details"), ("threshold", "metrics")):
        one, other = (getattr(each, of).get(key) for each in (test, validation))
        if one != other:
            raise UserError(
                f"{test.folder}: {key} {one}, but {validation.folder} has {other}; expected the "
                f"same coder; {validation.remedy}, then `{test.command}`"
            )


def read_curve(path: epath.PathLike) -> list[Row]:
    """Reads a learning curve: share, patients, contacts, micro_f1, recall_at_10.

    Raises:
      UserError: it is not there, or lacks a column.
    """
    path = epath.Path(path)
    if path.is_dir():  # the workdir of `jaxcoder learning_curve`
        path /= LEARNING_CURVE
    if not path.exists():
        raise UserError(f"--curve {path}: not found; expected a CSV file")
    rows = read_csv(path)
    for name in ("share", "patients", "contacts", "micro_f1", "recall_at_10"):
        if not rows or name not in rows[0]:
            raise UserError(f"{path}: column {name} is missing; see `jaxcoder report --help`")
    return rows


def read_csv(path: epath.Path) -> list[Row]:
    """The rows of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def _read_json(path: epath.Path, remedy: str) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; {remedy}") from None
    except ValueError:
        raise UserError(f"{path}: not JSON; {remedy}") from None
