import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxcoder.metrics.auc import auc


def test_by_hand():
    # Negatives 1, 1 and positives 1, 2 in three bins: of 4 pairs 2 are in order, 1 is tied, 1 is
    # reversed.
    area, bound = auc(np.array([1, 0, 1]), np.array([0, 1, 1]))
    assert area == pytest.approx((1 + 0.5) / 4)
    assert bound == pytest.approx(0.5 / 4)


@pytest.mark.parametrize("bins", [3, 10, 100])
def test_error_is_bounded(bins):
    rng = np.random.default_rng(bins)
    gold = rng.random(500) < 0.3
    scores = rng.normal(gold * 1.0, 1.0)
    place = np.digitize(scores, np.linspace(-3, 4, bins - 1))
    positive, negative = (
        np.bincount(place[gold == kind], minlength=bins) for kind in (True, False)
    )
    area, bound = auc(positive, negative)
    assert abs(area - roc_auc_score(gold, scores)) <= bound
    assert area == pytest.approx(roc_auc_score(gold, place))  # binned scores are scores with ties


def test_there_is_none_without_both_kinds():
    area, bound = auc(np.array([[0, 0], [1, 2]]), np.array([[1, 2], [0, 0]]))
    assert np.isnan(area).all() and np.isnan(bound).all()
