import numpy as np
import pytest

from jaxcoder import packing
from jaxcoder.packing import PackingOptions


def documents(count=500, seed=0):
    return np.random.default_rng(seed).lognormal(4.5, 0.8, count).astype(np.int32)


def test_pieces_are_the_documents_cut_at_multiples_of_a_row():
    pieces = packing.cut(np.array([5, 8, 0, 17, 1]), 8)
    rows = np.stack(pieces, axis=1).tolist()
    assert rows == [[0, 0, 5], [1, 0, 8], [3, 0, 8], [3, 8, 8], [3, 16, 1], [4, 0, 1]]


@pytest.mark.parametrize("row_length", [16, 64, 1000])
@pytest.mark.parametrize("seed", [None, 0])
def test_no_piece_is_lost_or_doubled_and_none_is_too_many(row_length, seed):
    lengths = packing.cut(documents(), row_length).length
    rng = None if seed is None else np.random.default_rng(seed)
    rows = packing.pack(lengths, row_length, rng)
    assert sorted(rows.pieces.tolist()) == list(range(len(lengths)))
    assert sum(len(rows[number]) for number in range(len(rows))) == len(lengths)
    assert max(lengths[rows[number]].sum() for number in range(len(rows))) <= row_length


def test_best_fit_by_hand():
    """Of 7, 6, 4, 3, 3 and 2 in rows of 10: 7 with 3, 6 with 4, then 3 with 2."""
    lengths = np.array([3, 7, 2, 6, 4, 3])
    rows = packing.pack(lengths, 10, None)
    assert sorted(lengths[rows[number]].tolist() for number in range(len(rows))) == [
        [3, 2],
        [6, 4],
        [7, 3],
    ]


@pytest.mark.parametrize("row_length", [64, 256, 1024])
def test_a_few_per_cent_of_padding_at_most(row_length):
    """Seen: 0.2 %."""
    lengths = packing.cut(documents(3000), row_length).length
    rows = packing.pack(lengths, row_length, np.random.default_rng(0))
    assert 1 - lengths.sum() / (row_length * len(rows)) < 0.01


def test_an_epoch_is_another_order_of_as_many_rows():
    lengths = packing.cut(documents(), 64).length
    first, again, second = (
        packing.pack(lengths, 64, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.pieces, again.pieces)
    assert len(first) == len(second)
    assert np.mean(first.pieces == second.pieces) < 0.1
    together = {frozenset(first[number].tolist()) for number in range(len(first))}
    other = {frozenset(second[number].tolist()) for number in range(len(second))}
    alone = {row for row in together if len(row) == 1}
    assert len((together & other) - alone) < 0.1 * len(together - alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": ()}, "expected at least one"),
        (
            {"splits": ("train", "background"), "held_out": "background"},
            "not held_out = 'background'",
        ),
        ({"splits": ("train", "validation")}, "expected none of those that are scored"),
        ({"splits": ("test", "validation"), "held_out": "train"}, "leave out test and validation"),
        ({"rows": 0}, "rows = 0: expected at least 1"),
        ({"length": -1}, "length = -1: expected 0 or more"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        PackingOptions(**options)
