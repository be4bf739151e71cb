"""The best micro-F1 that any coder can reach when codes are left out by chance."""

import collections
import math
from collections.abc import Iterable

from jaxcoder.records.schema import Contact


class Ceiling:
    """The ceiling of micro-F1 over contacts whose truth is known.

    Take a coder that knows every condition present at every contact and the probability q_i that it
    is coded, but not whether it was: that is chance. Write S for the (contact, condition) pairs
    that it predicts. The expected number of true positives is Σ_S q_i, of predictions |S|, of gold
    codes Σ q_i over all pairs. Micro-F1 is 2·TP / (predictions + gold); over many contacts each
    count is close to its expectation, so that

        F(S) = 2 · Σ_{i in S} q_i / (|S| + Σ_i q_i)

    For a given |S| the numerator is largest for the pairs with the largest q, so the best S is a
    prefix of the pairs sorted by q, and the ceiling is the largest F over prefixes. Adding a pair
    raises F exactly when 2·q_i > F, so that the best coder predicts what has q_i > F/2: the best
    threshold of a calibrated coder is half of its best F1 (Lipton et al., 2014, arXiv:1402.1892,
    theorem 1). Conditions that are coded less often than that are better left out.

    Only a histogram over q is kept: its memory grows with the number of distinct probabilities (one
    a condition in the tables), not with contacts.
    """

    def __init__(self) -> None:
        """Starts with no contact."""
        self._pairs: collections.Counter[float] = collections.Counter()

    def add(self, contact: Contact) -> None:
        """Adds a contact's conditions."""
        self.update(condition.probability for condition in contact.conditions)

    def update(self, probabilities: Iterable[float]) -> None:
        """Adds conditions that are present, by the probability that each is coded, in (0, 1]."""
        self._pairs.update(probabilities)

    def merge(self, other: "Ceiling") -> None:
        """Adds the contacts of another."""
        self._pairs.update(other._pairs)

    def state(self) -> list[tuple[float, int]]:
        """The histogram as JSON values."""
        return sorted(self._pairs.items())

    def load(self, state: list[tuple[float, int]]) -> None:
        """The inverse of `state`."""
        self._pairs.update({probability: count for probability, count in state})

    def micro_f1(self) -> float:
        """The ceiling, in [0, 1]; 0 before the first condition."""
        return self._best()[0]

    def threshold(self) -> float:
        """The probability above which the best coder predicts: half of the ceiling."""
        return self._best()[0] / 2

    def predicted_share(self) -> float:
        """Share of the present conditions that the best coder predicts, in [0, 1]."""
        total = self._pairs.total()
        return self._best()[1] / total if total else 0.0

    def _best(self) -> tuple[float, int]:
        # Exact, and so the same in whichever order contacts came.
        gold = math.fsum(probability * count for probability, count in self._pairs.items())
        best, best_predicted, predicted, right = 0.0, 0, 0, 0.0
        for probability, count in sorted(self._pairs.items(), reverse=True):
            predicted += count
            right += probability * count
            score = 2 * right / (predicted + gold) if right else 0.0
            if score > best:
                best, best_predicted = score, predicted
        return best, best_predicted
