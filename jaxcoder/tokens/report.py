"""What is in a split of token records: counted while it is written. Numbers only, never text."""

import collections
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcoder.tokens.evidence import EvidenceCounts


class SplitReport:
    """Counts over the records of one split; memory grows by 12 bytes a record, and with the codes.

    Attributes:
      evidence: what became of its spans.
      codes: contacts that have a code; of these, those in which it is secondary; and those in which
        its role is known; see `data.CodeCount`.
    """

    def __init__(self) -> None:
        self.evidence = EvidenceCounts()
        self.codes = tuple(collections.Counter[str]() for _ in range(3))
        self._sizes = array("i")
        self._truncated = self._cut = self._missing = 0

    def add(self, record: dict[str, Any], tokens_cut: int) -> None:
        """Counts a record.

        Args:
          record: the token record.
          tokens_cut: how many tokens were too many.
        """
        self._sizes.extend((len(record["tokens"]), len(record["labels"]), len(record["evidence"])))
        self._truncated += tokens_cut > 0
        self._cut += tokens_cut
        self._missing += int(record["missing"])

    def add_codes(self, roles: Mapping[str, str]) -> None:
        """Counts the codes of a contact.

        Args:
          roles: from each code to its role.
        """
        occurrences, secondary, known = self.codes
        occurrences.update(roles.keys())
        secondary.update(code for code, role in roles.items() if role == "secondary")
        known.update(code for code, role in roles.items() if role != "unknown")

    def code_counts(self) -> dict[str, tuple[int, ...]]:
        """From each code, in their order, to its three counts."""
        return {code: tuple(each[code] for each in self.codes) for code in sorted(self.codes[0])}

    def merge(self, other: "SplitReport") -> None:
        """Adds the counts of the records that come after this report's."""
        self.evidence.merge(other.evidence)
        for mine, its in zip(self.codes, other.codes, strict=True):
            mine.update(its)
        self._sizes.extend(other._sizes)
        self._truncated += other._truncated
        self._cut += other._cut
        self._missing += other._missing

    def state(self) -> dict[str, Any]:
        """All of it as JSON values."""
        counts = [self._truncated, self._cut, self._missing]
        spans = {name: dict(fates) for name, fates in self.evidence.spans.items()}
        return {
            "counts": counts,
            "codes": [dict(each) for each in self.codes],
            "sizes": self._sizes.tolist(),
            "spans": spans,
            "labels": dict(self.evidence.labels),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "SplitReport":
        """The inverse of `state`."""
        report = cls()
        report._truncated, report._cut, report._missing = state["counts"]
        for mine, its in zip(report.codes, state["codes"], strict=True):
            mine.update(its)
        report._sizes.extend(state["sizes"])
        for name, fates in state["spans"].items():
            report.evidence.spans[name].update(fates)
        report.evidence.labels.update(state["labels"])
        return report

    @property
    def sizes(self) -> np.ndarray:
        """int32 [N, 3]: tokens, labels and evidence spans of each record."""
        return np.array(self._sizes, np.int32).reshape(-1, 3)

    def summary(self) -> dict[str, Any]:
        """The split's part of `tokens_report.json`.

        Returns:
          Counts; shares in [0, 1]; `silver_label_coverage` is the share of labels that have silver
          evidence.
        """
        sizes = self.sizes
        records = len(sizes)
        tokens, labels, spans = sizes.T if records else np.zeros((3, 1), np.int32)
        summary: dict[str, Any] = {
            "records": records,
            "tokens": int(tokens.sum()),
            "tokens_per_record": {
                "mean": round(float(tokens.mean()), 1),
                "p95": int(np.percentile(tokens, 95)),
                "max": int(tokens.max()),
            },
            "truncated_share": round(self._truncated / max(1, records), 4),
            "tokens_cut": self._cut,
            "labels": int(labels.sum()),
            "labels_per_record": {
                "mean": round(float(labels.mean()), 2),
                "max": int(labels.max()),
            },
            "gold_outside_label_space": self._missing,
            "evidence_per_record_max": int(spans.max()),
            "evidence": {
                name: dict(sorted(fates.items()))
                for name, fates in self.evidence.spans.items()
                if fates
            },
        }
        for name, covered in self.evidence.labels.items():
            if covered:
                share = round(covered / max(1, int(labels.sum())), 4)
                summary[f"{name}_label_coverage"] = share
        return summary


def table(report: Mapping[str, Any]) -> str:
    """The report as text: a line a split, then what became of evidence."""
    header = ("split", "records", "tokens/record", "p95", "max", "truncated", "labels", "outside")
    rows = [header]
    notes = []
    for name, split in report["splits"].items():
        tokens = split["tokens_per_record"]
        row = [name, f"{split['records']:,}", f"{tokens['mean']:,.1f}", f"{tokens['p95']:,}"]
        row += [f"{tokens['max']:,}", f"{split['truncated_share']:.1%}", f"{split['labels']:,}"]
        rows.append((*row, f"{split['gold_outside_label_space']:,}"))
        for provenance, fates in split["evidence"].items():
            counts = ", ".join(
                f"{count:,} {fate.replace('_', ' ')}" for fate, count in fates.items()
            )
            share = split.get(f"{provenance}_label_coverage", 0.0)
            notes.append(
                f"{name}: {provenance} evidence for {share:.1%} of labels; spans: {counts}"
            )
    mini = report["identity"]["options"]["mini"]
    if mini["per_contact"] and "mini" not in report["splits"]:
        notes.append(f"no mini-documents: {', '.join(mini['sources'])} gave no strings")
    widths = [max(len(row[place]) for row in rows) for place in range(len(header))]
    lines = [
        "  ".join(
            f"{cell:<{width}}" if place == 0 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    sizes = f"{report['num_labels']:,} labels, vocabulary of {report['vocab_size']:,} tokens"
    return "\n".join([*lines, *notes, sizes])
