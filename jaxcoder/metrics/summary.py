"""From the statistics of a split to its metrics, and to the table by code."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcoder.metrics import grid, ranking
from jaxcoder.metrics.auc import auc
from jaxcoder.metrics.statistics import Totals

KEYS = (
    *("micro_f1", "micro_precision", "micro_recall", "macro_f1"),
    *("recall_at_5", "recall_at_10", "recall_at_15"),
    *("precision_at_5", "precision_at_8", "precision_at_15"),
    *("r_precision", "map", "exact_match", "jaccard", "auc_micro", "auc_macro", "loss"),
    *("threshold", "num_contacts", "num_labels", "num_gold", "num_gold_outside_label_space"),
)
"""The keys of metrics.json."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is known of a coder on a split.

    Attributes:
      metrics: the `KEYS`; a measure over nothing (no contacts with gold codes, no code with both
        positives and negatives) is 0, as is an area under the curve that does not exist.
      details: further counts and the error bounds of the areas under the curve.
      codes: a row for each code that the model predicts or that the split holds: code, description,
        support, tp, fp, fn, precision, recall, f1, auc (NaN where it does not exist); codes outside
        the label space come last.
    """

    metrics: dict[str, float | int]
    details: dict[str, float | int]
    codes: list[dict[str, str | float | int]]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def summarise(
    totals: Totals,
    *,
    codes: Sequence[str],
    descriptions: Sequence[str],
    missing: Mapping[str, int],
    threshold: float | None = None,
) -> Summary:
    """Computes all metrics at one threshold.

    Macro-F1 is the mean over the codes that the split holds, so codes outside the label space,
    which are never predicted, count 0. Contacts without gold codes are left out of the ranking
    measures, and in for exact match and Jaccard, where agreement on nothing counts 1. Areas under
    the curve are over the label space.

    Args:
      totals: the statistics.
      codes: of the label space.
      descriptions: one a code.
      missing: number of contacts by gold code outside the label space.
      threshold: the one to apply, which must be in `totals.edges`; None tunes it for micro-F1.

    Raises:
      ValueError: the threshold is not one that was counted at.
    """
    sums = totals.documents
    contacts, ranked, gold, outside = (int(x) for x in sums.counts)
    hits_E, predicted_E = sums.hits, sums.predicted
    if threshold is None:
        at = grid.tune(hits_E, predicted_E, gold)
    else:
        at = grid.place(totals.edges, threshold)
    seen_C, positive_C = (x.sum(0, dtype=np.int64) for x in (totals.seen, totals.positive))
    auc_micro, bound_micro = auc(positive_C, seen_C - positive_C, grid.EXACT_BINS)
    auc_L, bound_L = auc(totals.positive, totals.seen - totals.positive, grid.EXACT_BINS)
    exists_L = ~np.isnan(auc_L)
    rows = _code_rows(totals, at, codes, descriptions, auc_L, missing)
    occurring = [float(row["f1"]) for row in rows if row["support"]]

    means = dict(zip(ranking.MEASURES, sums.measures[:-1] / max(ranked, 1), strict=True))
    metrics: dict[str, float | int] = {
        "micro_f1": float(grid.f1(hits_E[at], predicted_E[at], gold)),
        "micro_precision": _ratio(hits_E[at], predicted_E[at]),
        "micro_recall": _ratio(hits_E[at], gold),
        "macro_f1": float(np.mean(occurring)) if occurring else 0.0,
        **{name: float(value) for name, value in means.items()},
        "exact_match": _ratio(sums.exact[at], contacts),
        "jaccard": _ratio(sums.jaccard[at], contacts),
        "auc_micro": float(np.nan_to_num(auc_micro)),
        "auc_macro": float(auc_L[exists_L].mean()) if exists_L.any() else 0.0,
        "loss": _ratio(sums.measures[-1], contacts),
        "threshold": float(str(totals.edges[at])) if threshold is None else float(threshold),
        "num_contacts": contacts,
        "num_labels": len(codes),
        "num_gold": gold,
        "num_gold_outside_label_space": outside,
    }
    details: dict[str, float | int] = {
        "num_contacts_without_gold": contacts - ranked,
        "num_predicted": int(predicted_E[at]),
        "num_codes_in_split": len(occurring),
        "num_codes_in_auc_macro": int(exists_L.sum()),
        "auc_micro_error_at_most": float(np.nan_to_num(bound_micro)),
        "auc_macro_error_at_most": float(bound_L[exists_L].mean()) if exists_L.any() else 0.0,
    }
    if set(metrics) != set(KEYS):
        raise RuntimeError(f"metrics {sorted(set(metrics) ^ set(KEYS))}: expected exactly KEYS")
    return Summary({key: metrics[key] for key in KEYS}, details, rows)


def _code_rows(
    totals: Totals,
    at: int,
    codes: Sequence[str],
    descriptions: Sequence[str],
    auc_L: np.ndarray,
    missing: Mapping[str, int],
) -> list[dict[str, str | float | int]]:
    tp_L = totals.positive[:, at + 1 :].sum(-1)
    predicted_L = totals.seen[:, at + 1 :].sum(-1)
    support_L = totals.positive.sum(-1)
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
