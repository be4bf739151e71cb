"""The threshold with the highest micro-F1 of all, in two passes and little memory.

The first pass counts at a grid of thresholds. Between two neighbours F1 cannot be higher than with
every gold score between them above the threshold and every other below: most gaps of the grid are
thereby out of the question. The second pass collects the scores in the gaps that are left, equal
ones as one with a count, and sorts them.

Memory: a gap holds a finite number of different float32, at most half a million between
probabilities of 1e-7 and 1, of the fine grid; some tens of gaps are left as a rule.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxcoder import sharding
from jaxcoder.errors import UserError
from jaxcoder.metrics import grid


def open_gaps(hits_E: np.ndarray, predicted_E: np.ndarray, gold: int) -> np.ndarray:
    """Tells where a threshold better than all of the grid's could lie.

    Args:
      hits_E: predictions above each threshold that are gold.
      predicted_E: predictions above each threshold.
      gold: gold codes, those outside the label space included.

    Returns:
      bool [C], C = E + 1: whether bin c, of what exceeds exactly c thresholds, is to be looked
      into.
    """
    best = grid.f1(hits_E, predicted_E, gold).max()
    gained = hits_E[:-1] - hits_E[1:]
    bound = grid.f1(hits_E[:-1], predicted_E[1:] + gained, gold)
    # Nothing lies below the first threshold, which is 0, nor between the last one and 1.
    return np.concatenate([[False], bound > best, [False]])


@jax.jit
def _wanted(
    probabilities_BxL: jax.Array, mask_B: jax.Array, edges_E: jax.Array, open_C: jax.Array
) -> tuple[jax.Array, jax.Array]:
    bins_BxL = jnp.searchsorted(edges_E, probabilities_BxL, side="left")
    wanted_BxL = open_C[bins_BxL] & mask_B[:, None]
    most = jnp.max(jnp.sum(wanted_BxL, axis=1))
    return jnp.where(wanted_BxL, probabilities_BxL, -1.0), most


@functools.partial(jax.jit, static_argnames="count")
def _pick(wanted_BxL: jax.Array, labels_BxK: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    values, labels = jax.lax.top_k(wanted_BxL, count)
    return values, jnp.any(labels[..., None] == labels_BxK[:, None], axis=-1)


class Scores:
    """The scores in the open gaps, equal ones as one."""

    LIMIT = 2**24
    """Of different scores that are held; 200 MB."""

    _AT_A_TIME = 2**20  # scores that wait until equal ones are merged

    def __init__(self, edges_E: np.ndarray, open_C: np.ndarray) -> None:
        """Starts empty.

        Args:
          edges_E: float32, the grid.
          open_C: from `open_gaps`.
        """
        self._edges, self._open = edges_E, open_C
        self._value = np.zeros(0, np.float32)
        self._seen = self._positive = np.zeros(0, np.int64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, probabilities_BxL: jax.Array, labels_BxK: jax.Array, mask_B: jax.Array) -> None:
        """Adds a batch of global arrays; every process has to call it, and all get the same.

        Args:
          probabilities_BxL: float32 in [0, 1].
          labels_BxK: int32, the gold labels, −1 for padding.
          mask_B: bool, false on padding rows.

        Raises:
          UserError: there are more than `LIMIT` different scores.
        """
        wanted_BxL, most = _wanted(probabilities_BxL, mask_B, self._edges, self._open)
        needed, count = int(sharding.whole(most)), 1
        if not needed:
            return
        while count < needed:  # few sizes, because each compiles
            count *= 2
        count = min(count, wanted_BxL.shape[1])
        values, gold = sharding.whole(_pick(wanted_BxL, labels_BxK, count))
        found = values >= 0
        self._waiting.append((values[found], gold[found]))
        if sum(len(each) for each, _ in self._waiting) > self._AT_A_TIME:
            self._merge()

    def _merge(self) -> None:
        values, gold = zip(*self._waiting, strict=True) if self._waiting else ((), ())
        self._waiting = []
        self._value, place = np.unique(np.concatenate([self._value, *values]), return_inverse=True)
        for name, new in (
            ("_seen", [np.ones(len(each), np.int64) for each in gold]),
            ("_positive", [each.astype(np.int64) for each in gold]),
        ):
            total = np.zeros(len(self._value), np.int64)
            np.add.at(total, place, np.concatenate([getattr(self, name), *new]))
            setattr(self, name, total)
        if len(self._value) > self.LIMIT:
            raise UserError(
                f"--tune exact: more than {self.LIMIT:,} different probabilities are as good a "
                "threshold as any; use --tune grid"
            )

    def best(self, hits_E: np.ndarray, predicted_E: np.ndarray, gold: int) -> tuple[float, float]:
        """Finds the threshold with the highest micro-F1, and that.

        Args:
          hits_E: as of `open_gaps`.
          predicted_E: likewise.
          gold: likewise.

        Returns:
          A threshold that float32 holds exactly, and its micro-F1. Where no score between two of
          the grid is better, the grid's; else the middle between two scores, the highest of
          several that are equally good.
        """
        self._merge()
        at = grid.tune(hits_E, predicted_E, gold)
        of_grid = float(grid.f1(hits_E[at], predicted_E[at], gold))
        if not len(self._value):
            return grid.shown(self._edges[at]), of_grid
        value, seen, positive = (x[::-1] for x in (self._value, self._seen, self._positive))
        gap = np.searchsorted(self._edges, value, side="left")
        first = np.flatnonzero(np.diff(gap, prepend=-1))
        length = np.diff(first, append=len(gap))

        def within(count: np.ndarray) -> np.ndarray:  # the sum down to each score of a gap
            total = np.cumsum(count)
            return total - np.repeat(total[first] - count[first], length)

        f1 = grid.f1(hits_E[gap] + within(positive), predicted_E[gap] + within(seen), gold)
        place = int(np.argmax(f1))
        if f1[place] <= of_grid:
            return grid.shown(self._edges[at]), of_grid
        below = self._edges[gap[place] - 1]
        if place + 1 < len(value):
            below = max(below, value[place + 1])
        middle = np.float32((float(value[place]) + float(below)) / 2)
        return grid.shown(middle if middle < value[place] else below), float(f1[place])
