"""Chance, as one stream of numbers a patient."""

import bisect
import hashlib
import math
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draws for one patient, the same on every machine and Python version.

    Only `Random.random` is used: Python promises its sequence for a seed, and not that of its other
    methods.
    """

    def __init__(self, seed: int, patient: int, stream: str = "") -> None:
        """Starts the stream of a patient, or another one of that name: of the arguments alone."""
        name = f"{seed}:{patient}:{stream}" if stream else f"{seed}:{patient}"
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        self.random = random.Random(int.from_bytes(digest, "big")).random

    def below(self, count: int) -> int:
        """A whole number in [0, count)."""
        return int(self.random() * count)

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all equally likely."""
        return items[int(self.random() * len(items))]

    def weighted(self, items: Sequence[T], cumulative: Sequence[float]) -> T:
        """One of the items, by their cumulative weights."""
        place = bisect.bisect_right(cumulative, self.random() * cumulative[-1])
        return items[min(place, len(items) - 1)]

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.random()

    def exponential(self, mean: float) -> float:
        """A waiting time."""
        return -mean * math.log(1.0 - self.random())

    def count(self, mean: float) -> int:
        """A Poisson count (Knuth's method: time grows with the mean, which is small here)."""
        limit, product, count = math.exp(-mean), self.random(), 0
        while product > limit:
            product *= self.random()
            count += 1
        return count

    def triangular(self, low: float, peak: float, high: float) -> float:
        """A number from the triangular distribution."""
        if high <= low:
            return low
        place, turn = self.random(), (peak - low) / (high - low)
        if place < turn:
            return low + math.sqrt(place * (high - low) * (peak - low))
        return high - math.sqrt((1.0 - place) * (high - low) * (high - peak))

    def shuffle(self, items: list[T]) -> None:
        """Shuffles in place."""
        for place in range(len(items) - 1, 0, -1):
            other = int(self.random() * (place + 1))
            items[place], items[other] = items[other], items[place]
