"""The conventions of the replication study of 2023, for scores that stand beside its tables.

Edin et al., Automated Medical Coding on MIMIC-III and MIMIC-IV: A Critical Review and
Replicability Study (arXiv:2304.10909; github.com/JoakimEdin/medical-coding-reproducibility,
`src/metrics.py`, `src/utils/decision_boundary.py`, read at commit 517e492):

    codes       only those that occur in the evaluated split are predicted and ranked
    contacts    those without gold codes are left out
    threshold   of 100 evenly spaced in [0, 1] the first with the highest micro-F1 on validation,
                where all codes of the label space count
    macro-F1    mean over the codes of the F1 of each
    AUC         over all codes and contacts, as `auc_micro` and `auc_macro` of metrics.json

One thing differs: their label space holds the codes of the test split. A gold code that ours lacks
is a code that occurs, is never predicted, and counts as missed.
"""

import numpy as np

from jaxcoder.metrics import grid, ranking
from jaxcoder.metrics.statistics import Totals


def comparable_threshold(totals: Totals) -> float:
    """Tunes the threshold as the study does.

    Args:
      totals: the statistics, of the validation split as a rule.
    """
    sums = totals.documents
    tried = np.array([grid.place(totals.edges, each) for each in grid.COMPARABLE])
    f1 = grid.f1(sums.hits[tried], sums.predicted[tried], int(sums.counts[2]))
    return grid.shown(totals.edges[tried[np.argmax(f1)]])


def comparable(totals: Totals, absent: int, threshold: float | None) -> dict[str, float | int]:
    """Computes the metrics of the study from the statistics of a split.

    Args:
      totals: the statistics, gathered with the labels that occur.
      absent: number of codes that occur outside the label space.
      threshold: one of `grid.COMPARABLE`, as tuned on validation; None tunes it on this split.

    Returns:
      The metrics but for the areas under the curve; a ratio of nothing is 0.

    Raises:
      ValueError: the threshold is not one that was counted at.
    """
    sums = totals.documents
    _, contacts, gold, _ = (int(x) for x in sums.counts)
    if threshold is None:
        threshold = comparable_threshold(totals)
    at = grid.place(totals.edges, threshold)
    occurring = totals.occurring
    support_L = totals.positive[occurring].sum(-1, dtype=np.int64)
    hits_L = totals.positive[occurring, at + 1 :].sum(-1, dtype=np.int64)
    coded = totals.seen[occurring, at + 1 :] - totals.seen_uncoded[occurring, at + 1 :]
    predicted_L = coded.sum(-1, dtype=np.int64)
    hits, predicted, codes = hits_L.sum(), predicted_L.sum(), max(len(hits_L) + absent, 1)
    ranked = sums.measures_occurring / max(contacts, 1)
    values = {
        "micro_f1": grid.f1(hits, predicted, gold),
        "micro_precision": hits / max(predicted, 1),
        "micro_recall": hits / max(gold, 1),
        "macro_f1": grid.f1(hits_L, predicted_L, support_L).sum() / codes,
        "macro_precision": (hits_L / np.maximum(predicted_L, 1)).sum() / codes,
        "macro_recall": (hits_L / np.maximum(support_L, 1)).sum() / codes,
        **dict(zip(ranking.MEASURES, ranked, strict=True)),
        "exact_match": sums.exact_occurring[at] / max(contacts, 1),
    }
    return {name: float(value) for name, value in values.items()} | {
        "threshold": threshold,
        "num_contacts": contacts,
        "num_codes": len(hits_L) + absent,
    }
