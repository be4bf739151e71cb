"""Measures by group of contacts (specialty, sex, age, …), with intervals over patients."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxcoder.metrics import bootstrap

Columns = Mapping[str, np.ndarray]
"""Columns of contacts.parquet, [N] each: text as objects, the unknown as empty text or NaN."""

LEAST_PATIENTS = 10
"""A group of fewer has no intervals. Resamples of few patients are too alike: of 1,500 intervals
over 60, 10, 5 and 2 patients, as tests/metrics/bootstrap_test.py makes them, 94, 90, 82 and 56 %
held the truth instead of 95 %."""

UNKNOWN = "unknown"
_AGES = {"0-17": 0, "18-39": 18, "40-64": 40, "65-79": 65, "80+": 80}
_NOTES = {"0": 0, "1": 1, "2-3": 2, "4-7": 4, "8+": 8}
_SHORTEST = 7  # contacts of up to 2⁷ tokens are one group


def _texts(*nothing: str) -> Callable[[np.ndarray], tuple[np.ndarray, list[str]]]:
    """Each text is a group, but for those that say nothing."""

    def group(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
        names, place = np.unique(values.astype(str), return_inverse=True)
        return _known(names.tolist(), place, [name not in nothing for name in names])

    return group


def _years(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    names, place = np.unique(values, return_inverse=True)
    there = ~np.isnan(names)
    return _known([f"{name:.0f}" for name in names], place, list(there))


def _bands(lowest: Mapping[str, int]) -> Callable[[np.ndarray], tuple[np.ndarray, list[str]]]:
    def group(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
        place = np.searchsorted(list(lowest.values()), values, side="right") - 1
        return np.where(np.isnan(values), -1, place), list(lowest)

    return group


def _powers(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Groups of more than 2ᵏ⁻¹ and up to 2ᵏ, for a power of two is what contacts are cut to."""
    ends = 2 ** np.arange(_SHORTEST, 31)
    names = [f"{low + 1}-{high}" for low, high in zip([0, *ends[:-1]], ends, strict=True)]
    return np.searchsorted(ends, values), names


def _known(
    names: Sequence[str], place: np.ndarray, known: Sequence[bool]
) -> tuple[np.ndarray, list[str]]:
    """Numbers the known names anew; the others become −1."""
    number = np.where(known, np.cumsum(known) - 1, -1)
    kept = [name for name, yes in zip(names, known, strict=True) if yes]
    return number[place] if len(names) else place, kept


GROUPINGS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, list[str]]]] = {
    "specialty": _texts("", UNKNOWN),
    "sex": _texts("", UNKNOWN, "U"),
    "age": _bands(_AGES),
    "kind": _texts("", UNKNOWN),
    "year": _years,
    "notes": _bands(_NOTES),
    "tokens": _powers,
}
"""From a column to the number of each contact's group, −1 where unknown, and the groups' names."""


def ratios(columns: Columns) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerators and denominators of the measures, by contact: their sums' ratio is the measure.

    Contacts without gold codes are left out of the ranking measures, and in for exact match and
    Jaccard, where agreement on nothing counts 1.

    Args:
      columns: gold, predicted, hits, recall_at_10, map.

    Returns:
      Pairs of [N].
    """
    gold, predicted, hits = (
        columns[name].astype(np.float64) for name in ("gold", "predicted", "hits")
    )
    ranked, every = (gold > 0).astype(np.float64), np.ones(len(gold))
    union = gold + predicted - hits
    jaccard = np.where(union > 0, hits / np.maximum(union, 1), 1.0)
    return {
        "micro_f1": (2 * hits, gold + predicted),
        "micro_precision": (hits, predicted),
        "micro_recall": (hits, gold),
        "recall_at_10": (columns["recall_at_10"] * ranked, ranked),
        "map": (columns["map"] * ranked, ranked),
        "exact_match": ((union == hits).astype(np.float64), every),
        "jaccard": (jaccard, every),
    }


def group_rows(
    columns: Columns,
    groupings: Sequence[str] = tuple(GROUPINGS),
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> tuple[list[dict[str, str | float | int]], list[str]]:
    """Measures all contacts, then each group of each grouping.

    Args:
      columns: of contacts.parquet.
      groupings: some of `GROUPINGS`.
      resamples: of the bootstrap; those of a group draw from the group's patients.
      seed: of the bootstrap.

    Returns:
      Rows of grouping, group, contacts, patients, codes, and, for codes_per_contact and each
      measure, itself, `_low` and `_high`, the 95 % interval; the first row is that of all
      contacts. An interval is NaN where there are fewer than `LEAST_PATIENTS`, nothing to divide
      by, or no difference between resamples: no width would look certain. And the groupings that
      have no rows, because all is unknown.
    """
    _, patient_N = np.unique(columns["patient_id"].astype(str), return_inverse=True)
    gold = columns["gold"].astype(np.float64)
    measures = {"codes_per_contact": (gold, np.ones(len(gold))), **ratios(columns)}
    numerators_NxF = np.stack([numerators for numerators, _ in measures.values()], axis=1)
    denominators_NxF = np.stack([denominators for _, denominators in measures.values()], axis=1)

    def row(grouping: str, group: str, mine: np.ndarray) -> dict[str, str | float | int]:
        values, lows, highs = bootstrap.bootstrap(
            patient_N[mine],
            numerators_NxF[mine],
            denominators_NxF[mine],
            resamples=resamples,
            seed=seed,
        )
        codes, patients = int(columns["gold"][mine].sum()), len(np.unique(patient_N[mine]))
        known = (patients >= LEAST_PATIENTS) & (highs - lows > 1e-9)  # above the rounding of sums
        lows, highs = np.where(known, lows, np.nan), np.where(known, highs, np.nan)
        found: dict[str, str | float | int] = {
            "grouping": grouping,
            "group": group,
            "contacts": len(mine),
            "patients": patients,
            "codes": codes,
        }
        for name, value, low, high in zip(measures, values, lows, highs, strict=True):
            ends = {f"{name}_low": float(low), f"{name}_high": float(high)}
            found |= {name: float(value), **ends}
        return found

    rows, absent = [row("all", "all", np.arange(len(patient_N)))], []
    for grouping in groupings:
        number_N, names = GROUPINGS[grouping](columns[grouping])
        if (number_N < 0).all():
            absent.append(grouping)
            continue
        # Sorted once, not compared with every group: there may be hundreds.
        order = np.argsort(number_N, kind="stable")
        there, first = np.unique(number_N[order], return_index=True)
        members = dict(zip(there.tolist(), np.split(order, first[1:]), strict=True))
        if -1 in members:  # last
            members[len(names)] = members.pop(-1)
        rows += [row(grouping, [*names, UNKNOWN][n], members[n]) for n in members]
    return rows, absent
