"""A share of the patients of a split, for learning curves."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar, overload

import numpy as np

T = TypeVar("T")


class Subset(Sequence[T]):
    """Some records of a sequence, in its order."""

    def __init__(self, records: Sequence[T], numbers: np.ndarray) -> None:
        """Reads nothing.

        Args:
          records: all of them.
          numbers: int [n], which ones, rising.
        """
        self._records, self._numbers = records, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._records[int(number)] for number in self._numbers[index]]
        return self._records[int(self._numbers[index])]


def of_patients(patient_ids: Iterable[str], share: float) -> np.ndarray:
    """Which records belong to a share of the patients.

    It depends on the ids alone, so that a smaller share's patients are among those of a larger one,
    and all contacts of a patient stay together.

    Args:
      patient_ids: of each record.
      share: in (0, 1].

    Returns:
      int64 [n], numbers of the records, rising.
    """
    limit = share * 2.0**64
    return np.flatnonzero([_place(each) < limit for each in patient_ids])


def _place(patient_id: str) -> int:
    # Not the hash that decides the split: there the training patients have its low values.
    digest = hashlib.blake2b(f"subset:{patient_id}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
