"""The guarantee holds on simulated patients, and a rule without one does not."""

import numpy as np
import pytest
from scipy.special import expit

from jaxcoder.errors import UserError
from jaxcoder.metrics import automation, bounds
from jaxcoder.metrics.automation import Contacts


def columns(gold, predicted, hits, confidence, patient):
    recall = np.where(gold > 0, hits / np.maximum(gold, 1), 0)
    return {
        "gold": gold,
        "predicted": predicted,
        "hits": hits,
        "confidence": confidence,
        "patient_id": [f"p{number}" for number in patient],
    } | {f"recall_at_{k}": recall for k in (5, 10, 15)}


def population(patients, rng):
    """Contacts of which a patient has one to ten that succeed or fail much together."""
    patient = np.repeat(np.arange(patients), rng.integers(1, 11, patients))
    ability = rng.normal(0, 2.0, patients)[patient]
    known = rng.normal(1.5, 1.5, len(patient))  # what the confidence knows
    right = rng.random(len(patient)) < expit(known + ability)
    gold = np.full(len(patient), 4)
    hits = np.where(right, 4, rng.integers(0, 4, len(patient)))
    return Contacts.of(columns(gold, gold, hits, np.log(expit(known)), patient))


def of_contacts(quality, patient, target, *, binary):
    """A bound that does not know of patients."""
    return bounds.clopper_pearson(round(quality.sum()), len(quality), automation.LEVEL)


@pytest.mark.parametrize("agree", [0.7, 1.0])
def test_the_guarantee_holds_for_few_patients_whose_contacts_are_alike(agree):
    rng, target, splits, broken = np.random.default_rng(0), 0.95, 400, 0
    for _ in range(splits):
        patient = np.repeat(np.arange(20), 10)
        alike = rng.random(20)[patient] < 0.93  # so that 0.95 is not reached
        right = np.where(rng.random(200) < agree, alike, rng.random(200) < 0.93)
        bound = automation.lower_bound(right.astype(float), patient, target, binary=True)
        broken += bound >= target
    assert broken <= splits * 0.05
    two = automation.lower_bound(np.ones(100), np.arange(100) % 2, 0.8, binary=True)
    assert two == pytest.approx(0.05**0.5)  # of two patients, none of whom has failed


def test_the_guarantee_holds_over_splits_and_the_naive_rule_breaks_it(monkeypatch):
    everyone = population(20_000, np.random.default_rng(0))
    truth, target, splits = everyone.quality("exact_match"), 0.8, 120
    broken = {"certified": 0, "independent": 0, "naive": 0}
    automated = 0
    rng = np.random.default_rng(1)
    for _ in range(splits):
        drawn = everyone.taking(np.isin(everyone.patient, rng.choice(20_000, 200, replace=False)))
        quality = drawn.quality("exact_match")
        cuts = automation._cuts(drawn.confidence, automation.STEPS, automation.LEAST)
        reached = [cut for cut in cuts if quality[drawn.confidence >= cut].mean() >= target]
        found = automation.certified_cut(drawn, "exact_match", target)
        with monkeypatch.context() as patch:
            patch.setattr(automation, "lower_bound", of_contacts)
            alone = automation.certified_cut(drawn, "exact_match", target)
        automated += found is not None
        chosen = {"naive": min(reached, default=None)}
        chosen |= {"certified": found and found[0], "independent": alone and alone[0]}
        for rule, cut in chosen.items():
            if cut is not None:
                broken[rule] += truth[everyone.confidence >= cut].mean() < target
    # 5 % and three standard errors.
    allowed = splits * (0.05 + 3 * np.sqrt(0.05 * 0.95 / splits))
    assert broken["certified"] <= allowed
    # The mean alone, and a bound that does not know of patients, are wrong more often.
    assert broken["naive"] > splits * 0.3
    assert broken["independent"] > broken["certified"]
    assert automated > splits * 0.9  # and it is not for never automating that it holds


@pytest.mark.parametrize("name", ["jaccard", "f1"])
def test_the_guarantee_holds_for_what_is_not_all_or_nothing(name):
    everyone, rng = population(20_000, np.random.default_rng(0)), np.random.default_rng(1)
    truth, target, splits = everyone.quality(name), 0.85, 100
    broken = automated = 0
    for _ in range(splits):
        drawn = everyone.taking(np.isin(everyone.patient, rng.choice(20_000, 300, replace=False)))
        if found := automation.certified_cut(drawn, name, target):
            automated += 1
            broken += truth[everyone.confidence >= found[0]].mean() < target
    assert broken <= splits * (0.05 + 3 * np.sqrt(0.05 * 0.95 / splits))
    assert automated > splits * 0.5


def test_quality_of_a_contact_worked_by_hand():
    # 2 of 3 assigned are right, of 4 gold; nothing and nothing; something where nothing is gold.
    found = Contacts.of(
        columns(
            *(np.array(x) for x in ([4, 0, 0, 2], [3, 0, 2, 2], [2, 0, 0, 2], [0.0, 0, 0, 0])),
            patient=range(4),
        )
    )
    assert found.quality("exact_match").tolist() == [0, 1, 0, 1]
    assert found.quality("jaccard").tolist() == pytest.approx([2 / 5, 1, 0, 1])
    assert found.quality("f1").tolist() == pytest.approx([4 / 7, 1, 0, 1])


def test_the_curve_follows_the_most_confident():
    found = population(400, np.random.default_rng(3))
    rows = automation.curve(found, automation.exact_match_line(found))
    assert rows[-1]["share"] == 1 and rows[-1]["contacts"] == len(found)
    for row in rows[::10]:
        chosen = np.argsort(-found.confidence, kind="stable")[: row["contacts"]]
        assert row["exact_match"] == pytest.approx(found.quality("exact_match")[chosen].mean())
        f1 = 2 * found.hits[chosen].sum() / (found.gold + found.predicted)[chosen].sum()
        assert row["micro_f1"] == pytest.approx(f1)
    assert [row["probability"] for row in rows] == sorted(
        (row["probability"] for row in rows), reverse=True
    )
    assert rows[5]["exact_match"] > rows[-1]["exact_match"] + 0.1


def test_contacts_of_equal_confidence_stay_together():
    found = population(100, np.random.default_rng(3))
    level = Contacts.of(
        columns(found.gold, found.predicted, found.hits, 0 * found.gold, range(len(found)))
    )
    assert [
        row["share"] for row in automation.curve(level, automation.exact_match_line(level))
    ] == [1]


def test_operating_points_on_test_are_what_the_cut_of_validation_gives():
    rng = np.random.default_rng(4)
    validation, test = population(600, rng), population(600, rng)
    rows = automation.operating_points(validation, test)
    assert [(row["quality"], row["target"]) for row in rows] == [
        (quality, target)
        for quality in ("exact_match", "jaccard", "f1")
        for target in (0.80, 0.90, 0.95)
    ]
    row = rows[0]
    assert row["validation_bound"] >= 0.8 and row["validation_quality"] > row["validation_bound"]
    chosen = test.confidence >= row["confidence"]
    assert row["test_share"] == pytest.approx(chosen.mean())
    assert row["test_quality"] == pytest.approx(test.quality("exact_match")[chosen].mean())
    assert row["rest_recall_at_10"] == pytest.approx(test.recall[10][~chosen].mean())
    # A higher target automates less; and F1 of a contact is no less than its Jaccard.
    assert rows[0]["test_share"] >= rows[1]["test_share"] >= rows[2]["test_share"]
    assert rows[6]["test_share"] >= rows[3]["test_share"]


def test_where_nothing_can_be_shown_nothing_is_automated():
    rng = np.random.default_rng(5)
    row = automation.operating_points(population(10, rng), population(50, rng))[0]
    assert row["confidence"] is row["test_quality"] is None
    assert row["test_share"] == 0 and row["rest_contacts"] > 50


def test_mistakes_are_one_line():
    good = columns(*(np.ones(2) for _ in range(3)), np.zeros(2), range(2))
    with pytest.raises(UserError, match="contacts.parquet: has no hits; run"):
        Contacts.of({key: value for key, value in good.items() if key != "hits"})
    with pytest.raises(UserError, match="confidence of row 1 is no number"):
        Contacts.of(good | {"confidence": [0.0, np.nan]})
    assert np.isfinite(Contacts.of(good | {"confidence": [-np.inf, 0]}).confidence).all()
    empty = Contacts.of({key: value[:0] for key, value in good.items()})
    with pytest.raises(UserError, match="no contacts"):
        automation.operating_points(empty, empty)
