"""Thresholds of their own for codes or for specialties, beside the one for all.

Tuned on the validation split, each for the F1 of its own code or specialty. Where validation holds
too few of it, the threshold for all stays.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcoder.metrics import grid
from jaxcoder.metrics.statistics import Totals

LEAST = {"code": 10, "specialty": 100}
"""Gold codes that validation has to hold of a code, or in the contacts of a specialty, for a
threshold of its own: below, F1 is decided by a handful of contacts."""


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """Thresholds by code or by specialty.

    Attributes:
      by: `code` or `specialty`.
      default: the threshold for all, which those have that `own` leaves out.
      own: the others, by code or name of the specialty.
    """

    by: str
    default: float
    own: Mapping[str, float]

    def __post_init__(self) -> None:
        if self.by not in LEAST:
            raise ValueError(f"by = {self.by!r}: expected one of {', '.join(LEAST)}")

    def decision(self, names: Sequence[str]) -> np.ndarray:
        """Lays the thresholds out for `statistics.Accumulator`.

        Args:
          names: the codes of the label space, or of the specialties in the order of their numbers.

        Returns:
          float32, [1, L] by code or [G, 1] by specialty.
        """
        each = np.array([self.own.get(name, self.default) for name in names], np.float32)
        return each[None] if self.by == "code" else each[:, None]


def tune_by_code(totals: Totals, codes: Sequence[str], default: float) -> Thresholds:
    """Tunes each code's threshold for its F1.

    Args:
      totals: of the validation split.
      codes: of the label space.
      default: the threshold for all.
    """
    own = {}
    for label in np.flatnonzero(totals.positive.sum(-1) >= LEAST["code"]).tolist():
        hits_E, predicted_E = (
            _above(x[label].astype(np.int64)) for x in (totals.positive, totals.seen)
        )
        own[codes[label]] = _best(
            totals.edges, hits_E, predicted_E, int(totals.positive[label].sum())
        )
    return Thresholds("code", default, own)


def tune_by_specialty(totals: Totals, names: Sequence[str], default: float) -> Thresholds:
    """Tunes each specialty's threshold for the micro-F1 of its contacts.

    Args:
      totals: of the validation split, counted by specialty.
      names: of the specialties, in the order of their numbers.
      default: the threshold for all.
    """
    sums = totals.documents
    columns = zip(names, sums.group_hits, sums.group_predicted, sums.group_gold, strict=True)
    return Thresholds(
        "specialty",
        default,
        {
            name: _best(totals.edges, hits_E, predicted_E, int(gold))
            for name, hits_E, predicted_E, gold in columns
            if gold >= LEAST["specialty"]
        },
    )


def _above(count_C: np.ndarray) -> np.ndarray:
    return count_C.sum() - np.cumsum(count_C)[:-1]


def _best(edges_E: np.ndarray, hits_E: np.ndarray, predicted_E: np.ndarray, gold: int) -> float:
    return grid.shown(edges_E[grid.tune(hits_E, predicted_E, gold)])
