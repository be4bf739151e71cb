"""Measures at coarser granularities, where a prediction in the right category counts as right."""

import collections
import functools
from collections.abc import Callable, Iterable, Mapping

import numpy as np


class GranularCounts:
    """Counts hits of sets of rolled-up codes; memory grows with the codes, not with the contacts.

    Two codes of one category, gold or predicted, count there once.
    """

    def __init__(self, coarsenings: Mapping[str, Callable[[str], str]]) -> None:
        """Starts at zero.

        Args:
          coarsenings: from the name of a granularity to what rolls a code up to it.
        """
        # A code occurs in many contacts, and is rolled up once.
        self._coarsenings = {name: functools.cache(each) for name, each in coarsenings.items()}
        self._counts = {
            name: tuple(collections.Counter[str]() for _ in range(3)) for name in coarsenings
        }

    def add(self, gold: Iterable[str], predicted: Iterable[str]) -> None:
        """Counts a contact.

        Args:
          gold: all its codes, those outside the label space too.
          predicted: the codes assigned to it.
        """
        gold, predicted = list(gold), list(predicted)
        for name, coarser in self._coarsenings.items():
            right, found = set(map(coarser, gold)), set(map(coarser, predicted))
            hits, of_gold, of_predicted = self._counts[name]
            hits.update(right & found)
            of_gold.update(right)
            of_predicted.update(found)

    def rows(self) -> list[dict[str, str | float]]:
        """A row a granularity: granularity, micro_f1, micro_precision, micro_recall, macro_f1.

        Macro-F1 is the mean over the codes, rolled up, that are gold somewhere.
        """
        rows: list[dict[str, str | float]] = []
        for name, (hits, gold, predicted) in self._counts.items():
            each = [2 * hits[code] / (gold[code] + predicted[code]) for code in gold]
            tp, right, found = hits.total(), gold.total(), predicted.total()
            rows.append(
                {
                    "granularity": name,
                    "micro_f1": 2 * tp / max(right + found, 1),
                    "micro_precision": tp / max(found, 1),
                    "micro_recall": tp / max(right, 1),
                    "macro_f1": float(np.mean(each)) if each else 0.0,
                }
            )
        return rows
