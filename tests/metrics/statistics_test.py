"""How the statistics are gathered does not show in them."""

import numpy as np
import pytest

from jaxcoder import sharding
from jaxcoder.metrics import measures, statistics


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


@pytest.mark.parametrize(
    ("name", "value"), [("WINDOW", 8 * 30 + 1), ("WINDOW_DOCUMENTS", 9), ("WINDOW_BATCHES", 2)]
)
def test_windows_on_the_devices_do_not_show(case, rows, monkeypatch, name, value):
    whole = case.totals(rows)
    monkeypatch.setattr(statistics.Accumulator, name, value)
    _equal(whole, case.totals(rows))


@pytest.mark.parametrize(("name", "value"), [("WINDOW_DOCUMENTS", 8), ("WINDOW_BATCHES", 1)])
def test_sums_keep_what_float32_loses(make_case, rows, monkeypatch, name, value):
    case = make_case(0)
    case.loss_N[:], case.loss_N[0] = 1.0, 2.0**24  # to which float32 cannot add 1
    monkeypatch.setattr(statistics.Accumulator, name, value)
    losses = case.totals(rows, batch=8).documents.measures[-1]
    assert losses.dtype == np.float64
    assert abs(losses - (2**24 + 44)) <= 7  # only the window with the large one rounds


def test_outcomes_of_each_contact_against_plain_numpy(case, rows):
    threshold = 0.3
    totals, found = case.gather(rows, 7, threshold)
    predicted, gold = case.scores_NxA > np.float32(threshold), case.gold_NxA
    assert (found["gold"] == gold.sum(1)).all()
    assert (found["gold_outside"] == case.missing_NxM.sum(1)).all()
    assert (found["predicted"] == predicted.sum(1)).all()
    assert (found["hits"] == (predicted & gold).sum(1)).all()
    assert (found["loss"] == case.loss_N).all()
    within = predicted[:, : case.gold_NxL.shape[1]]
    right = np.where(within, case.probabilities_NxL, 1 - case.probabilities_NxL.astype(np.float64))
    with np.errstate(divide="ignore"):
        expected = np.log(np.maximum(right, 2.0**-24)).sum(1)
    np.testing.assert_allclose(found["confidence"], expected, rtol=1e-5, atol=1e-5)
    names = measures.OUTCOME_MEASURES[:-1]
    sums = np.stack([found[name] for name in names], axis=1).sum(0, dtype=np.float64)
    np.testing.assert_allclose(sums, totals.documents.measures, rtol=1e-6)


def test_confidence_is_finite_at_the_ends_and_keeps_small_probabilities(make_case, rows):
    case = make_case(0, contacts=3, labels=4)
    case.probabilities_NxL = np.float32([[1, 0, 0, 0], [1, 1, 1, 1], [1e-7, 1e-7, 1e-7, 1e-7]])
    found = case.gather(rows, 8, 0.5)[1]["confidence"]
    np.testing.assert_allclose(found, [0, 0, -4e-7], rtol=1e-6)  # 1 − 1e-7 is 1 − 1.2e-7 in float32
    assert np.isfinite(case.gather(rows, 8, 1.0)[1]["confidence"]).all()


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_eight_devices_count_as_one(case, rows, shape):
    mesh = sharding.make_mesh(*shape)
    eight = sharding.batch_sharding(mesh, sharding.ShardingRules())
    (one, expected), (ours, found) = (case.gather(each, 16, 0.3) for each in (rows, eight))
    _equal(one, ours)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)
