import numpy as np
import pytest

from jaxcoder.batch_plan import BatchOptions, padding_share, plan_evaluation
from jaxcoder.errors import UserError
from jaxcoder.settings import build

LENGTHS = np.random.default_rng(0).lognormal(6, 0.5, 500).astype(int).clip(5, 4000)


@pytest.mark.parametrize(
    "options",
    [
        BatchOptions(),
        BatchOptions(tokens=4096),
        BatchOptions(buckets=(500, 2000, 4000), documents=7),
    ],
)
def test_every_record_stands_in_one_batch_that_is_long_enough(options):
    planned, lengths = plan_evaluation(LENGTHS, options)
    items = np.concatenate([batch.items for batch in planned])
    assert sorted(items[items >= 0].tolist()) == list(range(500))
    for batch in planned:
        real = batch.items[batch.items >= 0]
        assert LENGTHS[real].max() <= batch.length
        assert batch.length in lengths and len(batch.items) == options.rows(batch.length)
    assert len({batch.length for batch in planned}) <= 8
    # Only the last batch, of the shortest length, has padding rows.
    assert all((batch.items >= 0).all() for batch in planned[:-1])
    assert planned[-1].length == min(batch.length for batch in planned)
    computed = sum(batch.length * len(batch.items) for batch in planned)
    assert padding_share(planned, LENGTHS) == pytest.approx(1 - LENGTHS.sum() / computed)


def test_some_of_the_records_stand_in_batches_of_the_same_lengths():
    options = BatchOptions(tokens=4096)
    planned, lengths = plan_evaluation(LENGTHS, options, most=50)
    items = np.concatenate([batch.items for batch in planned])
    assert sorted(items[items >= 0].tolist()) == list(range(0, 500, 10))
    assert lengths == plan_evaluation(LENGTHS, options)[1]
    assert sum(len(batch.items) for batch in planned) < 100


def test_rows_of_a_token_budget():
    options = BatchOptions(tokens=4096, row_multiple=4, max_documents=50)
    assert [options.rows(length) for length in (16, 100, 512, 1000, 2000, 9000)] == [
        48,
        40,
        8,
        4,
        4,
        4,
    ]
    assert BatchOptions(tokens=4096).rows(4097) == 1
    assert BatchOptions(documents=24).rows(4097) == 24


def test_buckets_that_are_too_short_are_said():
    with pytest.raises(UserError, match=r"buckets = \[64, 128\]: the longest record has"):
        plan_evaluation(LENGTHS, BatchOptions(buckets=(128, 64)))


@pytest.mark.parametrize(
    "values",
    [{"documents": 0}, {"tokens": -1}, {"mini_share": -0.5}, {"buckets": [0]}, {"max_buckets": 0}],
)
def test_options_have_ranges(values):
    with pytest.raises(UserError, match=f"config.batches: {next(iter(values))} = .*expected"):
        build(BatchOptions, values, "config.batches")
