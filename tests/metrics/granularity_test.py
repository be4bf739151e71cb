"""Rolled-up codes by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from jaxcoder.metrics.granularity import GranularCounts
from jaxcoder.records.codes import coarsenings, roll_up


def test_by_hand():
    counts = GranularCounts(coarsenings("full"))
    # Right in the category and wrong in full; both codes of one category; and one too many.
    counts.add(["E11.65", "I10"], ["E11.9", "I10"])
    counts.add(["E11.65", "E11.9"], ["E11.21"])
    counts.add([], ["J45.9"])
    full, subcategory, category, chapter = counts.rows()
    assert [row["granularity"] for row in counts.rows()] == [
        *("full", "subcategory", "category", "chapter")
    ]
    assert full["micro_f1"] == pytest.approx(2 * 1 / (4 + 4))
    assert full["macro_f1"] == pytest.approx((0 + 1 + 0) / 3)  # E11.65, I10, E11.9
    assert subcategory["micro_f1"] == pytest.approx(2 * 1 / (4 + 4))  # E11.6 and E11.9
    # E11 and I10; E11 once; nothing: 3 gold, 4 predicted, 3 right.
    assert category["micro_f1"] == pytest.approx(2 * 3 / (3 + 4))
    assert category["micro_precision"] == pytest.approx(3 / 4)
    assert category["micro_recall"] == 1.0
    assert category["macro_f1"] == 1.0
    assert chapter == {**category, "granularity": "chapter"}


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    codes = [f"{letter}{n}.{m}" for letter in "AI" for n in (10, 25, 99) for m in (0, "01", "09")]
    gold, predicted = rng.random((2, 40, len(codes))) < 0.15
    counts = GranularCounts(coarsenings("full"))
    for row, other in zip(gold, predicted, strict=True):
        counts.add(*([codes[place] for place in np.flatnonzero(each)] for each in (row, other)))
    for found in counts.rows():
        rolled = [roll_up(code, found["granularity"]) for code in codes]
        names = sorted(set(rolled))
        matrix = np.array([[code == name for name in names] for code in rolled])
        right, ours = (gold @ matrix) > 0, (predicted @ matrix) > 0
        for name, score in (("f1", f1_score), ("precision", precision_score)):
            expected = score(right, ours, average="micro")
            assert found[f"micro_{name}"] == pytest.approx(expected)
        assert found["micro_recall"] == pytest.approx(recall_score(right, ours, average="micro"))
        occurring = np.flatnonzero(right.any(0))
        expected = f1_score(right, ours, average="macro", labels=occurring, zero_division=0.0)
        assert found["macro_f1"] == pytest.approx(expected)


def test_nothing_and_a_coarse_label_space():
    counts = GranularCounts(coarsenings("category"))
    assert [row["granularity"] for row in counts.rows()] == ["category", "chapter"]
    assert [row["micro_f1"] for row in counts.rows()] == [0.0, 0.0]
    counts.add(["E11"], ["E10"])
    assert [row["micro_f1"] for row in counts.rows()] == [0.0, 1.0]
    assert list(coarsenings("chapter")) == ["chapter"]
    assert coarsenings("full")["chapter"]("W") == "W"  # in no chapter
