"""How many contacts can be coded without a person, and how well: from contacts.parquet.

The most confident contacts go first. `confidence` is the log of the probability that the assigned
set is exactly right if labels were independent, which they are not: isotonic regression on the
validation split turns it into the probability of an exact match.

An operating point is chosen on validation with a guarantee for patients not yet seen, by
fixed-sequence testing (Angelopoulos et al., 2021, Learn then Test, arXiv:2110.01052, section 3.2):
cuts are tried from the most confident downwards, as long as a lower confidence bound of the quality
of the contacts above the cut reaches the target. That the mean reaches it is not enough: the lowest
such cut is often one that chance has favoured.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcoder.errors import UserError
from jaxcoder.metrics import bounds
from jaxcoder.metrics.isotonic import Isotonic

QUALITIES = ("exact_match", "jaccard", "f1")
"""What a target may be set for; each of one contact, in [0, 1]."""

TARGETS = (0.80, 0.90, 0.95)
LEVEL = 0.95
"""Confidence of the guarantee, one-sided."""

STEPS = 100
"""Cuts that are tried lie this part of the validation contacts apart."""

LEAST = 100
"""Contacts above the first cut: with fewer, hardly any quality could be shown."""

_DEPTHS = (5, 10, 15)
_NUMBERS = ("gold", "predicted", "hits", "confidence", *(f"recall_at_{k}" for k in _DEPTHS))


@dataclasses.dataclass(frozen=True)
class Contacts:
    """Columns of contacts.parquet, [N] each.

    Attributes:
      gold: gold codes, those outside the label space included.
      predicted: codes assigned.
      hits: those of them that are gold.
      confidence: float64, finite.
      patient: int64 in [0, P).
      recall: recall of the first 5, 10 and 15 suggestions, by that number.
    """

    gold: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray
    confidence: np.ndarray
    patient: np.ndarray
    recall: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, columns: Mapping[str, Any], name: str = "contacts.parquet") -> "Contacts":
        """Reads the columns.

        Args:
          columns: by name, array-like, such as a dictionary of lists.
          name: of their file, for messages.

        Raises:
          UserError: a column is missing, or holds what is no number.
        """
        absent = {*_NUMBERS, "patient_id"} - set(columns)
        if absent:
            raise UserError(
                f"{name}: has no {', '.join(sorted(absent))}; run `jaxcoder evaluate` again"
            )
        values = {key: np.asarray(columns[key], np.float64) for key in _NUMBERS}
        for key, value in values.items():
            if np.isnan(value).any():
                raise UserError(
                    f"{name}: {key} of row {int(np.isnan(value).argmax())} is no number; "
                    "run `jaxcoder evaluate` again"
                )
        return cls(
            values["gold"],
            values["predicted"],
            values["hits"],
            # A probability of exactly 0 or 1 that was wrong makes it −inf.
            np.maximum(values["confidence"], -1e9),
            np.unique(np.asarray(columns["patient_id"]).astype(str), return_inverse=True)[1],
            {k: values[f"recall_at_{k}"] for k in _DEPTHS},
        )

    def __len__(self) -> int:
        return len(self.gold)

    def taking(self, chosen: np.ndarray) -> "Contacts":
        """Returns the contacts that are chosen, bool [N] or their places; patients keep theirs."""
        return Contacts(
            gold=self.gold[chosen],
            predicted=self.predicted[chosen],
            hits=self.hits[chosen],
            confidence=self.confidence[chosen],
            patient=self.patient[chosen],
            recall={depth: values[chosen] for depth, values in self.recall.items()},
        )

    def quality(self, name: str) -> np.ndarray:
        """The quality of each contact, float64 [N] in [0, 1]; nothing gold and assigned is 1.

        Args:
          name: one of `QUALITIES`.
        """
        union = self.gold + self.predicted - self.hits
        if name == "exact_match":
            return (union == self.hits).astype(np.float64)
        both = union if name == "jaccard" else (self.gold + self.predicted) / 2
        return np.where(both > 0, self.hits / np.maximum(both, 0.5), 1.0)


def exact_match_line(validation: Contacts) -> Isotonic:
    """Fits the line from confidence to the probability of an exact match.

    Raises:
      UserError: there are no contacts.
    """
    if not len(validation):
        raise UserError("contacts.parquet: no contacts; evaluate a split that has some")
    return Isotonic.fit(validation.confidence, validation.quality("exact_match"))


def curve(test: Contacts, line: Isotonic, steps: int = STEPS) -> list[dict[str, float]]:
    """Follows the quality of the most confident contacts from few to all.

    Args:
      test: the contacts.
      line: as from `exact_match_line` of validation.
      steps: rows at most.

    Returns:
      Rows of `share` of the contacts, `contacts`, the `confidence` that all of them have at least,
      the `probability` of an exact match at it, and `exact_match`, `jaccard` (means of contacts)
      and `micro_f1` of them. Contacts of equal confidence stay together.
    """
    rows = []
    for cut in _cuts(test.confidence, steps, least=1):
        chosen = test.confidence >= cut
        hits, both = test.hits[chosen].sum(), (test.gold + test.predicted)[chosen].sum()
        rows.append(
            {
                "share": float(chosen.mean()),
                "contacts": int(chosen.sum()),
                "confidence": float(cut),
                "probability": float(line(np.array(cut))),
                "exact_match": float(test.quality("exact_match")[chosen].mean()),
                "jaccard": float(test.quality("jaccard")[chosen].mean()),
                "micro_f1": float(2 * hits / both) if both else 0.0,
            }
        )
    return rows


def _cuts(confidence_N: np.ndarray, steps: int, least: int) -> np.ndarray:
    """Cuts by falling confidence, a step of contacts apart; they do not depend on quality."""
    falling = np.sort(confidence_N)[::-1]
    counts = np.ceil(np.arange(1, steps + 1) / steps * len(falling)).astype(int)
    cuts = falling[counts[counts >= least] - 1]
    return np.unique(cuts)[::-1]


def lower_bound(
    quality_N: np.ndarray, patient_N: np.ndarray, target: float, *, binary: bool
) -> float:
    """Returns the smaller of two bounds; see `bounds`.

    One counts each patient once, as if all contacts of a patient came out alike; the other is of
    the sums over patients, which are not equally many contacts. It alone would be sure of itself
    where nobody has failed yet.

    Args:
      quality_N: in [0, 1].
      patient_N: int, the patient of each.
      target: that the mean should reach.
      binary: whether quality is 0 or 1.
    """
    patients = len(np.unique(patient_N))
    mean = float(quality_N.mean()) if patients else 0.0
    if binary:
        single = bounds.clopper_pearson(math.floor(mean * patients + 1e-9), patients, LEVEL)
    else:
        single = bounds.hoeffding_bentkus(mean, patients, LEVEL)
    return min(single, bounds.cluster_t(quality_N, patient_N, target, LEVEL))


def certified_cut(validation: Contacts, name: str, target: float) -> tuple[float, float] | None:
    """Chooses the lowest cut whose contacts reach the target, as far as validation can show it.

    Of the splits of patients that could have been drawn, at most 1 − `LEVEL` give a cut above which
    the quality on all patients is below the target. That takes the assigned codes as given: a
    threshold that was tuned on the same contacts favours them a little.

    Args:
      validation: the contacts.
      name: one of `QUALITIES`.
      target: in (0, 1).

    Returns:
      The least confidence of an automated contact, and the lower bound of their quality; None where
      not even the most confident contacts are shown to reach the target.
    """
    quality, found = validation.quality(name), None
    for cut in _cuts(validation.confidence, STEPS, LEAST):
        chosen = validation.confidence >= cut
        bound = lower_bound(
            quality[chosen], validation.patient[chosen], target, binary=name == "exact_match"
        )
        if bound < target:
            break
        found = float(cut), bound
    return found


def operating_points(validation: Contacts, test: Contacts) -> list[dict[str, Any]]:
    """Chooses a cut on validation for each quality and target, and applies it to test.

    Returns:
      Rows of `quality`, `target`, the `confidence` of the cut and the `probability` of an exact
      match at it (both None where no cut is certified), `validation_share`, `validation_quality`
      and `validation_bound`, `test_share`, `test_contacts` and `test_quality` of the contacts that
      are automated (None where none is), and of the others, which a person codes, `rest_contacts`
      and `rest_recall_at_5`, `_10`, `_15`: means over those with gold codes.
    """
    line = exact_match_line(validation)
    rows = []
    for name in QUALITIES:
        for target in TARGETS:
            found = certified_cut(validation, name, target)
            cut, bound = found or (np.inf, None)
            before, now = validation.confidence >= cut, test.confidence >= cut
            rest = ~now & (test.gold > 0)
            row: dict[str, Any] = {
                "quality": name,
                "target": target,
                "confidence": cut if found else None,
                "probability": float(line(np.array(cut))) if found else None,
                "validation_share": float(before.mean()),
                "validation_quality": _mean(validation.quality(name)[before]),
                "validation_bound": bound,
                "test_share": float(now.mean()) if len(test) else 0.0,
                "test_contacts": int(now.sum()),
                "test_quality": _mean(test.quality(name)[now]),
                "rest_contacts": int((~now).sum()),
            }
            row |= {f"rest_recall_at_{k}": _mean(test.recall[k][rest]) for k in _DEPTHS}
            rows.append(row)
    return rows


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
