"""Are probabilities what they say? From the histogram of reliability.csv, before and after mending.

Every pair of a contact and a label counts. The histogram has hundreds of bins, so the probability
of a pair is known to within its bin: scores are computed as if it stood at the middle of the bin in
log-odds, and bounds say how far off that can be.

    calibration error   Σ_j n_j / n · |positives_j / n_j − mean probability_j| over groups j
      plain             15 groups of equal width in [0, 1], all pairs (Guo et al., 2017,
                        arXiv:1706.04599); nearly all pairs are near 0, so it is always small
      adaptive          15 groups of equal mass among pairs with p ≥ 0.01 (Nguyen & O'Connor, 2015,
                        arXiv:1508.05154)
    Brier score         mean of (probability − gold)²
    log loss            mean of −log(probability of what is the case), nats

Mending is fitted on the validation split by maximum likelihood: log-odds are divided by a
temperature (Guo et al., 2017), or also shifted (Platt, 1999), or follow an isotonic line (Zadrozny
& Elkan, 2002).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from jaxcoder.metrics.isotonic import Isotonic

GROUPS = 15
"""Groups of pairs in a calibration error."""

LIKELY = 0.01
"""Pairs below this probability are left out of the adaptive error."""

# Probabilities of exactly 0 and 1 have no log-odds; float32 knows none nearer to 1 but 1 itself.
_NEAREST = 2.0**-25

Mend = Callable[[np.ndarray], np.ndarray]
"""From probabilities to better ones."""


@dataclasses.dataclass(frozen=True)
class Reliability:
    """A histogram of probabilities; a bin holds what exceeds `low` and does not exceed `high`.

    Attributes:
      low: float64 [C], ascending.
      high: float64 [C].
      seen: int64 [C], pairs of a contact and a label.
      positive: int64 [C], those of them that are gold.
    """

    low: np.ndarray
    high: np.ndarray
    seen: np.ndarray
    positive: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> "Reliability":
        """Reads the rows of reliability.csv, with numbers or their texts.

        Raises:
          ValueError: a bin has more positives than pairs, or the bins do not ascend.
        """
        rows = list(rows)
        low, high = (np.array([float(row[key]) for row in rows]) for key in ("low", "high"))
        seen, positive = (
            np.array([int(row[key]) for row in rows], np.int64) for key in ("seen", "positive")
        )
        if (positive > seen).any() or (high < low).any() or (np.diff(low) < 0).any():
            raise ValueError("reliability: expected ascending bins with positive ≤ seen")
        return cls(low, high, seen, positive)

    @property
    def probability(self) -> np.ndarray:
        """The middle of each bin in log-odds, float64 [C]."""
        return special.expit((_log_odds(self.low) + _log_odds(self.high)) / 2)


def _log_odds(probability: np.ndarray) -> np.ndarray:
    return special.logit(np.clip(probability, _NEAREST, 1 - _NEAREST))


def calibration_error(
    reliability: Reliability, probability_C: np.ndarray, *, adaptive: bool
) -> float:
    """Computes an expected calibration error; see the head of this file.

    A bin is never divided, so groups of equal mass are equal to within a bin.

    Args:
      reliability: the histogram.
      probability_C: of the pairs of each bin.
      adaptive: groups of equal mass among likely pairs, in place of equal width among all.

    Returns:
      In [0, 1]; 0 where there are no pairs.
    """
    kept = (reliability.seen > 0) & (probability_C >= (LIKELY if adaptive else 0))
    seen, positive = reliability.seen[kept], reliability.positive[kept]
    probability = probability_C[kept]
    if not seen.sum():
        return 0.0
    if adaptive:
        order = np.argsort(probability, kind="stable")
        middle = np.empty(len(seen))
        middle[order] = np.cumsum(seen[order]) - seen[order] / 2
        group = (middle / seen.sum() * GROUPS).astype(int)
    else:
        group = np.minimum((probability * GROUPS).astype(int), GROUPS - 1)
    off = np.bincount(group, positive - probability * seen, minlength=GROUPS)
    return float(np.abs(off).sum() / seen.sum())


def scores(reliability: Reliability, mend: Mend | None = None) -> dict[str, float]:
    """Computes how good the probabilities are.

    Args:
      reliability: the histogram.
      mend: applied to probabilities before; it must not fall. None leaves them.

    Returns:
      `ece`, `ece_adaptive`, `brier`, `log_loss`, and of the last two `_at_least` and `_at_most`,
      whatever the probabilities are within their bins.
    """
    low, middle, high = reliability.low, reliability.probability, reliability.high
    if mend is not None:
        low, middle, high = mend(low), mend(middle), mend(high)
    gold, other = reliability.positive, reliability.seen - reliability.positive
    pairs = max(int(reliability.seen.sum()), 1)

    def brier(of_gold: np.ndarray, of_other: np.ndarray) -> float:
        return float((gold * (1 - of_gold) ** 2 + other * of_other**2).sum() / pairs)

    def log_loss(of_gold: np.ndarray, of_other: np.ndarray) -> float:
        z, w = _log_odds(of_gold), _log_odds(of_other)
        return float((gold * np.logaddexp(0, -z) + other * np.logaddexp(0, w)).sum() / pairs)

    found = {
        "ece": calibration_error(reliability, middle, adaptive=False),
        "ece_adaptive": calibration_error(reliability, middle, adaptive=True),
    }
    for name, score in (("brier", brier), ("log_loss", log_loss)):
        found[name] = score(middle, middle)
        found[f"{name}_at_least"], found[f"{name}_at_most"] = score(high, low), score(low, high)
    return found


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Log-odds z become z / temperature + bias.

    Attributes:
      temperature: above 0; above 1 makes probabilities less sure.
      bias: in log-odds.
    """

    temperature: float = 1.0
    bias: float = 0.0

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Returns the mended probabilities, float64."""
        return special.expit(_log_odds(probability) / self.temperature + self.bias)


def fit_scaling(reliability: Reliability, *, shift: bool) -> Scaling:
    """Fits a scaling by maximum likelihood, which is convex in 1 / temperature and bias.

    Args:
      reliability: of the validation split.
      shift: whether there is a bias.

    Returns:
      The scaling; without positives, or without negatives, the one that changes nothing.
    """
    gold, other = reliability.positive, reliability.seen - reliability.positive
    if not gold.sum() or not other.sum():
        return Scaling()
    z = _log_odds(reliability.probability)

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        logits = line[0] * z + line[1]
        value = gold @ np.logaddexp(0, -logits) + other @ np.logaddexp(0, logits)
        slope = (reliability.seen * special.expit(logits) - gold) / gold.sum()
        return float(value / gold.sum()), np.array([slope @ z, slope.sum() if shift else 0.0])

    # A slope of 0 or below would turn the ranking round.
    bounds = [(1e-3, 1e3), (-50.0, 50.0)]
    slope, bias = optimize.minimize(
        loss, np.array([1.0, 0.0]), jac=True, bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9}
    ).x
    return Scaling(float(1 / slope), float(bias))


def fit_isotonic(reliability: Reliability) -> Isotonic:
    """Fits the isotonic line from probability to share of positives.

    Raises:
      ValueError: there are no pairs.
    """
    seen = reliability.seen
    share = reliability.positive / np.maximum(seen, 1)
    return Isotonic.fit(reliability.probability, share, seen)


class Mends(NamedTuple):
    """The ways of mending, fitted on the validation split."""

    temperature: Scaling
    temperature_and_bias: Scaling
    isotonic: Isotonic

    @classmethod
    def fit(cls, validation: Reliability) -> "Mends":
        """Fits all of them.

        Raises:
          ValueError: there are no pairs.
        """
        alone, shifted = (fit_scaling(validation, shift=shift) for shift in (False, True))
        return cls(alone, shifted, fit_isotonic(validation))
