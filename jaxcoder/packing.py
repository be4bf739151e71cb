"""Packing: pieces of documents side by side in rows of one length, with next to no padding.

The plan of an epoch is a pure function of the documents' lengths, the seed and the epoch.
"""

import bisect
import dataclasses
from typing import NamedTuple

import numpy as np

from jaxcoder.records.schema import SCORED


@dataclasses.dataclass(frozen=True)
class PackingOptions:
    """Which documents are packed, and into what.

    Attributes:
      splits: that are trained on; never those that are scored.
      held_out: the split that masked accuracy is measured on.
      held_out_documents: of it at most, evenly spaced; 0 for all.
      length: tokens of a row (T); 0 for the encoder's window, or its longest document. Longer
        documents are cut in pieces of so many tokens.
      rows: rows of a batch, over all processes.
    """

    splits: tuple[str, ...] = ("train",)
    held_out: str = "validation"
    held_out_documents: int = 0
    length: int = 0
    rows: int = 32

    def __post_init__(self) -> None:
        if scored := [split for split in self.splits if split in SCORED]:
            raise ValueError(
                f"splits = {list(self.splits)}: expected none of those that are scored, "
                f"{' and '.join(SCORED)}, whose text an encoder must not know; leave out "
                f"{' and '.join(scored)}"
            )
        if not self.splits or self.held_out in self.splits:
            raise ValueError(
                f"splits = {list(self.splits)}: expected at least one, and not held_out = "
                f"{self.held_out!r}"
            )
        if self.rows < 1:
            raise ValueError(f"rows = {self.rows}: expected at least 1")
        for key in ("held_out_documents", "length"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 or more")


class Pieces(NamedTuple):
    """Documents cut in pieces of at most a row, in the order of the documents.

    Attributes:
      document: int32 [P], number of the document.
      start: int32 [P], its first token in the document, a multiple of the row's length.
      length: int32 [P], tokens, at least 1.
    """

    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Which pieces stand in which row.

    Attributes:
      pieces: int64 [P], numbers of the pieces, row after row; each piece once.
      ends: int64 [R + 1], row r has pieces[ends[r] : ends[r + 1]].
    """

    pieces: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """The pieces of a row, longest first."""
        return self.pieces[self.ends[row] : self.ends[row + 1]]


def cut(lengths: np.ndarray, most: int) -> Pieces:
    """Cuts documents at the multiples of `most` tokens; an empty document has no piece.

    Args:
      lengths: int [N], tokens of each document.
      most: tokens of a row.
    """
    counts = -(-lengths.astype(np.int64) // most)
    document = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = (number * most).astype(np.int32)
    return Pieces(document, start, np.minimum(lengths[document] - start, most).astype(np.int32))


def pack(lengths: np.ndarray, row_length: int, rng: np.random.Generator | None) -> Rows:
    """Puts pieces in rows, best fit first, longest pieces first.

    Which lengths stand together is decided from how many pieces there are of each, as in Krell et
    al. (arXiv:2107.02027): so the number of rows is the same in every epoch, and the time hardly
    grows with the number of pieces. Which pieces of these lengths, and the order of rows, is drawn.

    Args:
      lengths: int [P], tokens of each piece, from 1 to `row_length`.
      row_length: tokens of a row.
      rng: draws; None leaves pieces of a length, and rows, in order.
    """
    drawn = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    drawn = drawn[np.argsort(lengths[drawn], kind="stable")]
    counts = np.bincount(lengths, minlength=row_length + 1)
    first = np.cumsum(counts) - counts  # of each length, the first in `drawn` that is left
    blocks, sizes = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for count, recipe in _recipes(counts, row_length):
        block = np.empty((count, len(recipe)), np.int64)
        for column, length in enumerate(recipe):
            block[:, column] = drawn[first[length] : first[length] + count]
            first[length] += count
        blocks.append(block.ravel())
        sizes.append(np.full(count, len(recipe)))
    size = np.concatenate(sizes)
    rows = Rows(np.concatenate(blocks), np.concatenate([[0], np.cumsum(size)]))
    return rows if rng is None else _reordered(rows, rng.permutation(len(rows)))


def _recipes(counts: np.ndarray, row_length: int) -> list[tuple[int, tuple[int, ...]]]:
    """How many rows there are of which lengths: best-fit decreasing, many rows at a time.

    Args:
      counts: int [row_length + 1], pieces of each length.
      row_length: tokens of a row.
    """
    open_rows: dict[int, list[tuple[int, tuple[int, ...]]]] = {row_length: []}
    rooms: list[int] = []  # keys of `open_rows` that have some, rising

    def put(room: int, count: int, recipe: tuple[int, ...]) -> None:
        if not open_rows.setdefault(room, []):
            bisect.insort(rooms, room)
        open_rows[room].append((count, recipe))

    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            place = bisect.bisect_left(rooms, length)
            if place == len(rooms):
                new = -(-left // (row_length // length))
                put(row_length - length, new, (length,))
                left -= new
                continue
            room = rooms[place]
            count, recipe = open_rows[room].pop()
            if not open_rows[room]:
                del rooms[place]
            used = min(count, left)
            put(room - length, used, (*recipe, length))
            if used < count:
                put(room, count - used, recipe)
            left -= used
    return [each for room in sorted(open_rows) for each in open_rows[room]]


def _reordered(rows: Rows, order: np.ndarray) -> Rows:
    sizes = np.diff(rows.ends)[order]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    shift = np.repeat(rows.ends[:-1][order] - ends[:-1], sizes)
    return Rows(rows.pieces[np.arange(len(rows.pieces)) + shift], ends)
