"""One contact from its rows: what the five relations hold about it, typed, checked and counted."""

import bisect
import datetime
import difflib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxcoder.records import code_systems
from jaxcoder.records.findings import NOT_SHOWN, Findings
from jaxcoder.records.schema import ROLES, SEXES, Code, Contact, Evidence, Lab, Medication, Note

Row = tuple[Any, ...]
"""The columns of a relation, in the order of `columns.COLUMNS`; None is null."""

_SLACK = datetime.timedelta(days=1)
"""So much may a note or a result lie outside its contact: the ward before, the letter after."""


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
      dropped: counts, by reason, the rows that are left out, the values that are emptied, and
        what is kept but hardly right: repeated rows, times out of order, characters that were lost.

    Returns:
      The contact.
    """
    contact_id, patient_id, start, end, specialty, age, sex, kind = row
    if age is not None and not 0 <= age <= 130:
        dropped.add("contacts.age: outside 0-130 years (emptied)", contact_id)
        age = None
    if start and end and end < start:
        dropped.add("contacts.end: before its start (kept)", contact_id)
    sex = (sex or "").strip().upper()
    if sex not in SEXES:
        dropped.add("contacts.sex: not F, M or U (set to U)", contact_id)
    for relation in ("notes", "medications", "labs"):
        rows = children.get(relation, ())
        if relation == "notes":  # their rank is but a number of the row
            rows = [row[:-1] for row in rows]
        if len(rows) > 1 and (repeated := len(rows) - len(set(rows))):
            # Kept: two results may be equal, and evidence counts the notes.
            dropped.add(f"{relation}: row repeated in its contact (kept)", contact_id, repeated)
    _check_times(contact_id, start, end, children, dropped)
    notes = tuple(
        Note(text or "", kind or "", time or "")
        for _, time, kind, text, _ in children.get("notes", ())
    )
    for note in notes:
        if "\ufffd" in note.text:
            reason = "notes.text: has U+FFFD, where an earlier conversion lost characters (kept)"
            dropped.add(reason, contact_id)
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
        kind or "",
        notes,
        medications,
        labs,
        codes,
        _evidence(children.get("evidence", ()), notes, codes, dropped),
    )


def _check_times(
    contact_id: str,
    start: str | None,
    end: str | None,
    children: Mapping[str, Sequence[Row]],
    dropped: Findings,
) -> None:
    """Counts notes and results of another time than their contact's: another contact's, perhaps.

    Medications are not looked at: what a patient brings along began long before.
    """
    if start and end and end < start:
        return
    for relation in ("notes", "labs"):
        # Most stand in time order already.
        times = sorted(row[1] for row in children.get(relation, ()) if row[1])
        if start and times and times[0] < start:
            early = bisect.bisect_left(times, _moved(start, -_SLACK))
            reason = f"{relation}.time: more than a day before the contact's start (kept)"
            dropped.add(reason, contact_id, early)
        if end and times and times[-1] > end:
            late = len(times) - bisect.bisect_right(times, _moved(end, _SLACK))
            reason = f"{relation}.time: more than a day after the contact's end (kept)"
            dropped.add(reason, contact_id, late)


def _moved(time: str, by: datetime.timedelta) -> str:
    """A time as ISO 8601, moved; as it is where Python has none so early or so late."""
    try:
        return (datetime.datetime.fromisoformat(time) + by).isoformat()
    except (ValueError, OverflowError):
        return time


def _codes(rows: Sequence[Row], default: str, dropped: Findings) -> tuple[Code, ...]:
    codes: dict[str, Code] = {}
    for contact_id, written, system, role, rank in rows:
        try:
            system = _canonical(system or default)
        except ValueError as error:
            dropped.add(f"codes: {error}", contact_id)
            continue
        try:
            code = _normalised(written, system)
        except ValueError:
            dropped.add_failed_code(system, written, contact_id)
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


_normalised = functools.lru_cache(maxsize=100_000)(code_systems.normalise)


@functools.lru_cache(maxsize=1_000)
def _canonical(system: str) -> str:
    """The system's name; the ValueError shows what looks like one, nothing else."""
    try:
        return code_systems.canonical_system(system)
    except ValueError:
        near = difflib.get_close_matches(system.lower(), code_systems.SYSTEMS, n=1)
        shown = repr(system) if near else NOT_SHOWN
        raise ValueError(
            f"unknown system {shown}; expected {', '.join(code_systems.SYSTEMS)}"
        ) from None


def _match(written: str, systems: Mapping[str, str]) -> str | None:
    """The contact's code that a written code means, in whichever of the contact's systems."""
    if written in systems:
        return written
    for system in dict.fromkeys(systems.values()):
        try:
            code = _normalised(written, system)
        except ValueError:
            continue
        if code in systems:
            return code
    return None
