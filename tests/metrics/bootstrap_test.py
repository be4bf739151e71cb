"""Intervals against a plain loop with the same weights, and their coverage on made-up patients."""

import numpy as np
import pytest

from jaxcoder.metrics import bootstrap


def visits(seed, patients=40):
    """Contacts of a patient resemble each other: a patient has a hit rate, contacts its hits."""
    rng = np.random.default_rng(seed)
    contacts = rng.integers(1, 6, patients)
    patient = rng.permutation(np.repeat(np.arange(patients), contacts))
    gold = rng.integers(1, 9, len(patient))
    hits = rng.binomial(gold, rng.beta(2, 2, patients)[patient])
    return patient, hits, gold


def columns(hits, gold):
    """Numerators and denominators of recall, and of the mean number of codes."""
    return np.stack([hits, gold], 1), np.stack([gold, np.ones_like(gold)], 1)


def test_against_a_plain_loop_with_the_same_weights(monkeypatch):
    monkeypatch.setattr(bootstrap, "_DRAWS", 7 * 40)  # many blocks, the last one ragged
    patient, hits, gold = visits(0)
    named = np.array([1000 - 3 * number for number in range(40)])[patient]  # any integers will do
    value, low, high = bootstrap.bootstrap(named, *columns(hits, gold), resamples=100, seed=5)
    weights = np.concatenate(list(bootstrap.weights(40, 100, 5)))
    assert weights.shape == (100, 40) and (weights.sum(1) == 40).all()
    recalls, means = [], []
    for weight in weights:
        tp = fn = codes = contacts = 0
        for place, times in enumerate(weight):
            mine = named == np.unique(named)[place]
            tp += times * hits[mine].sum()
            fn += times * (gold - hits)[mine].sum()
            codes += times * gold[mine].sum()
            contacts += times * mine.sum()
        recalls.append(tp / (tp + fn))
        means.append(codes / contacts)
    expected = np.quantile([recalls, means], [0.025, 0.975], axis=1)
    np.testing.assert_allclose([low, high], expected)
    np.testing.assert_allclose(value, [hits.sum() / gold.sum(), gold.mean()])


def coverage(resampled, patients=60):
    """Share of simulated splits whose interval holds the true recall, which is 1/2."""
    inside = []
    for seed in range(300):
        patient, hits, gold = visits(seed, patients)
        unit = patient if resampled == "patients" else np.arange(len(patient))
        _, low, high = bootstrap.bootstrap(unit, *columns(hits, gold), resamples=200, seed=seed)
        inside.append(low[0] <= 0.5 <= high[0])
    return np.mean(inside)


def test_patients_give_the_coverage_that_contacts_promise_in_vain():
    """300 splits: the standard error of a coverage of .95 is .013."""
    assert coverage("patients") == pytest.approx(0.95, abs=0.04)
    assert coverage("contacts") < 0.85


def test_few_patients_promise_too_much():
    """Why groups.LEAST_PATIENTS: standard errors of .02 and .03."""
    assert coverage("patients", patients=10) > 0.84
    assert coverage("patients", patients=2) < 0.65


def test_nothing_to_divide_by():
    patient, zeros, ones = np.array([0, 0, 1]), np.zeros((3, 1)), np.ones((3, 1))
    value, *ends = bootstrap.bootstrap(patient, zeros, zeros)
    assert value[0] == 0.0 and np.isnan(ends).all()
    # A quarter of the resamples of two patients is the second twice: nothing to divide by.
    value, low, high = bootstrap.bootstrap(patient, ones, np.array([[1.0], [1.0], [0.0]]))
    assert (value[0], low[0], high[0]) == (1.5, 1.0, 1.5)


def test_the_same_seed_gives_the_same_interval_and_one_patient_none():
    patient, hits, gold = visits(1)
    same = [bootstrap.bootstrap(patient, *columns(hits, gold), seed=3) for _ in range(2)]
    np.testing.assert_array_equal(same[0], same[1])
    other = bootstrap.bootstrap(patient, *columns(hits, gold), seed=4)
    assert (np.array(other)[1:] != np.array(same[0])[1:]).any()
    value, low, high = bootstrap.bootstrap(np.zeros_like(patient), *columns(hits, gold))
    np.testing.assert_array_equal([low, high], [value, value])


def test_a_pair_of_coders_is_measured_on_the_same_patients():
    patient, hits, gold = visits(2, patients=200)
    better = np.minimum(hits + (np.arange(len(hits)) % 4 == 0), gold)
    one, other = columns(better, gold), columns(hits, gold)
    difference, low, high = bootstrap.paired(patient, one, other, seed=9)
    assert difference[0] == pytest.approx((better - hits).sum() / gold.sum())
    assert 0 < low[0] < difference[0] < high[0]
    assert difference[1] == low[1] == high[1] == 0.0  # the mean number of codes is the same
    # The same resamples, apart, and then their difference.
    weights = np.concatenate(list(bootstrap.weights(200, 1000, 9)))
    sums = [np.bincount(patient, each) for each in (better, hits, gold)]
    tp, before, codes = (weights @ each for each in sums)
    np.testing.assert_allclose(
        [low[0], high[0]], np.quantile((tp - before) / codes, [0.025, 0.975])
    )
    # Far narrower than the interval of either.
    _, low_one, high_one = bootstrap.bootstrap(patient, *one, seed=9)
    assert high[0] - low[0] < (high_one[0] - low_one[0]) / 3
