"""What is tuned on the validation split, before any other is scored.

One threshold for micro-F1, on a grid or exactly; the one of the study that `metrics.comparable`
follows; and, where asked for, thresholds by code or by specialty.
"""

import dataclasses

import numpy as np

from jaxcoder import split_pass
from jaxcoder.metrics import exact_threshold, grid, thresholds
from jaxcoder.metrics.comparable import comparable_threshold
from jaxcoder.metrics.statistics import Totals
from jaxcoder.metrics.thresholds import Thresholds
from jaxcoder.scorer import Scorer
from jaxcoder.tokens.builder import TokenData
from jaxcoder.tuned import Tuned


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What validation says.

    Attributes:
      tuned: to be kept.
      micro_f1: on validation, at its threshold.
      thresholds: by code or by specialty, where asked for.
    """

    tuned: Tuned
    micro_f1: float
    thresholds: Thresholds | None


def tune(coder: Scorer, data: TokenData, *, exact: bool, by: str) -> Tuning:
    """Tunes in one pass over validation, or two.

    Args:
      coder: what is scored; a threshold that it has stays, unless an exact one is wanted in its
        place.
      data: token records.
      exact: the best threshold of all, not of the grid; takes the second pass.
      by: `code` or `specialty` for thresholds of their own; empty for none.

    Raises:
      UserError: validation has no codes; or as `exact_threshold.Scores.add`.
    """
    specialties = split_pass.read_specialties(data, "validation") if by == "specialty" else None
    kept = coder.tuned
    totals = split_pass.gather(
        coder.score_of(data, "validation"),
        split_pass.batches_of(coder, data, "validation"),
        split_pass.split_codes(data, "validation"),
        coder.rows,
        threshold=kept.threshold if kept else None,
        specialties=specialties,
    )
    hits_E, predicted_E, gold = _counts(totals)
    if exact and not (kept and kept.exact):
        threshold, micro_f1 = _exactly(coder, data, totals)
    else:
        at = (
            grid.place(totals.edges, kept.threshold)
            if kept
            else grid.tune(hits_E, predicted_E, gold)
        )
        threshold = kept.threshold if kept else grid.shown(totals.edges[at])
        micro_f1 = float(grid.f1(hits_E[at], predicted_E[at], gold))
    tuned = Tuned(
        threshold, coder.fusion, comparable_threshold(totals), exact or bool(kept and kept.exact)
    )
    own = None
    if by == "code":
        own = thresholds.tune_by_code(totals, data.label_space.codes, threshold)
    elif specialties:
        own = thresholds.tune_by_specialty(totals, specialties.names, threshold)
    return Tuning(tuned, micro_f1, own)


def _counts(totals: Totals) -> tuple[np.ndarray, np.ndarray, int]:
    sums = totals.documents
    return sums.hits[:-1], sums.predicted[:-1], int(sums.counts[2])


def _exactly(coder: Scorer, data: TokenData, totals: Totals) -> tuple[float, float]:
    counts = _counts(totals)
    scores = exact_threshold.Scores(totals.edges, exact_threshold.open_gaps(*counts))
    batches = split_pass.batches_of(coder, data, "validation")
    for _, gold, probabilities_BxL, _ in split_pass.scored(
        coder.score_of(data, "validation"), batches, coder.rows
    ):
        scores.add(probabilities_BxL, gold["labels"], gold["_mask"])
    return scores.best(*counts)
