"""Serialisation: a contact as one text with section markers, and what is cut when it is too long.

    [PATIENT] age 63 sex F
    [NOTE discharge]
    Admitted with chest pain ...
    [MEDICATIONS]
    B01AC06 acetylsalicylic acid 75 mg oral
    [LABS]
    Troponin I 412 ng/L H

Notes stand verbatim, so that a character of the text maps back to a character of its note.
"""

import dataclasses
import math
import re
from typing import NamedTuple

import numpy as np

from jaxcoder.records.schema import Contact, Lab, Medication

SECTIONS = ("patient", "notes", "medications", "labs")
"""Sections of the text; a section's index here is its number in segments."""

_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(,[0-9]{3})+")

KEEP = ("head", "tail", "head+tail")


@dataclasses.dataclass(frozen=True)
class SerialiseOptions:
    """What of a contact the coder reads, and how much of it.

    Attributes:
      sections: which of `notes`, `medications` and `labs`, in the order of the text.
      demographics: whether age and sex lead the text where they are known.
      max_tokens: the most tokens of a document, its start and its end token included.
      notes_tokens: the most tokens of all notes together; 0 sets no limit of its own. Where a
        document is still longer than `max_tokens`, its longest sections are cut, alike.
      medications_tokens: the same for medications.
      labs_tokens: the same for laboratory results.
      keep: what stays of a section that is cut: its `head`, its `tail`, or `head+tail` (half of
        each, the middle goes).
    """

    sections: tuple[str, ...] = SECTIONS[1:]
    demographics: bool = True
    max_tokens: int = 4096
    notes_tokens: int = 0
    medications_tokens: int = 0
    labs_tokens: int = 0
    keep: str = "head"

    def __post_init__(self) -> None:
        known = SECTIONS[1:]
        if set(self.sections) - set(known) or len(set(self.sections)) < len(self.sections):
            raise ValueError(
                f"sections = {list(self.sections)}: expected some of {list(known)}, each once"
            )
        if not self.sections:
            raise ValueError(f"sections = []: expected at least one of {', '.join(known)}")
        if self.max_tokens < 8:
            raise ValueError(f"max_tokens = {self.max_tokens}: expected at least 8")
        for key in ("notes_tokens", "medications_tokens", "labs_tokens"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 (no limit) or more")
        if self.keep not in KEEP:
            raise ValueError(f"keep = {self.keep!r}: expected one of {', '.join(KEEP)}")


class Serialised(NamedTuple):
    """A contact as text.

    Attributes:
      text: sections one after the other.
      segments: int32 [S, 5], which together cover the text, in order: section (index into
        `SECTIONS`), item (index into the contact's notes, medications or labs; −1 for markers and
        demographics), start and end in the text, and the character of the item at start. Only in
        notes do characters correspond one to one.
    """

    text: str
    segments: np.ndarray


def serialise(contact: Contact, options: SerialiseOptions) -> Serialised:
    """Writes a contact as one text.

    Args:
      contact: the contact; blank notes and empty sections leave no marker.
      options: which sections.

    Returns:
      The text, not yet cut: how much is too much is known after tokenisation, see `kept_tokens`.
    """
    pieces: list[str] = []
    flat: list[int] = []  # of segments; a list of tuples takes NumPy twice as long
    position = 0

    def add(section: int, item: int, piece: str) -> None:
        nonlocal position
        pieces.append(piece)
        end = position + len(piece)
        flat.extend((section, item, position, end, 0))
        position = end

    if options.demographics and (line := _demographics(contact)):
        add(0, -1, f"[PATIENT]{line}\n")
    for name in options.sections:
        section = SECTIONS.index(name)
        if name == "notes":
            for number, note in enumerate(contact.notes):
                if note.text.strip():
                    kind = " ".join(note.kind.split())
                    add(section, -1, f"[NOTE {kind}]\n" if kind else "[NOTE]\n")
                    add(section, number, note.text)
                    add(section, -1, "\n")
            continue
        lines = (
            [_medication(row) for row in contact.medications]
            if name == "medications"
            else [_lab(row) for row in contact.labs]
        )
        if any(lines):
            add(section, -1, f"[{name.upper()}]\n")
        for number, line in enumerate(lines):
            if line:
                add(section, number, f"{line}\n")
    return Serialised("".join(pieces), np.array(flat, np.int32).reshape(-1, 5))


def kept_tokens(offsets: np.ndarray, segments: np.ndarray, options: SerialiseOptions) -> np.ndarray:
    """Decides which tokens of a serialised contact stay.

    Args:
      offsets: int32 [n, 2], characters of each token in the text, without start and end token.
      segments: of `Serialised`.
      options: the limits.

    Returns:
      int64 [m], indices of the tokens that stay, rising; m + 2 is at most `max_tokens`.
    """
    everything = np.arange(len(offsets))
    if not len(segments):
        return everything[:0]
    own = [0, options.notes_tokens, options.medications_tokens, options.labs_tokens]
    if not any(own) and len(offsets) <= options.max_tokens - 2:
        return everything
    owner = np.searchsorted(segments[:, 2], offsets[:, 0], side="right") - 1
    section = segments[np.maximum(owner, 0), 0]
    sizes = np.bincount(section, minlength=len(SECTIONS))
    limits = np.where(np.array(own) > 0, np.minimum(sizes, own), sizes)
    limits = _level(limits, options.max_tokens - 2)
    if np.array_equal(limits, sizes):
        return everything
    stays = np.ones(len(offsets), bool)
    for number in np.flatnonzero(limits < sizes):
        mine = np.flatnonzero(section == number)
        # Medications and laboratory results have one marker; without it their rows mean little.
        is_marker = segments[owner[mine], 1] < 0
        marker = int(is_marker.argmin()) if number > 1 and not is_marker.all() else 0
        stays[mine] = False
        stays[_ends(mine, int(limits[number]), min(marker, int(limits[number])), options.keep)] = (
            True
        )
    return np.flatnonzero(stays)


def _ends(tokens: np.ndarray, limit: int, marker: int, keep: str) -> np.ndarray:
    tail = {"head": 0, "tail": limit - marker, "head+tail": (limit - marker) // 2}[keep]
    return np.concatenate([tokens[: limit - tail], tokens[len(tokens) - tail :]])


def _level(sizes: np.ndarray, room: int) -> np.ndarray:
    """The sizes, the largest of them lowered to one level so that their sum is at most `room`."""
    sizes = sizes.astype(np.int64)
    if sizes.sum() <= room:
        return sizes
    level = left = 0
    for rank, number in enumerate(order := np.argsort(sizes, kind="stable")):
        level, left = divmod(room, len(order) - rank)
        if sizes[number] > level:
            break
        room -= int(sizes[number])
    lowered = np.minimum(sizes, level)
    # What does not divide goes to the first of the lowered ones.
    lowered[np.flatnonzero(sizes > level)[:left]] += 1
    return lowered


def _demographics(contact: Contact) -> str:
    age = "" if contact.age is None else f" age {math.floor(contact.age)}"
    return age + (f" sex {contact.sex}" if contact.sex in ("F", "M") else "")


def _medication(row: Medication) -> str:
    return " ".join(" ".join((row.code, row.name, row.dose, row.route)).split())


def _lab(row: Lab) -> str:
    return " ".join(" ".join((row.name or row.code, row.value, row.unit, flag(row))).split())


def flag(row: Lab) -> str:
    """The flag of a laboratory result: the source's, or `L` or `H` by its bounds, or empty."""
    if row.flag or (row.low is None and row.high is None):
        return row.flag
    text = row.value.strip()
    sign = text[:1] if text[:1] in ("<", ">") else ""
    text = text.removeprefix(sign).removeprefix("=").strip()
    if "," not in text:
        return _flag_of(text, sign, row)
    # "250,000" is 250 in some countries and 250 thousand in others: a flag must be right in both.
    readings = [text.replace(",", ".")] if text.count(",") < 2 else []
    if _THOUSANDS.fullmatch(text):
        readings.append(text.replace(",", ""))
    found = {_flag_of(reading, sign, row) for reading in readings}
    return found.pop() if len(found) == 1 else ""


def _flag_of(number: str, sign: str, row: Lab) -> str:
    try:
        value = float(number)
    except ValueError:
        return ""
    # "<5" may be low and cannot be known to be high.
    if row.low is not None and value < row.low and sign != ">":
        return "L"
    if row.high is not None and value > row.high and sign != "<":
        return "H"
    return ""
