import numpy as np
import pytest

from jaxcoder.metrics import grid


def test_the_tuned_threshold_is_the_best_of_all_by_brute_force(case, rows):
    found = case.summary(rows).metrics
    gold = case.gold_NxA

    def f1(threshold):
        predicted = case.scores_NxA > threshold
        return 2 * (predicted & gold).sum() / (predicted.sum() + gold.sum())

    assert found["micro_f1"] == pytest.approx(max(f1(edge) for edge in grid.threshold_grid(30)))
    # The threshold as written, applied by anyone, gives the same score.
    assert found["micro_f1"] == pytest.approx(f1(np.float32(found["threshold"])))
    # And hardly less than what the best of all probabilities would give.
    exact = max(f1(value) for value in np.unique(case.probabilities_NxL))
    assert found["micro_f1"] >= exact - 0.01


def test_a_tuned_threshold_applied_again_gives_the_same_metrics(case, rows):
    tuned = case.summary(rows)
    again = case.summary(rows, threshold=tuned.metrics["threshold"])
    assert again.metrics == tuned.metrics


@pytest.mark.parametrize(("labels", "step"), [(30, 0.004), (70_000, 0.016)])
def test_resolution_is_as_promised(labels, step):
    edges = grid.threshold_grid(labels)
    assert np.diff(edges).max() <= step
    assert edges[0] == 0 and edges[-1] == np.nextafter(np.float32(1), np.float32(0))
    assert edges[1] < 1e-6 and edges[-2] > 1 - 1e-5
    assert len(grid.threshold_grid(labels, 0.123)) == len(
        edges
    )  # the same shapes: nothing compiles anew
    assert np.float32(0.123) in grid.threshold_grid(labels, 0.123)


def test_of_equal_thresholds_the_middle_one():
    assert grid.tune(np.array([0, 2, 2, 2, 0]), np.array([9, 2, 2, 2, 0]), 4) == 2


def test_scores_of_exactly_0_and_1_are_known_to_tie(make_case, rows):
    case = make_case(0)
    case.probabilities_NxL = (case.probabilities_NxL > 0.3).astype(np.float32)
    assert case.summary(rows).details["auc_micro_error_at_most"] == 0
    assert case.summary(rows, threshold=1.0).details["num_predicted"] == 0
    assert 0 < case.summary(rows).metrics["threshold"] < 1
