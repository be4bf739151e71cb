import itertools

import numpy as np
import pytest

from jaxcoder import packed_batches
from jaxcoder.errors import UserError
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.packed_batches import Packed
from jaxcoder.packing import PackingOptions
from jaxcoder.sharding import Share

ROW, ROWS = 16, 4


class Tokens:
    """Token records at hand: every token of every document is another number."""

    path = "DATA"

    def __init__(self, lengths: dict[str, list[int]]) -> None:
        self.splits = tuple(lengths)
        count = itertools.count(1)
        self._records = {
            split: [{"tokens": np.array([next(count) for _ in range(n)], np.int32)} for n in each]
            for split, each in lengths.items()
        }

    def lengths(self, split):
        return np.array([len(record["tokens"]) for record in self._records[split]], np.int32)

    def batch_source(self, split):
        return self._records[split]


LENGTHS = {
    "train": np.random.default_rng(0).integers(3, 60, 40).tolist() + [2, 2],
    "background": np.random.default_rng(1).integers(3, 30, 25).tolist(),
    "validation": [20, 7, 3, 5],
}
DATA = Tokens(LENGTHS)


def packed(seed=0, **more):
    return Packed(DATA, ("train", "background"), PackingOptions(rows=ROWS), ROW, seed, **more)


def pieces(batches):
    """The pieces of some batches, each as a tuple of its tokens."""
    return [
        tuple(tokens[segments == number].tolist())
        for batch in batches
        for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True)
        for number in range(1, segments.max() + 1)
    ]


def test_an_epoch_has_every_piece_of_every_document_once():
    plan = packed()
    assert (plan.documents, plan.without_text) == (65, 2)
    epoch = list(plan.batches(0, plan.steps_per_epoch, Share()))
    expected = [
        tuple(record["tokens"][start : start + ROW].tolist())
        for split in ("train", "background")
        for record in DATA.batch_source(split)
        if len(record["tokens"]) > 2
        for start in range(0, len(record["tokens"]), ROW)
    ]
    assert sorted(pieces(epoch)) == sorted(expected)
    assert plan.tokens == sum(map(len, expected))


def test_pieces_stand_one_after_another_and_padding_behind_them():
    for batch in packed().batches(0, 20, Share()):
        assert batch["tokens"].shape == batch["segments"].shape == (ROWS, ROW)
        for tokens, segments in zip(batch["tokens"], batch["segments"], strict=True):
            real = int((segments != 0).sum())
            assert np.all(segments[real:] == 0) and np.all(tokens[real:] == 0)
            assert set(np.diff(segments[:real])) <= {0, 1} and segments[0] in (0, 1)


def test_processes_share_the_rows_of_one_global_batch():
    whole = list(packed().batches(3, 6, Share()))
    halves = [packed().batches(3, 6, Share((index,), 2)) for index in (0, 1)]
    for batch, *parts in zip(whole, *halves, strict=True):
        for key, value in batch.items():
            np.testing.assert_array_equal(value, np.concatenate([part[key] for part in parts]))


def test_a_run_that_goes_on_sees_what_it_would_have_seen():
    plan = packed()
    steps = plan.steps_per_epoch
    whole = list(packed().batches(0, 2 * steps + 2, Share()))
    rest = packed().batches(steps - 1, 2 * steps + 2, Share())
    for batch, again in zip(rest, whole[steps - 1 :], strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], again[key])
    first, second = pieces(whole[:steps]), pieces(whole[steps : 2 * steps])
    assert first != second and sorted(first) == sorted(second)
    assert pieces(packed(seed=1).batches(0, steps, Share())) != first


def test_the_documents_of_a_batch_are_named_by_their_split():
    plan = packed()
    for step, batch in enumerate(plan.batches(0, plan.steps_per_epoch + 1, Share())):
        tokens = set(batch["tokens"].flat) - {0}
        expected = {
            split: [
                number
                for number, record in enumerate(DATA.batch_source(split))
                if len(record["tokens"]) > 2 and tokens.intersection(record["tokens"].tolist())
            ]
            for split in ("train", "background")
        }
        assert plan.documents_at(step) == {k: v for k, v in expected.items() if v}


def test_held_out_text_is_always_in_the_same_order():
    plan = Packed(DATA, ("validation",), PackingOptions(rows=1), ROW)
    assert plan.steps_per_epoch == 3
    passes = [[batch["tokens"].tolist() for batch in plan.batches(0, 3, Share())] for _ in range(2)]
    assert passes[0] == passes[1]
    numbers = [batch["row"].tolist() for batch in plan.batches(0, 3, Share())]
    assert numbers == [[0], [1], [2]]
    assert Packed(DATA, ("validation",), PackingOptions(), ROW, most=2).documents == 2


def test_mistakes_are_one_clear_line():
    with pytest.raises(UserError, match=r"split 'backgruond': DATA has train, background, val"):
        Packed(DATA, ("backgruond",), PackingOptions(), ROW)
    with pytest.raises(UserError, match="no record of train has text to learn from"):
        Packed(Tokens({"train": [2, 2]}), ("train",), PackingOptions(), ROW)
    with pytest.raises(UserError, match="config.packing.rows = 4: 3 devices do not divide it"):
        packed_batches.check_rows(PackingOptions(rows=4), 3)


@pytest.mark.parametrize(
    ("length", "encoder", "expected"),
    [
        (0, EncoderOptions(window=128), 128),
        (128, EncoderOptions(window=128), 128),
        (
            512,
            EncoderOptions(window=128),
            "bert reads windows of config.model.encoder.window = 128",
        ),
        (64, EncoderOptions(window=128), "bert reads windows of config.model.encoder.window = 128"),
        (512, EncoderOptions(family="modernbert"), 512),
        (0, EncoderOptions(family="modernbert", max_positions=1024), 1024),
        (0, EncoderOptions(family="modernbert"), "set the tokens of a row, such as 1024"),
        (2048, EncoderOptions(family="modernbert", max_positions=1024), "set at most that"),
    ],
)
def test_a_row_is_as_long_as_the_encoder_has_positions(length, encoder, expected):
    options = PackingOptions(length=length)
    if isinstance(expected, int):
        assert packed_batches.row_length(options, encoder) == expected
        return
    with pytest.raises(UserError, match=f"config.packing.length = {length}: .*{expected}"):
        packed_batches.row_length(options, encoder)
