"""Isotonic regression: the best rising line through points, for scores that become probabilities.

The pool-adjacent-violators algorithm is that of `scipy.optimize.isotonic_regression`; ties are
merged before, and what lies between two points is interpolated.
"""

import dataclasses

import numpy as np
from scipy import optimize


@dataclasses.dataclass(frozen=True)
class Isotonic:
    """A line that never falls.

    Attributes:
      x: float64, ascending.
      y: float64, not descending.
    """

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def fit(
        cls, x_N: np.ndarray, y_N: np.ndarray, weight_N: np.ndarray | None = None
    ) -> "Isotonic":
        """Fits by weighted least squares.

        Args:
          x_N: scores, finite.
          y_N: what is to be told by them.
          weight_N: of each point, at least 0; None is 1 each.

        Raises:
          ValueError: no point has weight, or a score is not finite.
        """
        weight_N = np.ones(len(x_N)) if weight_N is None else np.asarray(weight_N, np.float64)
        kept = weight_N > 0
        if not kept.any() or not np.isfinite(x_N[kept]).all():
            raise ValueError("x_N: expected at least one point with weight, and finite scores")
        x, place = np.unique(np.asarray(x_N, np.float64)[kept], return_inverse=True)
        weight = np.bincount(place, weight_N[kept])
        mean = np.bincount(place, weight_N[kept] * y_N[kept]) / weight
        return cls(x, optimize.isotonic_regression(mean, weights=weight).x)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns the line at these scores, float64; beyond its ends it is level."""
        return np.interp(x, self.x, self.y)
