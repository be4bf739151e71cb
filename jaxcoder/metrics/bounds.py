"""Lower confidence bounds of a mean quality in [0, 1], and one that knows of patients.

    Clopper-Pearson      of a share, exact (Clopper & Pearson, 1934, Biometrika 26)
    Hoeffding-Bentkus    of bounded values (Bates et al., 2021, arXiv:2101.02703;
                         section 3 of Angelopoulos et al., 2021, Learn then Test, arXiv:2110.01052)
    cluster t            of the sums over patients of (quality − target), whose contacts are alike

The first two take values as independent, which several contacts of one patient are not.
"""

import numpy as np
from scipy import optimize, stats


def clopper_pearson(successes: int, trials: int, level: float) -> float:
    """Returns the lower bound of a share, in [0, 1]; 0 where there were no trials.

    Args:
      successes: at most `trials`.
      trials: at least 0.
      level: of confidence, one-sided, such as 0.95.
    """
    if not successes:
        return 0.0
    return float(stats.beta.ppf(1 - level, successes, trials - successes + 1))


def hoeffding_bentkus(mean: float, count: int, level: float) -> float:
    """Returns the lower bound of the mean of independent values in [0, 1].

    Args:
      mean: of the values seen.
      count: of them.
      level: of confidence, one-sided, such as 0.95.
    """
    risk = 1 - mean
    if not count or risk >= 1:
        return 0.0

    def excess(bound: float) -> float:  # of the p-value of "the risk is at least this bound"
        low = min(risk, bound)
        divergence = (low * np.log(low / bound) if low else 0.0) + (
            (1 - low) * np.log((1 - low) / (1 - bound)) if low < 1 else 0.0
        )
        # A hair below, or 0.07 × 100 would round up to 8.
        bentkus = np.e * stats.binom.cdf(np.ceil(count * risk - 1e-9), count, bound)
        return float(min(np.exp(-count * divergence), bentkus)) - (1 - level)

    nearly = 1 - 1e-12
    if excess(nearly) > 0:
        return 0.0
    return float(1 - optimize.brentq(excess, max(risk, 1e-12), nearly, xtol=1e-10))


def cluster_t(quality_N: np.ndarray, patient_N: np.ndarray, target: float, level: float) -> float:
    """Returns a lower bound that is at least the target if, and only if, a t test says so.

    The test is of the sums over patients of (quality − target), which are independent however
    alike the contacts of one patient are. Between target and mean the bound is an approximation.

    Args:
      quality_N: in [0, 1].
      patient_N: int in [0, P), the patient of each.
      target: that the mean should reach.
      level: of confidence, one-sided, such as 0.95.

    Returns:
      The bound; −inf for fewer than two patients.
    """
    _, place = np.unique(patient_N, return_inverse=True)
    sums = np.bincount(place, quality_N - target)
    if len(sums) < 2:
        return -np.inf
    half = stats.t.ppf(level, len(sums) - 1) * sums.std(ddof=1) * np.sqrt(len(sums))
    return float(target + (sums.sum() - half) / len(quality_N))
