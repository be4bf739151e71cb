import numpy as np
import pytest

from jaxcoder.metrics.roles import role_rows


def code(share, train, support, tp, fp):
    fn = support - tp
    f1 = 2 * tp / (2 * tp + fp + fn) if support else 0.0
    counts = {"support": support, "tp": tp, "fp": fp, "fn": fn, "f1": f1}
    return {**counts, "share_secondary": share, "train_support": train}


def test_bins_by_hand():
    rows = role_rows(
        [
            code(0.0, 99, support=4, tp=2, fp=0),
            code(0.19, 10, support=1, tp=0, fp=3),
            code(0.2, 10, support=2, tp=2, fp=0),
            code(1.0, 100, support=5, tp=5, fp=5),
            code(1.0, 0, support=3, tp=0, fp=0),
            code(float("nan"), 7, support=2, tp=1, fp=1),
            code(0.5, 1000, support=0, tp=0, fp=9),  # does not occur: no F1
        ]
    )
    keys = ("share_low", "share_high", "train_low", "train_high", "codes", "occurrences")
    assert [tuple(row[key] for key in keys) for row in rows[:-1]] == [
        (0.0, 0.2, 10, 99, 2, 5),
        (0.2, 0.4, 10, 99, 1, 2),
        (0.8, 1.0, 0, 0, 1, 3),
        (0.8, 1.0, 100, 999, 1, 5),
    ]
    assert np.isnan(rows[-1]["share_low"]) and (rows[-1]["train_low"], rows[-1]["codes"]) == (1, 1)
    assert rows[0]["macro_f1"] == pytest.approx((2 * 2 / 6 + 0) / 2)
    assert rows[0]["micro_f1"] == pytest.approx(2 * 2 / (4 + 3 + 3))
    assert rows[3]["micro_f1"] == pytest.approx(10 / 15)
    assert sum(row["occurrences"] for row in rows) == 17 and sum(row["codes"] for row in rows) == 6


def test_the_most_frequent_codes_have_no_upper_end():
    (row,) = role_rows([code(0.5, 10**6, support=1, tp=1, fp=0)])
    assert row["train_low"] == 100_000 and np.isnan(row["train_high"])
