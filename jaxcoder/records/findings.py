"""Findings: rows of a source that are left out or emptied, counted by reason, with an example."""

import collections
import re
from collections.abc import Mapping
from typing import Any


class Findings(collections.Counter[str]):
    """From a reason to its number of rows.

    Attributes:
      examples: from a reason to the contact_id of the first row found, as `shown` shows it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, str] = {}

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

    def lines(self) -> list[str]:
        """A line a reason, the most frequent first."""
        return [line(count, reason, self.examples) for reason, count in self.most_common()]


def line(count: int, reason: str, examples: Mapping[str, str]) -> str:
    """What is printed of a reason."""
    example = f", such as contact_id {examples[reason]}" if reason in examples else ""
    return f"{count:,} × {reason}{example}"


def shown(identifier: str) -> str:
    """An id as messages show it; what stands in shifted columns may be text, and is not shown."""
    return repr(identifier) if re.fullmatch(r"\S{1,64}", identifier) else "(not shown)"


def as_json(dropped: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """The key `dropped` of a report, and `examples` where the source has any."""
    content: dict[str, dict[str, Any]] = {"dropped": dict(sorted(dropped.items()))}
    if isinstance(dropped, Findings) and dropped.examples:
        content["examples"] = dict(sorted(dropped.examples.items()))
    return content
