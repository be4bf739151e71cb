"""Contacts as lines of JSON: what `predict` reads."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence

from jaxcoder.records.contact_json import contact_of
from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import Contact

SECTIONS = ("notes", "medications", "labs")


@dataclasses.dataclass(frozen=True)
class BrokenLine:
    """A line that is not a contact: its number, from 1, and what is wrong, without note text."""

    line: int
    reason: str


def read(
    lines: Iterable[bytes],
    sections: Sequence[str] = SECTIONS,
    dropped: Findings | None = None,
) -> Iterator[tuple[int, Contact] | BrokenLine]:
    """Reads contacts, one a line; blank lines are passed over.

    Args:
      lines: UTF-8.
      sections: what the coder reads; a contact with none of it is a broken line.
      dropped: counts, by reason, the keys that are ignored and the values that are emptied.

    Yields:
      The line's number, from 1, and its contact; or what is wrong with the line.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, parse(line, sections, dropped)
        except ValueError as error:
            yield BrokenLine(number, str(error))


def parse(
    line: bytes | str,
    sections: Sequence[str] = SECTIONS,
    dropped: Findings | None = None,
) -> Contact:
    """Reads a contact from JSON, as `contact_of` does.

    Args:
      line: an object.
      sections: what the coder reads.
      dropped: as in `read`.

    Raises:
      ValueError: not JSON, or what `contact_of` raises.
    """
    try:
        value = json.loads(line.decode("utf-8-sig") if isinstance(line, bytes) else line)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON at column {error.colno} ({error.msg})") from None
    except RecursionError:
        raise ValueError("not a contact: nested too deeply") from None
    return contact_of(value, sections, (Findings() if dropped is None else dropped).add)
