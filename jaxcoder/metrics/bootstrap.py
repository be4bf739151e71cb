"""Intervals by the bootstrap: what the measures would be on other patients of the same kind.

Contacts of a patient resemble each other, so that whole patients are drawn, with replacement, and
each with all its contacts. Every measure is a ratio of two sums over contacts; a resample is then
weights of patients, and all of them a matrix product. Axes: N contacts, P patients, F measures, R
resamples.
"""

from collections.abc import Iterator

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_DRAWS = 2**21  # weights held at a time: 16 MB, which a matrix product reads once


def bootstrap(
    patient_N: np.ndarray,
    numerators_NxF: np.ndarray,
    denominators_NxF: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes ratios of sums, with percentile intervals (Efron, 1979) over patients.

    Args:
      patient_N: integer that names each contact's patient.
      numerators_NxF: of each measure, by contact.
      denominators_NxF: likewise.
      resamples: R, at least 1.
      level: share of the resamples in the interval, in (0, 1).
      seed: the same one gives the same intervals.

    Returns:
      Ratios, lower and upper ends, float64 [F] each. A ratio over 0 is 0, as in metrics.json; a
      resample in which it is over 0 is left out, and the ends are NaN where that leaves none.
    """
    sums = _patient_sums(patient_N, numerators_NxF, denominators_NxF)
    found = [_ratio(totals) for totals in _resampled(sums, resamples, seed)]
    low, high = _ends(np.concatenate(found), level)
    return np.nan_to_num(_ratio(sums.sum(0))), low, high


def paired(
    patient_N: np.ndarray,
    one: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes how much two coders differ on the same contacts, with percentile intervals.

    In each resample both are measured on the same patients, so that what makes patients easy or
    hard for both does not widen the interval.

    Args:
      patient_N: integer that names each contact's patient.
      one: numerators and denominators [N, F] of the one.
      other: those of the other, in the same order of contacts.
      resamples: R, at least 1.
      level: share of the resamples in the interval, in (0, 1).
      seed: the same one gives the same intervals.

    Returns:
      The one's ratios less the other's, lower and upper ends, float64 [F] each; ratios over 0 count
      as in `bootstrap`.
    """
    sums = _patient_sums(patient_N, *one, *other)
    half = sums.shape[1] // 2
    found = [
        _ratio(totals[:, :half]) - _ratio(totals[:, half:])
        for totals in _resampled(sums, resamples, seed)
    ]
    low, high = _ends(np.concatenate(found), level)
    totals = sums.sum(0)
    difference = np.nan_to_num(_ratio(totals[:half])) - np.nan_to_num(_ratio(totals[half:]))
    return difference, low, high


def weights(patients: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each patient is in each resample, float64 [r, P], some resamples at a time.

    Each row is multinomial: P draws from P patients.
    """
    rng = np.random.default_rng(seed)
    block = max(1, _DRAWS // max(1, patients))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        weight_RxP = np.empty((rows, patients))
        for weight_P in weight_RxP:  # the counts of one resample stay in a cache
            weight_P[:] = np.bincount(rng.integers(0, patients, patients), minlength=patients)
        yield weight_RxP


def _patient_sums(patient_N: np.ndarray, *columns_NxF: np.ndarray) -> np.ndarray:
    """Sums of the columns, side by side, by patient: float64 [P, …]."""
    _, place_N = np.unique(patient_N, return_inverse=True)
    columns = np.concatenate(columns_NxF, axis=1).astype(np.float64)
    patients = int(place_N.max(initial=-1)) + 1
    sums = [np.bincount(place_N, column, patients) for column in columns.T]
    return np.stack(sums, axis=1)


def _resampled(sums: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Totals of resamples, [r, …] at a time."""
    for weight_RxP in weights(len(sums), resamples, seed):
        yield weight_RxP @ sums


def _ratio(totals: np.ndarray) -> np.ndarray:
    """The first half of the last axis by the second; NaN over 0."""
    numerators, denominators = np.split(totals, 2, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominators > 0, numerators / denominators, np.nan)


def _ends(found_RxF: np.ndarray, level: float) -> np.ndarray:
    """Lower and upper ends, [2, F], of what there is."""
    tail = (1 - level) / 2
    ends = np.full((2, found_RxF.shape[1]), np.nan)
    there = ~np.isnan(found_RxF).all(0)
    ends[:, there] = np.nanquantile(found_RxF[:, there], [tail, 1 - tail], axis=0)
    return ends
