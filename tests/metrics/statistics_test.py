"""How the statistics are gathered does not show in them."""

import numpy as np
import pytest

from jaxcoder import sharding
from jaxcoder.metrics import statistics


def _equal(first: statistics.Totals, second: statistics.Totals) -> None:
    for name in ("seen", "seen_uncoded", "positive", "assigned", "hits"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("hits", "predicted", "exact", "exact_occurring", "counts"):
        np.testing.assert_array_equal(
            getattr(first.documents, name), getattr(second.documents, name)
        )
    for name in ("jaccard", "measures", "measures_occurring"):
        np.testing.assert_allclose(
            getattr(first.documents, name), getattr(second.documents, name), rtol=1e-6
        )


def test_batch_by_batch_is_all_at_once(case, rows):
    _equal(case.totals(rows, batch=len(case.loss_N)), case.totals(rows, batch=7))


@pytest.mark.parametrize(("name", "value"), [("WINDOW", 8 * 30 + 1), ("WINDOW_DOCUMENTS", 9)])
def test_windows_on_the_devices_do_not_show(case, rows, monkeypatch, name, value):
    whole = case.totals(rows)
    monkeypatch.setattr(statistics.Accumulator, name, value)
    _equal(whole, case.totals(rows))


def test_sums_keep_what_float32_loses(make_case, rows, monkeypatch):
    case = make_case(0)
    case.loss_N[:], case.loss_N[0] = 1.0, 2.0**24  # to which float32 cannot add 1
    monkeypatch.setattr(statistics.Accumulator, "WINDOW_DOCUMENTS", 8)
    losses = case.totals(rows).documents.measures[:, -1]
    assert losses.dtype == np.float64
    assert abs(losses.sum() - (2**24 + 44)) <= 7  # only the window with the large one rounds


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_eight_devices_count_as_one(case, rows, shape):
    mesh = sharding.make_mesh(*shape)
    _equal(
        case.totals(rows, batch=16),
        case.totals(sharding.batch_sharding(mesh, sharding.ShardingRules()), batch=16),
    )
