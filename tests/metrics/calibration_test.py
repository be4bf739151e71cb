"""On cases worked by hand, on simulated data whose truth is known, and against scikit-learn."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, log_loss

from jaxcoder.metrics import grid
from jaxcoder.metrics.calibration import (
    Mends,
    Reliability,
    calibration_error,
    fit_isotonic,
    fit_scaling,
    scores,
)


def histogram(probabilities, gold):
    edges = grid.threshold_grid(30).astype(np.float64)
    place = np.searchsorted(edges, probabilities, side="left")
    low, high = np.append(0.0, edges), np.append(edges, 1.0)
    seen = np.bincount(place, minlength=len(low))
    return Reliability(low, high, seen, np.bincount(place, gold, minlength=len(low)).astype(int))


def simulate(temperature, bias, pairs=200_000, seed=0):
    """Probabilities whose log-odds are mended by this temperature and this bias."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-3, 3, pairs)
    gold = rng.random(pairs) < expit(z / temperature + bias)
    return expit(z).astype(np.float32).astype(np.float64), gold


def test_calibration_error_worked_by_hand():
    # 8 pairs at .1 of which 2 are gold, 2 at .9 of which 1 is: (|2 − .8| + |1 − 1.8|) / 10.
    found = Reliability(
        np.array([0.05, 0.85]), np.array([0.15, 0.95]), np.array([8, 2]), np.array([2, 1])
    )
    at = np.array([0.1, 0.9])
    for adaptive in (False, True):
        error = calibration_error(found, at, adaptive=adaptive)
        assert error == pytest.approx((1.2 + 0.8) / 10)
    # Below .01 nothing counts in the adaptive one; and in one group errors make up for each other.
    assert calibration_error(found, np.array([0.001, 0.5]), adaptive=True) == 0
    both = calibration_error(found, np.array([0.30, 0.31]), adaptive=False)
    assert both == pytest.approx(abs(3 - 8 * 0.30 - 2 * 0.31) / 10)


def test_groups_of_equal_mass_are_those_of_the_sorted_pairs():
    probabilities, gold = simulate(1.7, -0.4)
    found = histogram(probabilities, gold)
    likely = probabilities >= 0.01
    order = np.argsort(probabilities[likely])
    expected = sum(
        abs((gold[likely][part] - probabilities[likely][part]).sum())
        for part in np.array_split(order, 15)
    )
    mine = calibration_error(found, found.probability, adaptive=True)
    assert mine == pytest.approx(expected / likely.sum(), abs=2e-3)
    assert mine > 0.03  # they are badly calibrated


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.0), (1.5, -0.7)])
def test_a_temperature_is_recovered(temperature, bias):
    found = histogram(*simulate(temperature, bias))
    line = fit_scaling(found, shift=True)
    assert line.temperature == pytest.approx(temperature, rel=0.02)
    assert line.bias == pytest.approx(bias, abs=0.03)
    alone = fit_scaling(found, shift=False)
    assert alone.bias == 0
    if not bias:
        assert alone.temperature == pytest.approx(temperature, rel=0.02)
    # It is the best: no other line near it is more likely.
    best = scores(found, line)["log_loss"]
    for other in ((1.02, 0.0), (0.98, 0.0), (1.0, 0.02), (1.0, -0.02)):
        near = type(line)(line.temperature * other[0], line.bias + other[1])
        assert scores(found, near)["log_loss"] > best


def test_brier_and_log_loss_lie_in_their_bounds_of_scikit_learn():
    probabilities, gold = simulate(1.3, 0.2, pairs=20_000)
    found = scores(histogram(probabilities, gold))
    for name, expected in (
        ("brier", brier_score_loss(gold, probabilities)),
        ("log_loss", log_loss(gold, probabilities)),
    ):
        assert found[f"{name}_at_least"] <= expected <= found[f"{name}_at_most"]
        assert found[name] == pytest.approx(expected, rel=1e-3)


def test_mended_on_validation_test_is_better_on_held_out_pairs():
    mends = Mends.fit(histogram(*simulate(2.0, -0.5, seed=1)))
    test = histogram(*simulate(2.0, -0.5, seed=2))
    before = scores(test)
    for mend in (mends.temperature_and_bias, mends.isotonic):
        found = scores(test, mend)
        assert found["ece_adaptive"] < before["ece_adaptive"] / 5
        assert found["log_loss"] < before["log_loss"]
    assert mends.temperature_and_bias.temperature == pytest.approx(2, rel=0.03)
    assert mends.temperature.bias == 0


def test_isotonic_never_falls_and_is_the_share_of_positives():
    found = histogram(*simulate(2.0, -0.5))
    line = fit_isotonic(found)
    mended = line(found.probability)
    assert (np.diff(mended) >= 0).all()
    assert (mended * found.seen).sum() == pytest.approx(found.positive.sum())


@pytest.mark.parametrize("gold", [False, True])
def test_only_one_kind_changes_nothing(gold):
    found = histogram(np.linspace(0, 1, 50), np.full(50, gold))
    assert fit_scaling(found, shift=True).temperature == 1
    assert all(np.isfinite(value) for value in scores(found).values())


def test_nothing_at_all():
    found = histogram(np.zeros(0), np.zeros(0))
    assert scores(found)["ece"] == scores(found)["brier"] == 0


def test_rows_are_read_back():
    rows = [{"low": "0", "high": "0.5", "seen": "4", "positive": "1"}]
    assert Reliability.of(rows).probability == pytest.approx(expit((logit(2.0**-25) + 0) / 2))
    with pytest.raises(ValueError, match="positive ≤ seen"):
        Reliability.of([rows[0] | {"positive": "5"}])
