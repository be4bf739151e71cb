"""Two runs on the same contacts: differences as by hand, whatever the order of the contacts."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxcoder.errors import UserError
from jaxcoder.report.compare import compare, thresholds
from jaxcoder.report.inputs import Run


@pytest.fixture
def other(workdir, tmp_path):
    """The same contacts, coded worse: half of the hits of the first 60 are lost."""
    shutil.copytree(workdir, tmp_path / "other")
    change(tmp_path / "other", hits=lambda v: np.where(np.arange(len(v)) < 60, v // 2, v))
    return tmp_path / "other"


def change(workdir, take=slice(None), **columns):
    """Rewrites columns of contacts.parquet."""
    path = workdir / "eval" / "test" / "contacts.parquet"
    table = pq.read_table(path)
    for name, function in columns.items():
        place = table.schema.get_field_index(name)
        values = pa.array(function(table[name].to_numpy()), table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), values)
    pq.write_table(table.take(np.arange(len(table))[take]), path)


def evaluations(*folders):
    return [Run(folder).evaluation("test") for folder in folders]


def test_differences_are_those_of_the_scores(workdir, other):
    this, worse = evaluations(workdir, other)
    measures, specialties = compare(this, worse)
    by_name = {each.name: each for each in measures}

    def f1(evaluation, mine=slice(None)):
        hits, gold, predicted = (
            evaluation.contacts[name][mine].sum() for name in ("hits", "gold", "predicted")
        )
        return 2 * hits / (gold + predicted)

    found = by_name["micro_f1"]
    assert found.this == pytest.approx(this.metrics["micro_f1"])
    assert (found.this, found.other) == pytest.approx((f1(this), f1(worse)))
    assert found.difference == pytest.approx(f1(this) - f1(worse))
    assert 0 < found.low < found.difference < found.high, "it is worse, and that is no chance"
    same = by_name["recall_at_10"]  # has no hits in it
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    assert {each.name for each in specialties} == {"cardiology", "lung <b>&", "surgery", "unknown"}
    lung = next(each for each in specialties if each.name.startswith("lung"))
    mine = this.contacts["specialty"] == lung.name
    assert lung.difference == pytest.approx(f1(this, mine) - f1(worse, mine))


def test_the_order_of_contacts_does_not_matter(workdir, other):
    before = compare(*evaluations(workdir, other))
    change(other, take=slice(None, None, -1))
    assert compare(*evaluations(workdir, other)) == before


@pytest.mark.parametrize(("contacts", "known"), [(2, False), (18, False), (20, True)])
def test_few_patients_have_no_interval(workdir, other, contacts, known):
    def alone(values):
        found = values.copy()
        found[:contacts] = "rare"  # two of each patient
        return found

    for folder in (workdir, other):
        change(folder, specialty=alone)
    _, specialties = compare(*evaluations(workdir, other))
    rare = next(each for each in specialties if each.name == "rare")
    assert rare.difference > 0
    assert (~np.isnan([rare.low, rare.high]) == known).all()


def test_other_contacts_are_refused(workdir, other):
    change(other, contact_id=lambda v: np.array([f"x{each}" for each in v], object))
    with pytest.raises(UserError, match=r"--compare .*other contacts than .*evaluate both runs"):
        compare(*evaluations(workdir, other))


def test_other_gold_codes_are_refused(workdir, other):
    change(other, gold=lambda v: v + 1)
    with pytest.raises(UserError, match=r"--compare .*other numbers of gold codes than"):
        compare(*evaluations(workdir, other))


def test_another_label_space_is_refused(workdir, other):
    this, theirs = evaluations(workdir, other)
    theirs.details["label_space"] = "0123456789abcdef"
    with pytest.raises(UserError, match=r"label space 0123456789abcdef, but .*; compare runs that"):
        compare(this, theirs)


def test_a_run_is_not_compared_with_itself(workdir):
    with pytest.raises(UserError, match="the same run; expected another one"):
        compare(*evaluations(workdir, workdir))


def test_both_thresholds_are_said(workdir, other):
    this, theirs = evaluations(workdir, other)
    theirs.details["threshold_from"], theirs.metrics["threshold"] = "given", 0.875
    said = thresholds(this, theirs)
    assert f"{this.metrics['threshold']:.3g} (tuned on validation) here" in said
    assert "0.875 (given) there" in said


def test_without_contacts_there_is_no_comparison(workdir, other):
    (other / "eval" / "test" / "contacts.parquet").unlink()
    with pytest.raises(UserError, match="has no contacts.parquet; run `jaxcoder evaluate"):
        compare(*evaluations(workdir, other))
