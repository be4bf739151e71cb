import itertools

import numpy as np
import pytest

from jaxcoder import buckets


def computed(ends, lengths, rows):
    """Tokens of whole batches, long documents first, by hand."""
    total = 0
    left = sorted(lengths, reverse=True)
    while left:
        end = min(end for end in ends if end >= left[0])
        total += end * rows(end)
        left = left[rows(end) :]
    return total


@pytest.mark.parametrize("rows", [lambda length: 1, lambda length: 4, lambda length: 64 // length])
def test_no_choice_has_much_less_padding(rows):
    """One row a batch is solved exactly; whole batches to a few per cent."""
    lengths = np.random.default_rng(0).lognormal(2.5, 0.5, 60).astype(int).clip(1, 40)
    longest = int(lengths.max())
    best = min(
        computed((*ends, -(-longest // 2) * 2), lengths, rows)
        for ends in itertools.combinations(range(2, longest, 2), 3)
    )
    chosen = buckets.choose(lengths, longest, 4, 2, rows)
    slack = 1.0 if rows(1) == 1 else 1.03
    assert computed(chosen, lengths, rows) <= slack * best


def test_few_lengths_need_few_buckets():
    lengths = np.array([100] * 50 + [300] * 50)
    assert buckets.choose(lengths, 300, 8, 4, lambda length: 10) == (100, 300)
    assert buckets.choose(lengths, 301, 8, 4, lambda length: 10)[-1] == 304
    assert buckets.choose(np.array([3]), 3, 8, 16, lambda length: 10) == (16,)


def test_bounds_hold_for_long_documents():
    lengths = np.random.default_rng(1).integers(1, 60_000, 500)
    chosen = buckets.choose(lengths, 65_536, 8, 16, lambda length: max(1, 65_536 // length))
    assert len(chosen) <= 8 and chosen[-1] >= 65_536
    assert all(length % 16 == 0 for length in chosen) and list(chosen) == sorted(set(chosen))


@pytest.mark.parametrize(
    ("counts", "rows", "expected"),
    [
        ([10, 0, 0], [4, 4, 4], [3, 0, 0]),
        ([10, 5, 0], [4, 4, 4], [2, 2, 0]),  # three of the short ones fill the second up
        ([1, 1, 1], [4, 4, 4], [0, 0, 1]),
        ([0, 1, 5], [8, 4, 2], [0, 0, 3]),
        ([9, 2, 1], [8, 4, 2], [1, 1, 1]),
    ],
)
def test_batches_are_filled_up_with_shorter_documents(counts, rows, expected):
    assert buckets.batch_counts(counts, rows).tolist() == expected
