"""Two runs on the same contacts: how much they differ, and how sure that is."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.metrics import bootstrap, groups
from jaxcoder.report.inputs import Evaluation


@dataclasses.dataclass(frozen=True)
class Difference:
    """A measure of this run and of the other.

    Attributes:
      name: of the measure, or of the group.
      this: in [0, 1].
      other: in [0, 1].
      difference: this less other.
      low: of its 95 % interval, over patients; NaN where there are fewer than
        `groups.LEAST_PATIENTS`.
      high: likewise.
    """

    name: str
    this: float
    other: float
    difference: float
    low: float
    high: float


def compare(this: Evaluation, other: Evaluation) -> tuple[list[Difference], list[Difference]]:
    """Compares two evaluations of the same contacts, by a paired bootstrap over patients.

    Args:
      this: the one.
      other: the other.

    Returns:
      The differences by measure, and those of micro-F1 by specialty, those of most contacts first.

    Raises:
      UserError: they are one; their label spaces, contacts or gold codes differ, or
        contacts.parquet is missing.
    """
    if epath.Path(other.folder).resolve() == epath.Path(this.folder).resolve():
        raise UserError(f"--compare {other.folder}: the same run; expected another one")
    theirs, mine = (each.details.get("label_space") for each in (other, this))
    if theirs != mine:
        raise UserError(
            f"--compare {other.folder}: label space {theirs}, but {this.folder} has {mine}; "
            "compare runs that were trained on the same codes"
        )
    one, two = _aligned(this, other)
    _, patient_N = np.unique(one["patient_id"].astype(str), return_inverse=True)
    ours, others = groups.ratios(one), groups.ratios(two)
    everybody = np.arange(len(patient_N))
    measures = _differences(list(ours), ours, others, patient_N, everybody)
    names, place_N, counts = np.unique(
        [str(name) or groups.UNKNOWN for name in one["specialty"]],
        return_inverse=True,
        return_counts=True,
    )
    specialties = []
    for number in np.argsort(-counts, kind="stable"):
        mine_N = np.flatnonzero(place_N == number)
        (found,) = _differences(["micro_f1"], ours, others, patient_N, mine_N)
        specialties.append(dataclasses.replace(found, name=str(names[number])))
    return measures, specialties


def _aligned(
    this: Evaluation, other: Evaluation
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The contacts of both in the same order: batches of other lengths change it."""
    both = []
    for each in (this, other):
        if not each.contacts:
            raise UserError(f"{each.folder}: has no contacts.parquet; {each.remedy}")
        order = np.argsort(each.contacts["contact_id"].astype(str), kind="stable")
        both.append({name: values[order] for name, values in each.contacts.items()})
    one, two = both
    for name, what in (("contact_id", "contacts"), ("gold", "numbers of gold codes")):
        if not np.array_equal(one[name], two[name]):
            raise UserError(
                f"--compare {other.folder}: other {what} than {this.folder} "
                f"({len(two[name]):,} and {len(one[name]):,} contacts); evaluate both runs on the "
                "same split of the same records"
            )
    return one, two


def thresholds(this: Evaluation, other: Evaluation) -> str:
    """A sentence on both thresholds: one that was given may explain a difference by itself."""
    here, there = (
        f"{each.metrics['threshold']:.3g} ({each.details.get('threshold_from', 'unknown origin')})"
        for each in (this, other)
    )
    return f"The threshold is {here} here and {there} there."


def _differences(
    names: Sequence[str],
    ours: Mapping[str, tuple[np.ndarray, np.ndarray]],
    others: Mapping[str, tuple[np.ndarray, np.ndarray]],
    patient_N: np.ndarray,
    mine_N: np.ndarray,
) -> list[Difference]:
    one, two = (
        tuple(np.stack([ratios[name][part][mine_N] for name in names], 1) for part in (0, 1))
        for ratios in (ours, others)
    )
    difference, low, high = bootstrap.paired(patient_N[mine_N], one, two)  # type: ignore[arg-type]
    if len(np.unique(patient_N[mine_N])) < groups.LEAST_PATIENTS:
        low, high = np.full((2, len(names)), np.nan)
    first, second = (
        (numerators.sum(0) / np.maximum(denominators.sum(0), 1)).tolist()
        for numerators, denominators in (one, two)
    )
    return [
        Difference(*row)
        for row in zip(
            names, first, second, difference.tolist(), low.tolist(), high.tolist(), strict=True
        )
    ]
