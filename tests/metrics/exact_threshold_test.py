"""Against scikit-learn's curve over all scores, which a test may hold."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from jaxcoder import sharding
from jaxcoder.errors import UserError
from jaxcoder.metrics import grid
from jaxcoder.metrics.exact_threshold import Scores, open_gaps


def best_of_all(case):
    """The highest micro-F1 over every threshold, codes outside the label space being missed."""
    precision, recall, lowest = precision_recall_curve(
        case.gold_NxL.ravel(), case.probabilities_NxL.ravel()
    )
    # No threshold is below 0, so what has probability 0 is never assigned.
    possible = np.append(lowest > 0, True)
    precision, recall = precision[possible], recall[possible]
    inside, gold = case.gold_NxL.sum(), case.gold_NxA.sum()
    tp = recall * inside
    predicted = np.divide(tp, precision, out=np.zeros_like(tp), where=precision > 0)
    exact = np.round(predicted)
    # Where precision is 0 nothing is hit, and F1 is 0 whatever was predicted.
    return (2 * np.round(tp) / np.maximum(exact + gold, 1)).max()


def f1_at(case, threshold):
    predicted = case.scores_NxA > np.float32(threshold)
    return 2 * (predicted & case.gold_NxA).sum() / (predicted.sum() + case.gold_NxA.sum())


def find(case, rows, batch=8):
    totals = case.totals(rows, batch)
    sums = totals.documents
    hits, predicted = sums.hits[:-1], sums.predicted[:-1]
    counts = hits, predicted, int(case.gold_NxA.sum())
    gaps = open_gaps(*counts)
    scores = Scores(totals.edges, gaps)
    for arrays in case.batches(batch):
        placed = sharding.put_batch(arrays, rows)
        scores.add(placed["probabilities"], placed["labels"], placed["mask"])
    return scores.best(*counts), gaps, scores


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [False, True])
def test_no_threshold_is_better(make_case, rows, seed, ties):
    case = make_case(seed, contacts=200, ties=ties)
    (threshold, f1), gaps, _ = find(case, rows)
    assert f1 == pytest.approx(best_of_all(case), abs=1e-12)
    assert f1_at(case, threshold) == pytest.approx(f1, abs=1e-12)
    assert gaps.sum() < 200  # of 935: the bound leaves most out


def _tied(case, rng):
    case.probabilities_NxL = rng.choice(
        np.array([0.4, 0.401, 0.4015, 0.9], np.float32), case.gold_NxL.shape
    )


def _neighbours(case, rng):  # four float32 side by side, between which only their bits decide
    start = np.float32(0.3).view(np.int32)
    steps = rng.integers(0, 3, case.gold_NxL.shape) + case.gold_NxL
    case.probabilities_NxL = (start + steps).astype(np.int32).view(np.float32)


def _on_the_grid(case, rng):
    case.probabilities_NxL = rng.choice(grid.threshold_grid(30), case.gold_NxL.shape)


def _all_alike(case, rng):
    case.probabilities_NxL[:] = 0.25


def _certain(case, rng):
    case.probabilities_NxL = rng.integers(0, 2, case.gold_NxL.shape).astype(np.float32)


def _tiny(case, rng):
    case.probabilities_NxL = (case.probabilities_NxL * 1e-9).astype(np.float32)


def _nothing_gold(case, rng):
    case.gold_NxL[:], case.missing_NxM[:] = False, False


def _all_gold(case, rng):
    case.gold_NxL[:] = np.arange(case.gold_NxL.shape[1]) < 20
    case.probabilities_NxL[:, 20:] = 0.0


def _gold_lowest(case, rng):
    case.probabilities_NxL = 1 - case.probabilities_NxL


@pytest.mark.parametrize(
    "spoil",
    [
        *(_tied, _neighbours, _on_the_grid, _all_alike, _certain, _tiny, _nothing_gold),
        *(_all_gold, _gold_lowest),
    ],
)
def test_adversarial_scores(make_case, rows, spoil):
    case = make_case(0, contacts=60, ties=False)
    spoil(case, np.random.default_rng(0))
    (threshold, f1), _, _ = find(case, rows)
    if case.gold_NxA.any():
        assert f1 == pytest.approx(best_of_all(case), abs=1e-12)
        assert f1_at(case, threshold) == pytest.approx(f1, abs=1e-12)
    else:
        assert f1 == 0
    assert np.float32(threshold) == threshold or str(np.float32(threshold)) == str(threshold)


def test_one_label(make_case, rows):
    case = make_case(0, contacts=50, labels=4, ties=False)
    case.gold_NxL, case.probabilities_NxL = case.gold_NxL[:, :1], case.probabilities_NxL[:, :1]
    (threshold, f1), _, _ = find(case, rows)
    assert f1_at(case, threshold) == pytest.approx(f1) == pytest.approx(best_of_all(case))


def test_equal_scores_take_no_memory_and_merging_does_not_show(make_case, rows, monkeypatch):
    case = make_case(1, contacts=200)
    _tied(case, np.random.default_rng(0))
    expected, _, scores = find(case, rows)
    assert len(scores._value) <= 4 and scores._seen.sum() > 100
    monkeypatch.setattr(Scores, "_AT_A_TIME", 3)
    assert find(case, rows)[0] == expected
    monkeypatch.setattr(Scores, "LIMIT", 1)
    with pytest.raises(UserError, match="--tune exact: more than 1 different.*use --tune grid"):
        find(case, rows)


def test_eight_devices_find_what_one_does(make_case, rows):
    case = make_case(2, contacts=100, ties=False)
    eight = sharding.batch_sharding(sharding.make_mesh(), sharding.ShardingRules())
    assert find(case, rows, 16)[0] == find(case, eight, 16)[0]
