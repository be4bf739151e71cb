"""What is in a split of contact records: counted while it is written."""

import collections
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from jaxcoder.records.findings import as_json, line
from jaxcoder.records.schema import Contact

_REASONS = 12
"""Lines of dropped rows that are printed for a split."""
_FAILED_CODES = 5
"""Codes that are printed of those that failed."""
_OPTIONAL = {
    "notes": "notes",
    "medications": "medications",
    "labs": "labs",
    "codes": "codes",
    "mentions": "evidence",
}
"""From a count to the relation that it is of, which a source may not have."""


class SplitReport:
    """Counts over the contacts of one split; memory grows with its patients and codes alone."""

    def __init__(self) -> None:
        self._totals: collections.Counter[str] = collections.Counter()
        self._patients: set[int] = set()
        self.codes: collections.Counter[str] = collections.Counter()
        self._ceiling: Any = None

    def watch(self, contacts: Iterator[Contact]) -> Iterator[Contact]:
        """Passes contacts on, and counts them."""
        for contact in contacts:
            self.add(contact)
            yield contact

    def add(self, contact: Contact) -> None:
        """Counts a contact."""
        totals = self._totals
        totals["contacts"] += 1
        # 64 bits instead of the id: 1.8 million patients fit. Python's hash() is another one in
        # every process.
        patient = hashlib.blake2b(contact.patient_id.encode(), digest_size=8)
        self._patients.add(int.from_bytes(patient.digest()))
        self.codes.update({code.code for code in contact.codes})
        totals["codes"] += len(contact.codes)
        totals["notes"] += len(contact.notes)
        totals["words"] += sum(len(note.text.split()) for note in contact.notes)
        totals["medications"] += len(contact.medications)
        totals["labs"] += len(contact.labs)
        totals["mentions"] += len({(row.code, row.mention) for row in contact.evidence})
        totals["contacts_without_notes"] += not any(note.text.strip() for note in contact.notes)
        totals["contacts_without_codes"] += not contact.codes
        if contact.conditions:
            self._known_truth().add(contact)

    def merge(self, other: "SplitReport") -> None:
        """Adds the counts of another part of the split; a patient in both counts once."""
        self._totals.update(other._totals)
        self._patients |= other._patients
        self.codes.update(other.codes)
        if other._ceiling is not None:
            self._known_truth().merge(other._ceiling)

    def state(self) -> dict[str, Any]:
        """All of it as JSON values."""
        state = {"totals": dict(self._totals), "patients": sorted(self._patients)}
        ceiling = None if self._ceiling is None else self._ceiling.state()
        return {**state, "codes": dict(self.codes), "ceiling": ceiling}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "SplitReport":
        """The inverse of `state`."""
        report = cls()
        report._totals.update(state["totals"])
        report._patients.update(state["patients"])
        report.codes.update(state["codes"])
        if state["ceiling"] is not None:
            report._known_truth().load(state["ceiling"])
        return report

    def _known_truth(self) -> Any:
        if self._ceiling is None:
            # Only cohorts with a known truth need it.
            from jaxcoder.records.sources.synthetic.ceiling import Ceiling

            self._ceiling = Ceiling()
        return self._ceiling

    @property
    def contacts(self) -> int:
        """Their number."""
        return self._totals["contacts"]

    def overlap(self, other: "SplitReport") -> int:
        """Number of patients in both splits."""
        return len(self._patients & other._patients)

    def summary(self, dropped: Mapping[str, int], train: "SplitReport | None") -> dict[str, Any]:
        """The split's part of `records_report.json`.

        Args:
          dropped: from a reason to the number of rows left out, emptied or kept in doubt for it.
          train: the training split, when this is another one.

        Returns:
          Counts; means a contact or a note; `without_notes_share`, the share in [0, 1] of contacts
          that have no note with text; `unseen_in_train_share`, that of this split's code
          occurrences whose code no training contact has; `ceiling_micro_f1` for a cohort whose
          truth is known.
        """
        totals = self._totals
        occurrences = self.codes.total()
        summary: dict[str, Any] = {
            "contacts": totals["contacts"],
            "patients": len(self._patients),
            "codes": totals["codes"],
            "codes_per_contact": round(totals["codes"] / max(1, totals["contacts"]), 4),
            "distinct_codes": len(self.codes),
            "notes": totals["notes"],
            "words_per_note": round(totals["words"] / max(1, totals["notes"]), 2),
            "medications": totals["medications"],
            "labs": totals["labs"],
            "mentions": totals["mentions"],
            "contacts_without_notes": totals["contacts_without_notes"],
            "without_notes_share": round(
                totals["contacts_without_notes"] / max(1, totals["contacts"]), 4
            ),
            "contacts_without_codes": totals["contacts_without_codes"],
            **as_json(dropped),
        }
        if train is not None and occurrences:
            unseen = sum(count for code, count in self.codes.items() if code not in train.codes)
            summary["unseen_in_train_share"] = round(unseen / occurrences, 4)
        if self._ceiling is not None:
            summary["ceiling_micro_f1"] = self._ceiling.micro_f1()
        return summary


def table(report: Mapping[str, Any]) -> str:
    """The report as text: a line a split, what no contact has, and a line a reason of drops."""
    columns = [
        "contacts",
        "patients",
        "codes_per_contact",
        "distinct_codes",
        "notes",
        "words_per_note",
        "without_notes_share",
        "medications",
        "labs",
        "ceiling_micro_f1",
    ]
    splits = report["splits"]
    columns = [
        column for column in columns if any(column in summary for summary in splits.values())
    ]
    width = max(len(name) for name in (*splits, "split"))
    lines = ["  ".join([f"{'split':<{width}}", *columns])]
    for name, summary in splits.items():
        cells = [summary.get(column, "") for column in columns]
        texts = [
            f"{cell:,.3f}" if isinstance(cell, float) else f"{cell:,}" if cell != "" else ""
            for cell in cells
        ]
        lines.append(
            "  ".join(
                [
                    f"{name:<{width}}",
                    *(
                        f"{text:>{len(column)}}"
                        for text, column in zip(texts, columns, strict=True)
                    ),
                ]
            )
        )
    absent = [
        relation
        for key, relation in _OPTIONAL.items()
        if not any(summary[key] for summary in splits.values())
    ]
    if absent:
        lines.append(f"no contact has {', '.join(absent)}")
    parts = [*((f"{name}: ", summary) for name, summary in splits.items()), ("", report)]
    if not any(part["dropped"] for _, part in parts):
        lines.append("nothing dropped")
    for name, part in parts:
        dropped, examples = part["dropped"], part.get("examples", {})
        for reason in sorted(dropped, key=lambda reason: -dropped[reason])[:_REASONS]:
            lines.append(f"{name}{line(dropped[reason], reason, examples)}")
        if len(dropped) > _REASONS:
            lines.append(f"{name}{len(dropped) - _REASONS:,} more reasons in the report's file")
        if failed := part.get("failed_codes"):
            most = [f"{code} ({count:,})" for code, count in failed.items()][:_FAILED_CODES]
            others = len(failed) + part["failed_codes_beyond"] - len(most)
            more = f", and {others:,} others in the report's file" if others else ""
            lines.append(f"{name}failed codes: {', '.join(most)}{more}")
    if report.get("patients_in_several_splits"):
        lines.append(
            f"{report['patients_in_several_splits']:,} patients stand in more than one split"
        )
    return "\n".join(lines)
