"""Area under the ROC curve from histograms."""

from collections.abc import Sequence

import numpy as np


def auc(
    positive_C: np.ndarray, negative_C: np.ndarray, exact_bins: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Computes areas under the ROC curve, with the largest error that the binning can have made.

    The area is the share of (positive, negative) pairs in which the positive has the higher score.
    Pairs in one bin count a half, as ties do; each can be wrong by at most a half, so the error is
    at most half the share of such pairs.

    Args:
      positive_C: counts of positives in bins of ascending score, [..., C].
      negative_C: counts of negatives in the same bins.
      exact_bins: bins that hold a single score, whose pairs really are ties.

    Returns:
      Area and bound of its error, [...] each; NaN where there are no positives or no negatives.
    """
    positive = positive_C.astype(np.float64)
    negative = negative_C.astype(np.float64)
    below = np.cumsum(negative, axis=-1) - negative
    pairs = positive.sum(-1) * negative.sum(-1)
    tied = positive * negative
    together = tied.sum(-1)
    unsure = together - sum(tied[..., place] for place in exact_bins)
    with np.errstate(invalid="ignore"):
        area = ((positive * below).sum(-1) + together / 2) / np.where(pairs, pairs, np.nan)
        bound = unsure / 2 / np.where(pairs, pairs, np.nan)
    return area, bound
