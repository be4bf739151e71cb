"""The five source relations, and the contact record that nests them."""

import dataclasses

ROLES = ("unknown", "primary", "secondary")
"""Roles of a code in a contact; a role's index here is its number in a token record."""

SEXES = {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M", "U": "U", "UNKNOWN": "U", "": "U"}
"""From how sources write it, in upper case, to how contacts have it."""

SPLITS = ("train", "validation", "test")
SCORED = SPLITS[1:]
"""Splits that models are scored on: nothing is learned from them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """A clinical note. `time` is ISO 8601 or empty."""

    text: str
    kind: str = ""
    time: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Medication:
    """A medication given or prescribed. `code` is of ATC, NDC or another system."""

    code: str = ""
    name: str = ""
    dose: str = ""
    route: str = ""
    time: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Lab:
    """A laboratory result. `value` is text; `flag` is `L`, `H`, `A` or empty."""

    code: str = ""
    name: str = ""
    value: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    flag: str = ""
    time: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """A normalised code of a contact. `rank` counts from 1; 0 when the source has no order."""

    code: str
    system: str = ""
    role: str = "unknown"
    rank: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Evidence:
    """A character span [start, end) of a note that supports a code; `note` counts in time order.

    A mention of several pieces has one row a piece, all with the same `mention` number.
    """

    code: str
    note: int
    start: int
    end: int
    mention: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """What only a synthetic cohort knows: a condition that is present, and whether it was coded.

    `probability` is that of its being coded, in (0, 1].
    """

    code: str
    coded: bool
    probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Contact:
    """One hospital encounter of one patient: the unit that is coded.

    Everything but the ids may be empty. `start` and `end` are ISO 8601; `age` is in years, None
    when unknown; `sex` is `F`, `M` or `U`; `kind` is in the source's words, such as `inpatient`.
    Notes, medications and labs stand in time order.
    """

    contact_id: str
    patient_id: str
    start: str = ""
    end: str = ""
    specialty: str = ""
    age: float | None = None
    sex: str = "U"
    kind: str = ""
    notes: tuple[Note, ...] = ()
    medications: tuple[Medication, ...] = ()
    labs: tuple[Lab, ...] = ()
    codes: tuple[Code, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    conditions: tuple[Condition, ...] = ()


ROWS: dict[str, type] = {
    "notes": Note,
    "medications": Medication,
    "labs": Lab,
    "codes": Code,
    "evidence": Evidence,
    "conditions": Condition,
}
"""From what nests in a contact to the dataclass of a row."""
