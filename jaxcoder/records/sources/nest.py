"""One contact from its rows: what the five relations hold about it, typed, checked and counted."""

import difflib
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxcoder.records import code_systems
from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import ROLES, SEXES, Code, Contact, Evidence, Lab, Medication, Note

Row = tuple[Any, ...]
"""The columns of a relation, in the order of `columns.COLUMNS`; None is null."""

# What findings may show. Where columns have shifted, anything stands in their place: a name, a
# personal number.
_CODE_LIKE = re.compile(r"[A-Za-z]{1,2}[0-9][A-Za-z0-9.]{0,6}|[0-9]{1,3}\.?[0-9]{0,2}")


class Groups:
    """Rows ordered by their first column, taken a group at a time by ids that rise."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._groups = itertools.groupby(rows, key=lambda row: row[0])
        self._next = next(self._groups, None)

    def take(self, contact_id: str) -> list[Row]:
        """The rows of a contact; empty if there are none."""
        if self._next is None or self._next[0] != contact_id:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows


def nest(
    row: Row, children: Mapping[str, Sequence[Row]], system: str, dropped: Findings
) -> Contact:
    """Makes a contact.

    Args:
      row: its row of `contacts`.
      children: its rows of the other relations, in their order.
      system: code system of codes that name none.
      dropped: counts, by reason, the rows that are left out and the values that are emptied.

    Returns:
      The contact.
    """
    contact_id, patient_id, start, end, specialty, age, sex = row
    if age is not None and not 0 <= age <= 130:
        dropped.add("contacts.age: outside 0-130 years (emptied)", contact_id)
        age = None
    if start and end and end < start:
        dropped.add("contacts.end: before its start (kept)", contact_id)
    sex = (sex or "").strip().upper()
    if sex not in SEXES:
        dropped.add("contacts.sex: not F, M or U (set to U)", contact_id)
    notes = tuple(
        Note(text or "", kind or "", time or "")
        for _, time, kind, text in children.get("notes", ())
    )
    medications = tuple(
        Medication(code or "", name or "", dose or "", route or "", time or "")
        for _, time, code, name, dose, route in children.get("medications", ())
    )
    labs = tuple(
        Lab(
            code or "",
            name or "",
            value or "",
            unit or "",
            low,
            high,
            _flag(flag, contact_id, dropped) if flag else "",
            time or "",
        )
        for _, time, code, name, value, unit, low, high, flag in children.get("labs", ())
    )
    codes = _codes(children.get("codes", ()), system, dropped)
    return Contact(
        contact_id,
        patient_id,
        start or "",
        end or "",
        specialty or "",
        age,
        SEXES.get(sex, "U"),
        notes,
        medications,
        labs,
        codes,
        _evidence(children.get("evidence", ()), notes, codes, dropped),
    )


def _codes(rows: Sequence[Row], default: str, dropped: Findings) -> tuple[Code, ...]:
    codes: dict[str, Code] = {}
    for contact_id, written, system, role, rank in rows:
        try:
            code, system = _normalised(written, system or default)
        except ValueError as error:
            dropped.add(f"codes: {error}", contact_id)
            continue
        role = (role or "unknown").strip().lower()
        if role not in ROLES:
            dropped.add(f"codes.role: not {', '.join(ROLES)} (set to unknown)", contact_id)
            role = "unknown"
        if code in codes:
            dropped.add("codes: code repeated in its contact", contact_id)
        else:
            codes[code] = Code(code, system, role, max(0, rank or 0))
    return tuple(codes.values())


def _evidence(
    rows: Sequence[Row],
    notes: Sequence[Note],
    codes: Sequence[Code],
    dropped: Findings,
) -> tuple[Evidence, ...]:
    systems = {code.code: code.system for code in codes}
    evidence = []
    for place, (contact_id, written, note, start, end, mention) in enumerate(rows):
        code = _match(written, systems)
        if mention is None:  # a mention of one piece
            mention = place if rows[0][-1] is None else -1 - place
        if code is None:
            dropped.add("evidence: the contact does not have the code", contact_id)
        elif note is None or not 0 <= note < len(notes):
            dropped.add("evidence: the contact does not have the note", contact_id)
        elif start is None or end is None or not 0 <= start < end <= len(notes[note].text):
            dropped.add("evidence: offsets outside the note", contact_id)
        else:
            evidence.append(Evidence(code, note, start, end, mention))
    return tuple(evidence)


def _flag(flag: str, contact_id: str, dropped: Findings) -> str:
    if flag.upper() in ("L", "H", "A"):
        return flag.upper()
    dropped.add("labs.flag: not L, H or A (emptied)", contact_id)
    return ""


@functools.lru_cache(maxsize=100_000)
def _normalised(written: str, system: str) -> tuple[str, str]:
    """The normalised code and system; the ValueError shows what looks like them, nothing else."""
    try:
        system = code_systems.canonical_system(system)
    except ValueError:
        near = difflib.get_close_matches(system.lower(), code_systems.SYSTEMS, n=1)
        shown = repr(system) if near else "(not shown)"
        raise ValueError(
            f"unknown system {shown}; expected {', '.join(code_systems.SYSTEMS)}"
        ) from None
    try:
        return code_systems.normalise(written, system), system
    except ValueError:
        shown = written if _CODE_LIKE.fullmatch(written) else "(not shown)"
        raise ValueError(f"malformed {system} code {shown}") from None


def _match(written: str, systems: Mapping[str, str]) -> str | None:
    """The contact's code that a written code means, in whichever of the contact's systems."""
    if written in systems:
        return written
    for system in dict.fromkeys(systems.values()):
        try:
            code = _normalised(written, system)[0]
        except ValueError:
            continue
        if code in systems:
            return code
    return None
