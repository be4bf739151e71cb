"""Every metric on a case worked by hand, against scikit-learn, and against plain NumPy."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from jaxcoder.metrics import summary


@pytest.fixture
def by_hand(make_case):
    """Two contacts with codes and one without; labels A00 … A03.

    contact 0: gold A00, A02 and one code outside the label space; order A00 (.9), A01 (.8), A02
    (.6), A03 (.1)
    contact 1: gold A01;                                          order A03 (.7), A00 = A01 (.4),
    A02 (.2)
    contact 2: gold nothing;                                      nothing above .3
    """
    case = make_case(0, 3, 4)
    case.probabilities_NxL = np.array(
        [[0.9, 0.8, 0.6, 0.1], [0.4, 0.4, 0.2, 0.7], [0.3, 0.2, 0.1, 0.0]], np.float32
    )
    case.gold_NxL = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
    case.missing_NxM = np.array([[0, 1], [0, 0], [0, 0]], bool)
    case.loss_N = np.array([1.0, 2.0, 6.0], np.float32)
    return case


def test_worked_by_hand(by_hand, rows):
    found = by_hand.summary(rows, threshold=0.5)
    # Above 0.5: contact 0 A00 (right), A01, A02 (right); contact 1 A03. 2 of 4 right; 4 gold codes.
    # Ranks: contact 0 1 and 3 of 3 gold; contact 1 A01 ties with A00 and comes after it: 3.
    expected = {
        "micro_f1": 2 * 2 / (4 + 4),
        "micro_precision": 2 / 4,
        "micro_recall": 2 / 4,
        "macro_f1": (1 + 0 + 1 + 0) / 4,  # A00, A01, A02 and the absent code; A03 does not occur
        "recall_at_5": (2 / 3 + 1) / 2,
        "recall_at_10": (2 / 3 + 1) / 2,
        "recall_at_15": (2 / 3 + 1) / 2,
        "precision_at_5": (2 / 5 + 1 / 5) / 2,
        "precision_at_8": (2 / 8 + 1 / 8) / 2,
        "precision_at_15": (2 / 15 + 1 / 15) / 2,
        "r_precision": (2 / 3 + 0) / 2,  # of the first 3 two are gold; of the first 1 none
        "map": ((1 + 2 / 3) / 3 + 1 / 3) / 2,
        "exact_match": 1 / 3,  # nothing predicted where nothing is gold
        "jaccard": (2 / 4 + 0 / 2 + 1) / 3,
        "auc_micro": (9 + 7 + 6.5)
        / (3 * 9),  # .9 above 9 negatives, .6 above 7, .4 above 6 and tied with one
        "auc_macro": (1 + 0.5 + 1) / 3,  # A01: .4 stands above .2 and below .8; A03 has no positive
        "loss": 3.0,
        "threshold": 0.5,
        "num_contacts": 3,
        "num_labels": 4,
        "num_gold": 4,
        "num_gold_outside_label_space": 1,
    }
    assert list(found.metrics) == list(expected)
    assert found.metrics == pytest.approx(expected, abs=1e-6)
    assert found.details["num_contacts_without_gold"] == 1
    assert found.details["auc_micro_error_at_most"] == pytest.approx(
        0.5 / 27
    )  # the tie, which is exact


def test_table_by_code(by_hand, rows):
    found = by_hand.summary(rows, threshold=0.5)
    assert [row["code"] for row in found.codes] == ["A00", "A01", "A02", "A03", "Z01"]
    code = found.codes[1]
    assert (code["support"], code["tp"], code["fp"], code["fn"]) == (1, 0, 1, 1)
    outside = found.codes[-1]
    assert (outside["support"], outside["fn"], outside["f1"]) == (1, 1, 0.0)
    assert np.isnan(outside["auc"]) and np.isnan(found.codes[3]["auc"])


def test_thresholds_are_exceeded_strictly(by_hand, rows):
    assert by_hand.summary(rows, threshold=0.6).codes[2]["tp"] == 0
    assert (
        by_hand.summary(rows, threshold=float(np.nextafter(np.float32(0.6), 0))).codes[2]["tp"] == 1
    )


def test_against_scikit_learn(case, rows):
    threshold = 0.3
    found = case.summary(rows, threshold=threshold).metrics
    gold, predicted = case.gold_NxA, case.scores_NxA > np.float32(threshold)
    occurring = np.flatnonzero(gold.any(0))
    for name, average in (("micro", "micro"), ("macro", "macro")):
        options = {"average": average, "zero_division": 0.0}
        if average == "macro":
            options["labels"] = occurring
        assert found[f"{name}_f1"] == pytest.approx(
            sklearn_metrics.f1_score(gold, predicted, **options)
        )
    micro = {"average": "micro", "zero_division": 0.0}
    assert found["micro_precision"] == pytest.approx(
        sklearn_metrics.precision_score(gold, predicted, **micro)
    )
    assert found["micro_recall"] == pytest.approx(
        sklearn_metrics.recall_score(gold, predicted, **micro)
    )
    assert found["exact_match"] == pytest.approx(sklearn_metrics.accuracy_score(gold, predicted))
    jaccard = sklearn_metrics.jaccard_score(gold, predicted, average="samples", zero_division=1.0)
    assert found["jaccard"] == pytest.approx(jaccard)


def test_areas_under_the_curve_lie_within_their_bounds_of_scikit_learn(case, rows):
    found = case.summary(rows)
    micro = sklearn_metrics.roc_auc_score(case.gold_NxL.ravel(), case.probabilities_NxL.ravel())
    both = [
        label
        for label in range(case.gold_NxL.shape[1])
        if 0 < case.gold_NxL[:, label].sum() < len(case.loss_N)
    ]
    macro = np.mean(
        [
            sklearn_metrics.roc_auc_score(case.gold_NxL[:, x], case.probabilities_NxL[:, x])
            for x in both
        ]
    )
    for name, expected in (("auc_micro", micro), ("auc_macro", macro)):
        assert found.details[f"{name}_error_at_most"] < 0.05
        assert abs(found.metrics[name] - expected) <= found.details[f"{name}_error_at_most"] + 1e-9
    assert found.details["num_codes_in_auc_macro"] == len(both)


def test_ranking_measures_against_plain_numpy(case, rows):
    found = case.summary(rows)
    values = {name: [] for name in ("map", "r_precision")}
    for depth in (5, 8, 10, 15):
        values |= {f"recall_at_{depth}": [], f"precision_at_{depth}": []}
    for scores, gold in zip(case.scores_NxA, case.gold_NxA, strict=True):
        if not gold.any():
            continue
        order = np.argsort(-scores, kind="stable")[
            : case.gold_NxL.shape[1]
        ]  # smaller label first among equals
        hit = gold[order]
        for depth in (5, 8, 10, 15):
            values[f"recall_at_{depth}"].append(hit[:depth].sum() / gold.sum())
            values[f"precision_at_{depth}"].append(hit[:depth].sum() / depth)
        values["r_precision"].append(hit[: gold.sum()].sum() / gold.sum())
        precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
        values["map"].append((precision * hit).sum() / gold.sum())
    for name in set(values) & set(found.metrics):
        assert found.metrics[name] == pytest.approx(np.mean(values[name]), rel=1e-6), name
    assert found.details["num_contacts_without_gold"] == len(case.loss_N) - len(values["map"])


def test_average_precision_is_that_of_scikit_learn(make_case, rows):
    case = make_case(5, ties=False)
    case.missing_NxM[:] = False
    expected = [
        sklearn_metrics.average_precision_score(gold, scores)
        for gold, scores in zip(case.gold_NxL, case.probabilities_NxL, strict=True)
        if gold.any()
    ]
    assert case.summary(rows).metrics["map"] == pytest.approx(np.mean(expected), rel=1e-6)


def test_nothing_gold_and_nothing_at_all(make_case, rows):
    case = make_case(0)
    case.gold_NxL[:], case.missing_NxM[:] = False, False
    found = case.summary(rows)
    assert found.metrics["micro_f1"] == found.metrics["map"] == found.metrics["auc_macro"] == 0.0
    assert found.metrics["num_gold"] == 0
    empty = make_case(0, contacts=0)
    empty.gold_NxL = np.zeros((0, 30), bool)
    metrics = empty.summary(rows).metrics
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["num_contacts"] == 0


def test_a_threshold_that_was_not_counted_at_is_refused(case, rows):
    totals = case.totals(rows)
    with pytest.raises(ValueError, match=r"threshold = 0\.123456"):
        summary.summarise(
            totals,
            codes=["A"] * 30,
            descriptions=[""] * 30,
            missing={},
            threshold=0.123456,
        )
