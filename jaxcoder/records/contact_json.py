"""A contact from a JSON object, as a line of what `predict` reads has it."""

import dataclasses
import datetime
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from jaxcoder.records.schema import SEXES, Contact, Lab, Medication, Note

# Codes are what is predicted; an object that has them all the same is no mistake.
_SCALARS = ("contact_id", "patient_id", "start", "end", "specialty", "age", "sex", "kind")
_KEYS = (*_SCALARS, "notes", "medications", "labs", "text", "codes")

NO_TIME = "no time such as 2024-01-31 08:00 (emptied)"
NO_NUMBER = "no number such as 3.5 (emptied)"

Row = TypeVar("Row", Note, Medication, Lab)
Finding = Callable[[str], None]
"""Counts what is wrong with a value."""


def contact_of(value: Any, sections: Sequence[str], found: Callable[[str, str], None]) -> Contact:
    """Reads a contact.

    Args:
      value: an object with `contact_id`, and `notes` (objects with `text`, `kind`, `time`) or
        `text`, `medications`, `labs` (objects with the columns of the source relations), if known
        `patient_id`, `start`, `end`, `specialty`, `age`, `sex`, `kind`. Null is absent; others are
        ignored.
      sections: what the coder reads.
      found: takes a key that is ignored or a value that is emptied, and the contact_id.

    Returns:
      The contact, its rows in time order, without codes; empty notes and rows are left out.

    Raises:
      ValueError: no object, a missing id, a value of another type, or nothing to code. The message
        holds keys and types, and no text of the contact.
    """
    if not isinstance(value, Mapping):
        raise ValueError(
            f"a JSON {_kind(value)}: expected an object with contact_id and notes or text"
        )
    contact_id = value.get("contact_id")
    if isinstance(contact_id, int) and not isinstance(contact_id, bool):
        contact_id = str(contact_id)
    if not isinstance(contact_id, str) or not contact_id:
        raise ValueError("contact_id is missing: expected text that names the contact")

    def findings(reason: str) -> None:
        found(reason, contact_id)

    _count_unknown(value, _KEYS, "", findings)
    if value.get("text") is not None and value.get("notes") is not None:
        raise ValueError("has both text and notes: expected one of them")
    sex = _text(value.get("sex"), "sex").strip().upper()
    if sex not in SEXES:
        findings("sex: not F, M or U (set to U)")
    age = _number(value.get("age"), "age", findings)
    if age is not None and not 0 <= age <= 130:
        findings("age: outside 0-130 years (emptied)")
        age = None
    notes = _rows(Note, value, "notes", findings)
    if value.get("text") is not None:
        notes = (Note(text=_text(value["text"], "text")),)
    contact = Contact(
        contact_id=contact_id,
        patient_id=_text(value.get("patient_id"), "patient_id"),
        start=_time(value.get("start"), "start", "start", findings),
        end=_time(value.get("end"), "end", "end", findings),
        specialty=_text(value.get("specialty"), "specialty"),
        age=age,
        sex=SEXES.get(sex, "U"),
        kind=_text(value.get("kind"), "kind"),
        notes=tuple(note for note in notes if note.text.strip()),
        medications=_rows(Medication, value, "medications", findings),
        labs=_rows(Lab, value, "labs", findings),
    )
    if not any(getattr(contact, section) for section in sections):
        raise ValueError(f"nothing to code: expected {', '.join(sections)} that are not empty")
    return contact


def _count_unknown(
    value: Mapping[str, Any], known: Collection[str], where: str, findings: Finding
) -> None:
    """Counts the keys that nobody reads; a key that is no plain name is not shown."""
    for key in map(str, value.keys() - set(known)):
        plain = re.fullmatch(r"[A-Za-z_][\w.-]{0,29}", key, re.ASCII)
        near = difflib.get_close_matches(key.lower(), known, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        findings(f"{where}{key if plain else '(no plain name)'}: unknown key (ignored){meant}")


def _rows(row: type[Row], value: Mapping[str, Any], key: str, findings: Finding) -> tuple[Row, ...]:
    cells = value.get(key)
    if cells is None:
        return ()
    if not isinstance(cells, list | tuple):
        raise ValueError(f"{key} is a JSON {_kind(cells)}: expected a list of objects")
    rows = []
    for number, cell in enumerate(cells):
        where = f"{key}[{number}]"
        if not isinstance(cell, Mapping):
            raise ValueError(f"{where} is a JSON {_kind(cell)}: expected an object")
        names = [field.name for field in dataclasses.fields(row)]
        _count_unknown(cell, names, f"{key}.", findings)
        read_cell: dict[str, Any] = {}
        for name in (name for name in names if cell.get(name) is not None):
            if name == "time":
                read_cell[name] = _time(cell[name], f"{where}.time", f"{key}.time", findings)
            elif name in ("low", "high"):
                read_cell[name] = _number(cell[name], f"{key}.{name}", findings)
            else:
                read_cell[name] = _text(cell[name], f"{where}.{name}")
        if row is Note and "text" not in read_cell:
            raise ValueError(f"{where}.text is missing")
        if read_cell.get("flag"):
            flag = str(read_cell["flag"]).upper()
            if flag not in ("L", "H", "A"):
                findings("labs.flag: not L, H or A (emptied)")
                flag = ""
            read_cell["flag"] = flag
        if any(value for name, value in read_cell.items() if name != "time"):
            rows.append(row(**read_cell))
    # Rows without a time last, as in contact records.
    return tuple(sorted(rows, key=lambda each: (not each.time, each.time)))


def _text(value: Any, key: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"{key} holds half a surrogate pair: not a character")
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and not key.endswith("text"):
        return str(value)  # ids, doses and results are often numbers
    raise ValueError(f"{key} is a JSON {_kind(value)}: expected text")


def _time(value: Any, where: str, key: str, findings: Finding) -> str:
    """A time as contact records have it: to the second, in UTC where a zone is given."""
    text = _text(value, where).strip()
    if not text:
        return ""
    try:
        time = datetime.datetime.fromisoformat(text)
        if time.tzinfo is not None:
            time = time.astimezone(datetime.UTC).replace(tzinfo=None)
        return time.isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        findings(f"{key}: {NO_TIME}")
        return ""


def _number(value: Any, key: str, findings: Finding) -> float | None:
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        if isinstance(value, str) and re.fullmatch(r" *[+-]?\d+,(\d{1,2}|\d{4,}) *", value):
            value = value.replace(",", ".")  # as tables have it
        number = float(value)
        return number if math.isfinite(number) else None  # NaN is how pandas writes an absent one
    except (TypeError, ValueError, OverflowError):
        findings(f"{key}: {NO_NUMBER}")
        return None


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")
