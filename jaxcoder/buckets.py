"""Buckets: the few padded lengths that batches have, chosen for the least padding."""

from collections.abc import Callable, Sequence

import numpy as np

_BINS = 512  # lengths told apart while choosing


def batch_counts(
    counts: Sequence[int] | np.ndarray, rows: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Batches of each bucket, where a bucket's last batch is filled up with shorter documents.

    Args:
      counts: documents whose own bucket it is, shortest bucket first.
      rows: rows of a batch of each bucket.

    Returns:
      int64 [buckets]. Only the shortest bucket in use can have padding rows.
    """
    result = np.zeros(len(counts), np.int64)
    taken = 0  # documents of this bucket that stand in longer batches already
    for number in reversed(range(len(counts))):
        left = int(counts[number]) - taken
        if left > 0:
            result[number] = -(-left // int(rows[number]))
            taken = int(result[number]) * int(rows[number]) - left
        else:
            taken = -left
    return result


def choose(
    lengths: np.ndarray, longest: int, count: int, multiple: int, rows: Callable[[int], int]
) -> tuple[int, ...]:
    """Chooses bucket lengths.

    Dynamic programming finds the lengths with the least padding for batches of a fixed number of
    rows; from there each length is moved as long as that lowers the tokens of whole batches, filled
    up as in `batch_counts`.

    Args:
      lengths: int [N], tokens of typical documents.
      longest: tokens of the longest document there may be.
      count: buckets at most.
      multiple: of which each length is a multiple.
      rows: from a length to the rows of a batch.

    Returns:
      Lengths, rising; the last is at least `longest`.
    """
    top = -(-longest // multiple)
    step = -(-top // _BINS)  # lengths, in units of `multiple`, that are tried
    unit = multiple * step
    top = -(-longest // unit)
    need = np.sort(-(-lengths // unit))[::-1]  # long documents first

    def start(every: int, coarse: int) -> list[int]:
        # Only the longest document of a batch decides which bucket it needs.
        ends = -(-need[::every] // coarse)
        best = _least_padding(np.cumsum(np.bincount(ends, minlength=-(-top // coarse) + 1)), count)
        return [*sorted({end * coarse for end in best if end * coarse < top}), top]

    below = np.cumsum(np.bincount(need, minlength=top + 1)).tolist()
    size = [0, *(rows(end * unit) for end in range(1, top + 1))]

    def computed(ends: Sequence[int]) -> int:
        tokens = 0
        first = len(need)  # of the documents, short ones first, that stand in longer batches
        for end, shorter in zip(reversed(ends), [*reversed(ends[:-1]), 0], strict=True):
            if (left := first - below[shorter]) > 0:
                batches = -(-left // size[end])
                tokens += batches * size[end] * end
                first -= batches * size[end]
        return tokens

    typical = rows(int(np.median(need)) * unit)
    # Descent ends in the nearest hollow, so it starts from several places.
    starts = [start(every, coarse) for every in (1, typical, 2 * typical) for coarse in (1, 2, 3)]
    best = min((_descend(ends, computed) for ends in starts), key=computed)
    return tuple(end * unit for end in best)


def _least_padding(below: np.ndarray, count: int) -> list[int]:
    """The ends, the last one included, that minimise Σ end × documents between the ends."""
    top = len(below) - 1
    end = np.arange(top + 1)
    cost = end * below.astype(np.float64)  # with one bucket
    previous = []
    # [from, to]: documents between are padded to `to`.
    added = end[None, :] * (below[None, :] - below[:, None]).astype(np.float64)
    added[np.tril_indices(top + 1)] = np.inf
    for _ in range(1, count):
        through = cost[:, None] + added
        choice = through.argmin(axis=0)
        value = through[choice, end]
        previous.append(np.where(value < cost, choice, -1))
        cost = np.minimum(cost, value)
    ends = [top]
    for choice in reversed(previous):
        before = int(choice[ends[0]])
        if before > 0:
            ends.insert(0, before)
    return ends


def _descend(ends: list[int], computed: Callable[[Sequence[int]], int]) -> list[int]:
    """Moves one end at a time, the last never, until nothing gains."""
    best = computed(ends)
    improved = True
    while improved:
        improved = False
        for place in range(len(ends) - 1):
            low = ends[place - 1] + 1 if place else 1
            for end in range(low, ends[place + 1]):
                trial = [*ends[:place], end, *ends[place + 1 :]]
                if (cost := computed(trial)) < best:
                    ends, best, improved = trial, cost, True
    return ends
