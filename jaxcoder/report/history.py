"""Sections on where the coder comes from: training, what its inputs bring, data, versions."""

import importlib.metadata
import json
import math
import pathlib
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import jaxcoder
from jaxcoder.errors import UserError
from jaxcoder.report import figures
from jaxcoder.report.canvas import Figure
from jaxcoder.report.figures import Line
from jaxcoder.report.inputs import MEASURES, OUTDATED, Evaluation, Row, Run, number, percent, points
from jaxcoder.report.page import Absent, Beside, Folded, Part, Section, Table, Words

_LIBRARIES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "matplotlib")
_CURVES = ("micro_f1", "macro_f1", "recall_at_10")
_SECRET = re.compile(r'(?<=://)[^/\s"]*(?=@)|(?<=password=)[^&\s"]*')
"""Who may open a database, in its address."""


def training(run: Run, test: Evaluation, curve: Sequence[Row]) -> Section:
    """Curves of training, of learning, and what each input brings.

    Args:
      run: the workdir.
      test: its evaluation.
      curve: rows of learning_curve.csv; empty where there is none.
    """
    parts: list[Part] = [*_train_curves(run), *_learning_curve(curve), *_ablations(test)]
    drawn = [part for part in parts if isinstance(part, Figure)]
    parts = [part for part in parts if not isinstance(part, Figure)]
    if drawn:
        parts.insert(0, Beside(drawn))
    return Section(
        "training",
        "Training",
        "How the coder came to its scores: step by step, patient by patient, and input by input.",
        parts,
    )


def _train_curves(run: Run) -> list[Part]:
    lines = run.train_lines()
    series = {key: _series(lines, f"validation/{key}") for key in _CURVES}
    loss = _series(lines, "train/loss")
    drawn: list[Part] = []
    if loss:
        drawn.append(
            figures.curves(
                "training_loss",
                "Training loss.",
                [_line("training loss", loss, dots=False)],
                "step",
                "loss",
                share_y=False,
            )
        )
    scored = [_line(MEASURES[key], found) for key, found in series.items() if found]
    if scored:
        drawn.append(
            figures.curves(
                "training_scores", "Scores on validation while training.", scored, "step", "score"
            )
        )
    reason = "train_metrics.jsonl is not there, or empty; training writes it."
    return drawn or [Absent("Training curves", reason)]


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Steps and values; what was not finite is null in the file, and has no point."""
    return [(line["step"], line[key]) for line in lines if line.get(key) is not None]


def _line(name: str, found: Sequence[tuple[float, float]], dots: bool = True) -> Line:
    return Line(name, [x for x, _ in found], [y for _, y in found], dots)


def _learning_curve(curve: Sequence[Row]) -> list[Part]:
    if not curve:
        return [
            Absent(
                "Learning curve",
                "No learning_curve.csv lies beside this workdir, and --curve names none.",
                "jaxcoder learning_curve --config CONFIG --workdir DIR",
            )
        ]
    patients = [number(row["patients"]) for row in curve]
    lines = [
        Line(MEASURES[key], patients, [number(row[key]) for row in curve])
        for key in ("micro_f1", "recall_at_10")
    ]
    caption = "Scores by number of training patients."
    return [
        figures.curves("learning_curve", caption, lines, "training patients", "score", log_x=True)
    ]


def _ablations(test: Evaluation) -> list[Part]:
    found, outdated = test.beside("without_")
    absent: list[Part] = [
        Absent(
            f"Without {name.replace('_', ', ')}",
            OUTDATED,
            f"{test.command}{test.given_threshold} --without {name.replace('_', ',')}",
        )
        for name in outdated
    ]
    if not found and not outdated:
        absent.append(
            Absent(
                "What each input brings",
                "The coder was not evaluated without some of its inputs.",
                f"{test.command} --without medications,labs",
            )
        )
    if not found:
        return absent
    keys = ("micro_f1", "macro_f1", "recall_at_10", "map")
    heads = ["inputs"]
    for key in keys:
        heads += [MEASURES[key], "change"]
    rows = [["all", *(cell for key in keys for cell in (percent(test.metrics[key]), ""))]]
    for name, metrics in found.items():
        cells = ((percent(metrics[key]), points(metrics[key] - test.metrics[key])) for key in keys)
        rows.append(
            [f"without {name.replace('_', ', ')}", *(each for pair in cells for each in pair)]
        )
    return [Table("What each input brings, per cent and points", heads, rows), *absent]


def data(run: Run, data_dir: str) -> Section:
    """What the records hold, and what was left out of them."""
    lead = (
        "What the coder was trained and judged on; no patient stands in more than one split unless "
        "it says so below. Rows that could not be used are counted by reason."
    )
    try:
        report = run.data_report(data_dir)
    except UserError as error:
        command = f"jaxcoder report --workdir {run.workdir} --data_dir DIR"
        return Section("data", "Data", lead, [Absent("Data summary", f"{error}.", command)])
    records = report.get("records", {})
    heads = ["split", "documents", "contacts", "patients", "codes", "codes a contact"]
    heads += [
        "distinct codes",
        "notes",
        "words a note",
        "without notes",
        "tokens a contact",
        "p95",
        "cut short",
    ]
    rows = []
    for name, tokens in report["splits"].items():
        known = records.get("splits", {}).get(name, {})
        rows.append(
            (
                name,
                f"{tokens['records']:,}",
                *(_count(known.get(key)) for key in ("contacts", "patients", "codes")),
                *(_count(known.get(key)) for key in ("codes_per_contact", "distinct_codes")),
                *(_count(known.get(key)) for key in ("notes", "words_per_note")),
                _share(known.get("without_notes_share")),
                f"{tokens['tokens_per_record']['mean']:,.0f}",
                f"{tokens['tokens_per_record']['p95']:,}",
                _share(tokens["truncated_share"]),
            )
        )
    parts: list[Part] = [Table("Records by split", heads, rows), _dropped(records)]
    if several := records.get("patients_in_several_splits"):
        parts.append(Words(f"{several:,} patients stand in more than one split."))
    return Section("data", "Data", lead, parts)


def _dropped(records: Mapping[str, Any]) -> Part:
    """Reasons and counts alone: examples hold ids, failed codes whatever stood in their place."""
    if "splits" not in records:
        return Absent("What was left out", "These records came without a report of their source.")
    rows = [
        (reason, name, f"{count:,}")
        for name, part in (*records["splits"].items(), ("all", records))
        for reason, count in sorted(part["dropped"].items(), key=lambda item: -item[1])
    ]
    if not rows:
        return Words("Nothing was left out.")
    return Table("What was left out, emptied or kept in doubt", ("reason", "split", "rows"), rows)


def _count(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _share(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{percent(value)} %"


def making(run: Run, test: Evaluation, command: str, date: str) -> Section:
    """How the coder and this page were made.

    Args:
      run: the workdir.
      test: its evaluation.
      command: that made the page.
      date: of the page.
    """
    details = test.details
    chosen = (
        f"{test.metrics['threshold']:.4g}, {details.get('threshold_from', 'of unknown origin')}"
    )
    space = run.label_space
    rows = [
        ("command", command),
        ("date of this page", date),
        ("jaxcoder", f"{jaxcoder.__version__}{_commit()}"),
        ("split", test.split),
        ("checkpoint", f"{details.get('checkpoint', '–')}, step {details.get('step', '–')}"),
        ("threshold", chosen),
        ("label space", f"{space.hash}: {len(space):,} codes at granularity {space.granularity}"),
        ("records", str(run.config.get("records", {}).get("source", "–"))),
        ("Python", platform.python_version()),
        ("libraries", ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)),
    ]
    config = _SECRET.sub("…", json.dumps(run.config, indent=2, sort_keys=True, ensure_ascii=False))
    return Section(
        "making",
        "How this was made",
        "What it takes to make the same again; versions are those of the environment of this page.",
        [
            Table("Origin", ("what", "value"), rows, texts=("value",)),
            Folded("The config, config.json", config),
            Words(
                "No text of a note, no patient and no contact is named on this page. Groups and "
                "codes with few patients are shown as they are: mind that before you share it."
            ),
        ],
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """The commit, where this very package stands in a git checkout; what is not committed shows."""
    folder = pathlib.Path(jaxcoder.__file__).parent
    try:
        for words in (
            ("ls-files", "--error-unmatch", "__init__.py"),
            ("describe", "--always", "--dirty"),
        ):
            found = subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, text=True, check=True
            ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {found}"
