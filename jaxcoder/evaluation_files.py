"""The files of an evaluation: metrics.json details.json groups.csv codes.csv reliability.csv."""

import csv
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxcoder.metrics.summary import Summary
from jaxcoder.whole_file import whole_file, write_json


def save(folder: epath.PathLike, summary: Summary, details: Mapping[str, Any]) -> None:
    """Writes the files, each whole or not at all, metrics.json last.

    Args:
      folder: of the split.
      summary: its metrics and tables.
      details: what else is known of this evaluation, beside the summary's own details.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / "groups.csv", summary.groups)
    _write_csv(folder / "codes.csv", summary.codes)
    _write_csv(folder / "reliability.csv", summary.reliability)
    write_json(folder / "details.json", {**summary.details, **details})
    write_json(folder / "metrics.json", summary.metrics)


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
