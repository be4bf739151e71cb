"""From the statistics of a split to its metrics, and to the tables by code and by group."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcoder.metrics import grid, ranking
from jaxcoder.metrics.auc import auc
from jaxcoder.metrics.comparable import comparable
from jaxcoder.metrics.statistics import Totals

KEYS = (
    *("micro_f1", "micro_precision", "micro_recall", "macro_f1"),
    *("recall_at_5", "recall_at_10", "recall_at_15"),
    *("precision_at_5", "precision_at_8", "precision_at_15"),
    *("r_precision", "map", "exact_match", "jaccard", "auc_micro", "auc_macro", "loss"),
    *("threshold", "num_contacts", "num_labels", "num_gold", "num_gold_outside_label_space"),
)
"""The keys of metrics.json."""

_LABELS_AT_A_TIME = 1024


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is known of a coder on a split.

    Attributes:
      metrics: the `KEYS`; a measure over nothing (no contacts with gold codes, no code with both
        positives and negatives) is 0, as is an area under the curve that does not exist.
      details: further counts, the error bounds of the areas under the curve, `macro_f1_of_means`
        (the other convention of macro-F1, see `summarise`), and under `comparable` the metrics as
        the replication study of 2023 has them (see `metrics.comparable`).
      codes: a row for each code that the model predicts or that the split holds: code, description,
        support, tp, fp, fn, precision, recall, f1, auc (NaN where it does not exist); codes outside
        the label space come last.
      reliability: a row for each bin of probability, over all pairs of a contact and a label: low
        and high (the bin holds what exceeds low and does not exceed high), seen, positive (pairs
        that are gold). The first bin holds exactly 0, the last exactly 1.
    """

    metrics: dict[str, float | int]
    details: dict[str, Any]
    codes: list[dict[str, str | float | int]]
    reliability: list[dict[str, str | float | int]]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def summarise(
    totals: Totals,
    *,
    codes: Sequence[str],
    descriptions: Sequence[str],
    missing: Mapping[str, int],
    threshold: float | None = None,
    decided: bool = False,
    comparable_threshold: float | None = None,
) -> Summary:
    """Computes all metrics at one threshold.

    Macro-F1 is the mean over the codes that the split holds, so codes outside the label space,
    which are never predicted, count 0. `macro_f1_of_means` is the other convention: the harmonic
    mean of the means of precision and of recall over all codes of the label space, where a code
    that does not occur or is not predicted counts 0 (Mullenbach et al., 2018, CAML). Contacts
    without gold codes are left out of the ranking measures, and in for exact match and Jaccard,
    where agreement on nothing counts 1. Areas under the curve are over the label space.

    Args:
      totals: the statistics.
      codes: of the label space.
      descriptions: one a code.
      missing: number of contacts by gold code outside the label space.
      threshold: the one to apply, which must be in `totals.edges`; None tunes it for micro-F1.
      decided: count what the decision of the statistics assigned, by label or by group, in place
        of what exceeds the threshold.
      comparable_threshold: that of `comparable`; None tunes it on this split.

    Raises:
      ValueError: the threshold is not one that was counted at.
    """
    sums = totals.documents
    contacts, ranked, gold, outside = (int(x) for x in sums.counts)
    hits_D, predicted_D = sums.hits, sums.predicted
    if threshold is None:
        at = grid.tune(hits_D[:-1], predicted_D[:-1], gold)
        threshold = grid.shown(totals.edges[at])
    else:
        at = grid.place(totals.edges, threshold)
    if decided:
        at, tp_L, assigned_L = -1, totals.hits, totals.assigned
    else:
        tp_L, assigned_L = (x[:, at + 1 :].sum(-1) for x in (totals.positive, totals.seen))
    seen_C, positive_C = (x.sum(0, dtype=np.int64) for x in (totals.seen, totals.positive))
    auc_micro, bound_micro = auc(positive_C, seen_C - positive_C, grid.EXACT_BINS)
    auc_L, bound_L = _auc_by_label(totals)
    exists_L = ~np.isnan(auc_L)
    support_L = totals.positive.sum(-1)
    rows = _code_rows(codes, descriptions, support_L, tp_L, assigned_L, auc_L, missing)
    occurring = [float(row["f1"]) for row in rows if row["support"]]

    means = dict(zip(ranking.MEASURES, sums.measures[:-1] / max(ranked, 1), strict=True))
    metrics: dict[str, float | int] = {
        "micro_f1": float(grid.f1(hits_D[at], predicted_D[at], gold)),
        "micro_precision": _ratio(hits_D[at], predicted_D[at]),
        "micro_recall": _ratio(hits_D[at], gold),
        "macro_f1": float(np.mean(occurring)) if occurring else 0.0,
        **{name: float(value) for name, value in means.items()},
        "exact_match": _ratio(sums.exact[at], contacts),
        "jaccard": _ratio(sums.jaccard[at], contacts),
        "auc_micro": float(np.nan_to_num(auc_micro)),
        "auc_macro": float(auc_L[exists_L].mean()) if exists_L.any() else 0.0,
        "loss": _ratio(sums.measures[-1], contacts),
        "threshold": float(threshold),
        "num_contacts": contacts,
        "num_labels": len(codes),
        "num_gold": gold,
        "num_gold_outside_label_space": outside,
    }
    precision, recall = (
        float(np.mean(tp_L / np.maximum(whole_L, 1))) if len(codes) else 0.0
        for whole_L in (assigned_L, support_L)
    )
    areas = {name: metrics[name] for name in ("auc_micro", "auc_macro")}
    absent = sum(count > 0 for count in missing.values())
    details: dict[str, Any] = {
        "macro_f1_of_means": _ratio(2 * precision * recall, precision + recall),
        "num_contacts_without_gold": contacts - ranked,
        "num_predicted": int(predicted_D[at]),
        "num_codes_in_split": len(occurring),
        "num_codes_in_auc_macro": int(exists_L.sum()),
        "auc_micro_error_at_most": float(np.nan_to_num(bound_micro)),
        "auc_macro_error_at_most": float(bound_L[exists_L].mean()) if exists_L.any() else 0.0,
        "comparable": comparable(totals, absent, comparable_threshold) | areas,
    }
    if set(metrics) != set(KEYS):
        raise RuntimeError(f"metrics {sorted(set(metrics) ^ set(KEYS))}: expected exactly KEYS")
    return Summary(
        {key: metrics[key] for key in KEYS},
        details,
        rows,
        _reliability_rows(totals.edges, seen_C, positive_C),
    )


def _auc_by_label(totals: Totals) -> tuple[np.ndarray, np.ndarray]:
    parts = [  # of few labels at a time, because `auc` makes several float64 copies
        auc(positive, seen - positive, grid.EXACT_BINS)
        for positive, seen in (
            (x[start : start + _LABELS_AT_A_TIME] for x in (totals.positive, totals.seen))
            for start in range(0, len(totals.seen), _LABELS_AT_A_TIME)
        )
    ]
    areas, bounds = zip(*parts, strict=True)
    return np.concatenate(areas), np.concatenate(bounds)


def _code_rows(
    codes: Sequence[str],
    descriptions: Sequence[str],
    support_L: np.ndarray,
    tp_L: np.ndarray,
    predicted_L: np.ndarray,
    auc_L: np.ndarray,
    missing: Mapping[str, int],
) -> list[dict[str, str | float | int]]:
    columns = zip(codes, descriptions, support_L, tp_L, predicted_L, auc_L, strict=True)
    outside = (
        (code, "", count, 0, 0, float("nan")) for code, count in sorted(missing.items()) if count
    )
    return [
        {
            "code": code,
            "description": description,
            "support": int(support),
            "tp": int(tp),
            "fp": int(predicted - tp),
            "fn": int(support - tp),
            "precision": _ratio(tp, predicted),
            "recall": _ratio(tp, support),
            "f1": _ratio(2 * tp, predicted + support),
            "auc": float(area),
        }
        for code, description, support, tp, predicted, area in (*columns, *outside)
    ]


def _reliability_rows(
    edges_E: np.ndarray, seen_C: np.ndarray, positive_C: np.ndarray
) -> list[dict[str, str | float | int]]:
    lows, highs = np.append(np.float32(0), edges_E), np.append(edges_E, np.float32(1))
    return [
        {"low": grid.shown(low), "high": grid.shown(high), "seen": int(seen), "positive": int(gold)}
        for number, (low, high, seen, gold) in enumerate(
            zip(lows, highs, seen_C, positive_C, strict=True)
        )
        if high > low or number == 0  # where an edge stands twice, nothing lies between
    ]
