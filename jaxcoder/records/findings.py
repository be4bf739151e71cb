"""Findings: rows of a source that are left out or emptied, counted by reason, with an example."""

import collections
import re
from collections.abc import Mapping
from typing import Any

NOT_SHOWN = "(not shown)"
ASKED_FOR = (
    "as the options ask",
    "no code of the kind that is asked for",
    "not in the relation splits",
    "of contacts that are left out",
)
"""How reasons end for which nothing is wrong with a row."""
# What may be shown of a code. Where columns have shifted, anything stands in its place: a name, a
# personal number.
_CODE_LIKE = re.compile(r"[A-Za-z]{1,2}[0-9][A-Za-z0-9.]{0,6}|[0-9]{1,3}\.?[0-9]{0,2}")
_COUNTED, _REPORTED = 100_000, 1_000
"""Distinct failed codes that are counted each by itself, and that a report has: where ids stand in
place of codes, there are as many as rows."""


class Findings(collections.Counter[str]):
    """From a reason to its number of rows.

    Attributes:
      examples: from a reason to the contact_id of the first row found, as `shown` shows it.
      failed_codes: from a system and a code of it that could not be normalised, `icd10 K`, to its
        number of rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, str] = {}
        self.failed_codes: collections.Counter[str] = collections.Counter()

    def __reduce__(self) -> tuple[Any, ...]:
        # A Counter's own would lose the attributes.
        return Findings.from_state, (self.state(),)

    def add(self, reason: str, contact_id: str | None, count: int = 1) -> None:
        """Counts rows; nothing where there are none.

        Args:
          reason: what is wrong with them, without text of theirs.
          contact_id: of one of the rows; None where none has one.
          count: how many they are.
        """
        if count:
            self[reason] += count
            if contact_id is not None:
                self.examples.setdefault(reason, shown(contact_id))

    def add_failed_code(self, system: str, written: str, contact_id: str) -> None:
        """Counts a code that cannot be normalised, and shows what looks like one alone."""
        self.add(f"codes: malformed {system} code", contact_id)
        self._add_failed(f"{system} {written if _CODE_LIKE.fullmatch(written) else NOT_SHOWN}", 1)

    def _add_failed(self, code: str, count: int) -> None:
        if code not in self.failed_codes and len(self.failed_codes) >= _COUNTED:
            code = f"{code.partition(' ')[0]} {NOT_SHOWN}"
        self.failed_codes[code] += count

    def merge(self, other: "Findings") -> None:
        """Adds the counts of another part of the data, which comes after this one."""
        self.update(other)
        self.examples = other.examples | self.examples
        for code, count in other.failed_codes.items():
            self._add_failed(code, count)

    def state(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {"rows": dict(self), "examples": self.examples, "failed": dict(self.failed_codes)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Findings":
        """The inverse of `state`."""
        findings = cls()
        findings.update(state["rows"])
        findings.examples.update(state["examples"])
        findings.failed_codes.update(state["failed"])
        return findings

    def lines(self) -> list[str]:
        """A line a reason, the most frequent first."""
        return [line(count, reason, self.examples) for reason, count in self.most_common()]


def line(count: int, reason: str, examples: Mapping[str, str]) -> str:
    """What is printed of a reason."""
    example = f", such as contact_id {examples[reason]}" if reason in examples else ""
    return f"{count:,} × {reason}{example}"


def shown(identifier: str) -> str:
    """An id as messages show it; what stands in shifted columns may be text, and is not shown."""
    return repr(identifier) if re.fullmatch(r"\S{1,64}", identifier) else NOT_SHOWN


def as_json(dropped: Mapping[str, int]) -> dict[str, Any]:
    """The keys of a report: `dropped`, and where the source has any `examples` and `failed_codes`.

    `failed_codes` are the 1,000 most frequent, most frequent first; `failed_codes_beyond` is how
    many others there are.
    """
    content: dict[str, Any] = {"dropped": dict(sorted(dropped.items()))}
    if isinstance(dropped, Findings):
        if dropped.examples:
            content["examples"] = dict(sorted(dropped.examples.items()))
        if dropped.failed_codes:
            failed = sorted(dropped.failed_codes.items(), key=lambda item: (-item[1], item[0]))
            content["failed_codes"] = dict(failed[:_REPORTED])
            content["failed_codes_beyond"] = max(0, len(failed) - _REPORTED)
    return content
