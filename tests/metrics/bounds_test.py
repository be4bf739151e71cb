"""Against values that are known, and by how often a bound is wrong."""

import numpy as np
import pytest
from scipy import stats

from jaxcoder.metrics.bounds import clopper_pearson, cluster_t, hoeffding_bentkus


@pytest.mark.parametrize(("successes", "trials"), [(1, 1), (58, 59), (59, 59), (450, 500)])
def test_clopper_pearson_is_that_of_scipy(successes, trials):
    theirs = stats.binomtest(successes, trials, alternative="greater").proportion_ci(0.95).low
    assert clopper_pearson(successes, trials, 0.95) == pytest.approx(theirs, abs=1e-9)
    # All right in n trials: the bound is .05^(1/n).
    assert clopper_pearson(59, 59, 0.95) == pytest.approx(0.05 ** (1 / 59))


def test_hoeffding_bentkus_by_its_definition():
    """At the bound the p-value is exactly one minus the level, and above it larger."""
    mean, count = 0.93, 300
    bound = 1 - hoeffding_bentkus(mean, count, 0.95)
    risk = 1 - mean
    hoeffding = np.exp(
        -count * (risk * np.log(risk / bound) + (1 - risk) * np.log((1 - risk) / (1 - bound)))
    )
    bentkus = np.e * stats.binom.cdf(round(count * risk), count, bound)
    assert min(hoeffding, bentkus) == pytest.approx(0.05, rel=1e-6)
    assert clopper_pearson(279, 300, 0.95) > 1 - bound  # it assumes less, so it says less


def test_what_shows_nothing():
    assert clopper_pearson(0, 0, 0.95) == clopper_pearson(0, 9, 0.95) == 0
    assert hoeffding_bentkus(0.0, 5, 0.95) == hoeffding_bentkus(0.9, 0, 0.95) == 0
    assert 0 <= hoeffding_bentkus(1.0, 1, 0.95) < 0.2
    assert cluster_t(np.ones(5), np.zeros(5, int), 0.9, 0.95) == -np.inf


def test_cluster_t_is_a_t_test_of_the_sums_of_patients():
    rng = np.random.default_rng(0)
    patient = rng.integers(0, 40, 200)
    quality = rng.random(200)
    for target in (0.4, 0.45, 0.5):
        sums = [(quality[patient == each] - target).sum() for each in np.unique(patient)]
        p = stats.ttest_1samp(sums, 0, alternative="greater").pvalue
        assert (cluster_t(quality, patient, target, 0.95) >= target) == (p <= 0.05)


def test_contacts_that_are_alike_count_as_one():
    rng = np.random.default_rng(1)
    quality = rng.random(50)
    once = cluster_t(quality, np.arange(50), 0.3, 0.95)
    again = cluster_t(np.repeat(quality, 4), np.repeat(np.arange(50), 4), 0.3, 0.95)
    assert again == pytest.approx(once)
    # Which a bound for independent contacts does not see.
    assert hoeffding_bentkus(quality.mean(), 200, 0.95) > hoeffding_bentkus(
        quality.mean(), 50, 0.95
    )
