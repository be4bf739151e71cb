"""The files of an evaluation: `eval/<split>/metrics.json`, and what belongs to it."""

import csv
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from etils import epath

from jaxcoder import lock as locks
from jaxcoder.errors import UserError
from jaxcoder.metrics.summary import Summary
from jaxcoder.records.codes import coarser
from jaxcoder.tokens.data import NEVER, CodeCount
from jaxcoder.whole_file import whole_file, write_json

CONTACTS = "contacts.parquet"
_METRICS = "metrics.json"


def lock(folder: epath.PathLike) -> IO[bytes] | None:
    """Keeps other evaluations out of a folder, until what is returned is closed.

    Raises:
      UserError: another one is at work.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return locks.lock(folder)
    except BlockingIOError:
        raise UserError(
            f"{folder}: another process evaluates here; wait for it, or stop it first"
        ) from None


def begin(folder: epath.PathLike) -> None:
    """Declares the files of an earlier evaluation void, before the first of a new one appears.

    The files belong together where metrics.json is there, for it goes first and comes last.
    """
    (epath.Path(folder) / _METRICS).unlink(missing_ok=True)


def save(
    folder: epath.PathLike,
    summary: Summary,
    details: Mapping[str, Any],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Writes the files, each whole or not at all, metrics.json last.

    Args:
      folder: of the split.
      summary: its metrics.
      details: what else is known of this evaluation, beside the summary's own details.
      tables: from a file's name, without `.csv`, to its rows; NaN is an empty cell.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in tables.items():
        _write_csv(folder / f"{name}.csv", rows)
    rows_of = {name: len(rows) for name, rows in tables.items()}  # to see when one was cut
    write_json(folder / "details.json", {**summary.details, **details, "rows": rows_of})
    write_json(folder / _METRICS, summary.metrics)


def code_rows(
    rows: Sequence[Mapping[str, Any]],
    train: Mapping[str, CodeCount],
    split: Mapping[str, CodeCount],
) -> list[dict[str, Any]]:
    """Adds to the rows of codes what is known of a code besides how it was predicted.

    Args:
      rows: of `Summary.codes`.
      train: counts of the training split.
      split: of the evaluated one.

    Returns:
      The rows with chapter and category (each the code itself where it is no finer),
      train_support, its occurrences in the training split, and share_secondary, the share in
      [0, 1] of those of its occurrences here whose role is known in which it is secondary, NaN
      where none is known.
    """

    def known(code: str) -> dict[str, Any]:
        here = split.get(code, NEVER)
        return {
            "chapter": coarser(code, "chapter"),
            "category": coarser(code, "category"),
            "train_support": train.get(code, NEVER).occurrences,
            "share_secondary": here.secondary / here.known if here.known else float("nan"),
        }

    return [{**row, **known(str(row["code"]))} for row in rows]


def _write_csv(path: epath.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with whole_file(path) as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value


def table(summary: Summary, details: Mapping[str, Any], title: str) -> str:
    """The metrics that are looked at first, as a short text table.

    Args:
      summary: the metrics.
      details: with `ceiling_micro_f1` and `share_of_ceiling` where the data know them.
      title: its first line.
    """
    metrics = summary.metrics
    names = ["micro_f1", "micro_precision", "micro_recall", "macro_f1", "recall_at_10"]
    names += ["precision_at_5", "map", "auc_micro", "exact_match", "threshold"]
    lines = [title, *(f"  {name:<17} {metrics[name]:.4f}" for name in names)]
    if "ceiling_micro_f1" in details:
        share = f"{details['share_of_ceiling']:.1%} of it reached"
        lines.append(f"  {'ceiling_micro_f1':<17} {details['ceiling_micro_f1']:.4f}  ({share})")
    lines.append(
        f"  {metrics['num_contacts']:,} contacts, {metrics['num_gold']:,} codes, of these "
        f"{metrics['num_gold_outside_label_space']:,} outside the label space of "
        f"{metrics['num_labels']:,}"
    )
    return "\n".join(lines)
