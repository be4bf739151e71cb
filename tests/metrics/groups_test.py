"""Groups against the same measures of each contact, and the bands by hand."""

import numpy as np
import pytest

from jaxcoder.metrics import bootstrap, groups

ENDS = ("low", "high")


def texts(*values):
    return np.array(values, dtype=object)


@pytest.fixture
def contacts():
    """Six contacts of four patients."""
    nan = np.nan
    return {
        "patient_id": texts("a", "a", "b", "c", "c", "d"),
        "specialty": texts("lung", "heart", "heart", "", "lung", "heart"),
        "sex": texts("F", "F", "M", "U", "U", "M"),
        "kind": texts("", "", "", "", "", ""),
        "age": np.array([17.9, 18, 80, nan, 64.9, 79.99], np.float32),
        "year": np.array([2020, 2021, 2020, 2019, 2020, nan]),
        "notes": np.array([0, 1, 3, 7, 8, 2], np.int32),
        "tokens": np.array([5, 128, 129, 256, 257, 512], np.int32),
        "gold": np.array([3, 2, 0, 1, 4, 2], np.int32),
        "predicted": np.array([2, 2, 0, 0, 4, 3], np.int32),
        "hits": np.array([2, 2, 0, 0, 3, 1], np.int32),
        "recall_at_10": np.array([1, 1, 0, 0.5, 0.75, 0.5], np.float32),
        "map": np.array([0.9, 1, 0, 0.5, 0.8, 0.4], np.float32),
    }


def members(contacts, grouping):
    number, names = groups.GROUPINGS[grouping](contacts[grouping])
    return [([*names, "unknown"])[each] for each in number]


def test_bands(contacts):
    assert members(contacts, "age") == ["0-17", "18-39", "80+", "unknown", "40-64", "65-79"]
    assert members(contacts, "notes") == ["0", "1", "2-3", "4-7", "8+", "2-3"]
    lengths = ["1-128", "1-128", "129-256", "129-256", "257-512", "257-512"]
    assert members(contacts, "tokens") == lengths
    assert members(contacts, "year") == ["2020", "2021", "2020", "2019", "2020", "unknown"]
    assert members(contacts, "sex") == ["F", "F", "M", "unknown", "unknown", "M"]
    assert members(contacts, "kind") == ["unknown"] * 6


def test_rows_by_hand(contacts):
    rows, absent = groups.group_rows(contacts, ["specialty", "kind"], resamples=50)
    assert absent == ["kind"]
    assert [(row["grouping"], row["group"]) for row in rows] == [
        ("all", "all"),
        *(("specialty", name) for name in ("heart", "lung", "unknown")),
    ]
    whole, heart, lung, unknown = rows
    assert (whole["contacts"], whole["patients"], whole["codes"]) == (6, 4, 12)
    assert (heart["contacts"], heart["patients"], heart["codes"]) == (3, 3, 4)
    assert heart["codes_per_contact"] == pytest.approx(4 / 3)
    assert heart["micro_f1"] == pytest.approx(2 * 3 / (5 + 4))
    assert heart["micro_precision"] == pytest.approx(3 / 5)
    assert heart["micro_recall"] == pytest.approx(3 / 4)
    assert heart["recall_at_10"] == pytest.approx(1.5 / 2)  # the contact without codes is left out
    assert heart["map"] == pytest.approx(1.4 / 2)
    assert heart["exact_match"] == pytest.approx(2 / 3)  # nothing predicted, nothing gold
    assert heart["jaccard"] == pytest.approx((1 + 1 + 1 / 4) / 3)
    assert lung["micro_f1"] == pytest.approx(2 * 5 / (6 + 7))
    assert (unknown["micro_precision"], unknown["micro_f1"]) == (0.0, 0.0)


def test_an_interval_stands_only_where_resamples_say_something(contacts):
    """Twenty patients in the heart, of whom each is coded as any other; ten in the lung; nine."""
    places = ["heart"] * 20 + ["lung"] * 10 + ["skin"] * 9
    several = {name: np.resize(column, 39) for name, column in contacts.items()}
    several["patient_id"] = texts(*map(str, range(39)))
    several["specialty"] = texts(*places)
    for name, value in {"gold": 3, "predicted": 2, "hits": 2, "recall_at_10": 0.5}.items():
        several[name][:20] = value
    rows, _ = groups.group_rows(several, ["specialty"], resamples=200)
    whole, heart, lung, skin = rows
    for row in (whole, lung):
        for name in (
            "codes_per_contact",
            "micro_f1",
            "recall_at_10",
            "map",
            "exact_match",
            "jaccard",
        ):
            assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
    assert np.isnan([heart["micro_f1_low"], heart["micro_f1_high"], heart["jaccard_low"]]).all()
    assert heart["map_low"] < heart["map_high"], "in the one measure they differ"
    assert all(np.isnan(skin[f"{name}_{end}"]) for name in groups.ratios(contacts) for end in ENDS)


def test_groups_draw_their_own_patients(contacts, monkeypatch):
    monkeypatch.setattr(groups, "LEAST_PATIENTS", 1)
    contacts["specialty"] = texts("lung", "lung", "heart", "heart", "lung", "lung")
    rows, _ = groups.group_rows(contacts, ["specialty"], resamples=200, seed=3)
    numerators, denominators = groups.ratios(contacts)["micro_f1"]
    patients = np.array([0, 0, 1, 2, 2, 3])
    for row, mine in zip(rows, ([0, 1, 2, 3, 4, 5], [2, 3], [0, 1, 4, 5]), strict=True):
        columns = numerators[mine, None], denominators[mine, None]
        found = bootstrap.bootstrap(patients[mine], *columns, resamples=200, seed=3)
        expected = [float(value[0]) for value in found]
        if expected[1] == expected[2]:  # the one contact of the heart
            expected[1:] = [np.nan, np.nan]
        names = ("micro_f1", "micro_f1_low", "micro_f1_high")
        np.testing.assert_array_equal([row[name] for name in names], expected)
        assert row["patients"] == len(set(patients[mine]))


def test_groups_add_up_to_the_whole(contacts):
    for grouping in groups.GROUPINGS:
        (whole, *rows), _ = groups.group_rows(contacts, [grouping], resamples=2)
        if rows:
            assert sum(row["contacts"] for row in rows) == whole["contacts"]
            assert sum(row["codes"] for row in rows) == whole["codes"]


def test_u_is_unknown_for_sex_alone():
    column = np.array(["U", "", "unknown", "A", "U"], object)
    number, names = groups.GROUPINGS["specialty"](column)
    assert names == ["A", "U"] and number.tolist() == [1, -1, -1, 0, 1]
    number, names = groups.GROUPINGS["sex"](column)
    assert names == ["A"] and number.tolist() == [-1, -1, -1, 0, -1]
