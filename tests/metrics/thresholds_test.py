"""Against brute force over the grid, code by code and specialty by specialty."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from jaxcoder import sharding
from jaxcoder.metrics import grid, thresholds
from jaxcoder.metrics.thresholds import Thresholds, tune_by_code, tune_by_specialty


def best_f1(gold, scores):
    edges = grid.threshold_grid(30)
    return max(f1_score(gold.ravel(), (scores > edge).ravel(), zero_division=0.0) for edge in edges)


def test_each_code_has_its_best_or_the_one_for_all(make_case, rows, monkeypatch):
    case = make_case(0, contacts=80)
    support = case.gold_NxL.sum(0)
    codes = [f"A{label:02}" for label in range(30)]
    found = tune_by_code(case.totals(rows), codes, 0.4)
    assert {code for code, count in zip(codes, support, strict=True) if count >= 10} == set(
        found.own
    )
    assert 0 < len(found.own) < 30
    decision = found.decision(codes)
    assert decision.shape == (1, 30) and decision.dtype == np.float32
    for label, code in enumerate(codes):
        if code not in found.own:
            assert decision[0, label] == np.float32(0.4)
            continue
        gold, scores = case.gold_NxL[:, label], case.probabilities_NxL[:, label]
        mine = f1_score(gold, scores > decision[0, label], zero_division=0.0)
        assert mine == pytest.approx(best_f1(gold, scores))


def test_each_specialty_has_its_best(make_case, rows, monkeypatch):
    case = make_case(1, contacts=60)
    case.group_N[:3], case.group_N[3:] = 2, case.group_N[3:] % 2
    monkeypatch.setitem(thresholds.LEAST, "specialty", 40)
    names = ("heart", "lung", "rare")
    found = tune_by_specialty(case.totals(rows), names, 0.4)
    assert set(found.own) == {"heart", "lung"}
    for number, name in enumerate(names[:2]):
        mine = case.group_N == number
        gold, scores = case.gold_NxA[mine], case.scores_NxA[mine]
        edge = np.float32(found.own[name])
        f1 = f1_score(gold.ravel(), (scores > edge).ravel())
        assert f1 == pytest.approx(best_f1(gold, scores))
    # In the order of another split's names, one of which validation lacked.
    np.testing.assert_array_equal(
        found.decision(("eye", "lung")), np.float32([[0.4], [found.own["lung"]]])
    )


def test_eight_devices_count_by_group_as_one(make_case, rows):
    case = make_case(2)
    eight = sharding.batch_sharding(sharding.make_mesh(), sharding.ShardingRules())
    one, other = (case.totals(each, 16).documents for each in (rows, eight))
    for name in ("group_hits", "group_predicted", "group_gold"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.group_hits.sum(0), one.hits[:-1])
    np.testing.assert_array_equal(one.group_predicted.sum(0), one.predicted[:-1])
    assert one.group_gold.sum() == case.gold_NxA.sum()


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="expected one of code, specialty"):
        Thresholds("ward", 0.5, {})
