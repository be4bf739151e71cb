"""Against the study's conventions applied to whole matrices with NumPy and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from jaxcoder.metrics import grid


def expected(case, threshold):
    """What its definitions give: matrices cut to codes that occur and contacts that have some."""
    occurs = case.gold_NxA.any(0)
    coded = case.gold_NxA.any(1)
    gold = case.gold_NxA[np.ix_(coded, occurs)]
    scores = case.scores_NxA[np.ix_(coded, occurs)]
    predicted = scores > np.float32(threshold)
    options = {"zero_division": 0.0}
    found = {"exact_match": sklearn_metrics.accuracy_score(gold, predicted)}
    for average in ("micro", "macro"):
        for name in ("f1", "precision", "recall"):
            function = getattr(sklearn_metrics, f"{name}_score")
            found[f"{average}_{name}"] = function(gold, predicted, average=average, **options)
    order = np.argsort(-scores, axis=1, kind="stable")
    hit = np.take_along_axis(gold & (scores >= 0), order, axis=1)
    counts = gold.sum(1)
    for depth in (5, 8, 15):
        found[f"precision_at_{depth}"] = (hit[:, :depth].sum(1) / depth).mean()
    for depth in (5, 10, 15):
        found[f"recall_at_{depth}"] = (hit[:, :depth].sum(1) / counts).mean()
    precision = np.cumsum(hit, axis=1) / np.arange(1, hit.shape[1] + 1)
    found["map"] = ((precision * hit).sum(1) / counts).mean()
    found["r_precision"] = np.mean([row[:k].mean() for row, k in zip(hit, counts, strict=True)])
    return found | {"num_contacts": coded.sum(), "num_codes": occurs.sum()}


@pytest.mark.parametrize("threshold", [10 / 99, 0.0, 50 / 99])
def test_every_number_is_that_of_whole_matrices(case, rows, threshold):
    found = case.summary(rows, comparable_threshold=threshold).details["comparable"]
    for name, value in expected(case, threshold).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    assert set(found) - set(expected(case, 0.5)) == {"auc_micro", "auc_macro", "threshold"}


def test_the_threshold_is_the_first_of_the_best_on_all_codes_and_contacts(case, rows):
    found = case.summary(rows).details["comparable"]
    tried = np.linspace(0, 1, 100).astype(np.float32)
    gold, scores = case.gold_NxA, case.scores_NxA
    f1 = [2 * (gold & (scores > t)).sum() / ((scores > t).sum() + gold.sum()) for t in tried]
    assert np.float32(found["threshold"]) == tried[np.argmax(f1)]
    again = case.summary(rows, comparable_threshold=found["threshold"]).details["comparable"]
    assert again == found


def test_what_does_not_occur_is_neither_predicted_nor_ranked(make_case, rows):
    case = make_case(0)
    before = case.summary(rows, comparable_threshold=0.0).details["comparable"]
    case.probabilities_NxL[:, 3] = 1.0  # no contact has this one
    after = case.summary(rows, comparable_threshold=0.0)
    same = set(before) - {"auc_micro", "auc_macro"}
    assert {key: after.details["comparable"][key] for key in same} == {
        key: before[key] for key in same
    }
    assert after.metrics["map"] < before["map"]


def test_nothing_gold(make_case, rows):
    case = make_case(0)
    case.gold_NxL[:], case.missing_NxM[:] = False, False
    found = case.summary(rows).details["comparable"]
    assert all(value == 0 for value in found.values())


def test_the_grid_has_the_thresholds_that_the_study_tries():
    for labels in (30, 70_000):
        assert set(grid.COMPARABLE) <= set(grid.threshold_grid(labels, 0.3))
    assert len(grid.COMPARABLE) == 99 and grid.COMPARABLE[1] == np.float32(1 / 99)
