"""The tables of conditions, read and checked."""

import collections
import hashlib
import importlib.resources
import re
from collections.abc import Mapping, Sequence

from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.sources.synthetic.entries import (
    CONTEXTS,
    ConditionEntry,
    Drug,
    Phrase,
    Signature,
    Specialty,
)
from jaxcoder.records.sources.synthetic.laboratory import read_labs, read_signatures
from jaxcoder.records.sources.synthetic.sheet import Row, read
from jaxcoder.records.sources.synthetic.wording import CodeReader, absent

COLUMNS: dict[str, str] = {
    "specialties": "specialty admitted days",
    "conditions": (
        "condition course primary secondary coded sex age_low age_peak age_high "
        "specialties contexts shows_in family"
    ),
    "codes": "condition code title share role",
    "mentions": "condition code kind text",
    "medications": "condition atc name dose route share",
    "labs": "lab loinc name unit sex low high normal decimals panel age_low age_high",
    "signatures": "condition lab low high value share",
    "companions": "condition raised_by factor",
    "phrases": "slot note specialty text",
}
"""The tables, one CSV file each, and their columns; tables/README.md says what each means."""

NOTES = ("admission", "progress", "discharge", "outpatient")
"""Kinds of notes: the first three of an admission, the last of an outpatient visit."""

_LISTS = ("known", "found", "again")  # slots whose sentences hold one mention or several
_SLOTS = ("reason", *_LISTS, "conclusion", *CONTEXTS, "filler")
_PLACES = ("age", "person", "year", "weeks", "bp", "pulse", "temp", "sat")
_ATC = re.compile(r"[A-Z][0-9]{2}[A-Z]{1,2}([0-9]{2})?")


class Catalogue:
    """The tables.

    Attributes:
      conditions: in the order of the table.
      specialties: by name.
      labs: tests by key; several a key where sexes or ages differ.
      background: medications that mean nothing.
      phrases: sentences by slot, note kind (empty unless the slot is `filler`) and specialty (empty
        for any).
      fingerprint: 16 hexadecimal digits over the tables' contents.
    """

    def __init__(self, folder: epath.Path | None = None) -> None:
        """Reads the tables.

        Args:
          folder: with a CSV file for each of `COLUMNS`; None for the packaged ones.

        Raises:
          UserError: a missing file or column, or a cell that is not as it should be; file, row and
            column are named.
        """
        packaged = importlib.resources.files(__package__) / "tables"
        digest = hashlib.blake2b(digest_size=8)
        self._rows: dict[str, list[Row]] = {}
        for table, columns in COLUMNS.items():
            path = (packaged if folder is None else folder) / f"{table}.csv"
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                raise UserError(
                    f"{path}: not found; copy the packaged tables ({packaged}) and change the copy"
                ) from None
            except UnicodeDecodeError:
                raise UserError(f"{path}: not UTF-8; save it as UTF-8") from None
            digest.update(f"{table}\n{text}\n".encode())
            self._rows[table] = list(read(str(path), text, columns.split()))
            if not self._rows[table]:
                raise UserError(f"{path}: has no rows; expected at least one")
        self.fingerprint = digest.hexdigest()
        self.specialties = {
            row.text("specialty"): Specialty(
                row.text("specialty"), row.number("admitted", 0, 1), row.number("days", 0.1, 365)
            )
            for row in self._rows["specialties"]
        }
        self.labs = read_labs(self._rows["labs"])
        self.phrases = self._read_phrases()
        known: dict[str, Row] = {}
        for row in self._rows["conditions"]:
            if row.text("condition") in known:
                row.fail("condition", "each condition once")
            known[row.text("condition")] = row
            _read_patients(row)
        self.background, drugs = self._read_drugs(known)
        self.conditions = self._read_conditions(known, drugs)

    def _read_phrases(self) -> dict[tuple[str, str, str], list[Phrase]]:
        phrases: dict[tuple[str, str, str], list[Phrase]] = collections.defaultdict(list)
        for row in self._rows["phrases"]:
            slot, text = row.choice("slot", _SLOTS), row.text("text")
            note = row.choice("note", NOTES if slot == "filler" else ("",))
            places = re.findall(r"\{(\w*)\}", text)
            mention = "list" if slot in _LISTS else "mention"
            if places.count(mention) != (slot != "filler"):
                row.fail("text", "no mention" if slot == "filler" else f"{{{mention}}}, once")
            rest = tuple(dict.fromkeys(place for place in places if place != mention))
            if not set(rest) <= set(_PLACES):
                row.fail("text", f"no other places than {{{'}, {'.join(_PLACES)}}}")
            specialty = row.text("specialty", empty=True)
            if specialty:
                row.known("specialty", self.specialties)
            before, found, after = text.partition(f"{{{mention}}}")
            phrases[slot, note, specialty].append(
                Phrase(before, after if found else None, rest, len(text.split()))
            )
        for slot in _SLOTS:
            for note in NOTES if slot == "filler" else ("",):
                if (slot, note, "") not in phrases:
                    raise UserError(
                        f"{self._rows['phrases'][0].file}: slot {slot!r}, note {note!r}: no row "
                        "that is for any specialty; add one"
                    )
        return dict(phrases)

    def _read_drugs(self, known: Mapping[str, Row]) -> tuple[list[Drug], dict[str, list[Drug]]]:
        """Background medications, and those of each condition."""
        users: dict[str, set[str]] = collections.defaultdict(set)
        for row in self._rows["medications"]:
            if row.text("condition", empty=True):
                row.known("condition", known)
            users[row.text("atc")].add(row.text("condition", empty=True))
        drugs: dict[str, list[Drug]] = collections.defaultdict(list)
        for row in self._rows["medications"]:
            atc = row.matching("atc", _ATC, "an ATC code such as C07AB02")
            drugs[row.text("condition", empty=True)].append(
                Drug(
                    atc,
                    row.text("name"),
                    row.text("dose"),
                    row.text("route"),
                    row.number("share", 0.01, 1),
                    specific=len(users[atc]) == 1,
                )
            )
        return drugs.pop("", []), drugs

    def _read_conditions(
        self, known: Mapping[str, Row], drugs: Mapping[str, Sequence[Drug]]
    ) -> tuple[ConditionEntry, ...]:
        numbers = {key: number for number, key in enumerate(known)}
        codes, mentions = self._grouped("codes", known), self._grouped("mentions", known)
        signatures = read_signatures(self._rows["signatures"], self.labs, known)
        odds: dict[str, dict[int, float]] = collections.defaultdict(dict)
        for key, group in self._grouped("companions", known).items():
            for row in group:
                row.known("raised_by", known)
                other, factor = row.text("raised_by"), row.number("factor", 1, 1000)
                if other == key:
                    row.fail("raised_by", "another condition")
                odds[key][numbers[other]] = odds[other][numbers[key]] = factor
        reader = CodeReader()
        conditions = []
        for key, row in known.items():
            sex, ages = _read_patients(row)
            specialties = row.several("specialties", tuple(self.specialties))
            if not specialties:
                row.fail("specialties", "at least one specialty")
            entry = ConditionEntry(
                number=numbers[key],
                key=key,
                chronic=row.choice("course", ("chronic", "acute")) == "chronic",
                primary=row.number("primary", 0, 1000),
                secondary=row.number("secondary", 0, 1000),
                coded=row.number("coded", 0.01, 1),
                sex=sex,
                age_low=ages[0],
                age_peak=ages[1],
                age_high=ages[2],
                specialties=tuple(self.specialties[name] for name in specialties),
                contexts=row.several("contexts", CONTEXTS),
                shows_in=row.choice("shows_in", ("", "medications", "labs")),
                family=row.text("family", empty=True),
                codes=reader.read(row, codes[key], mentions[key]),
                drugs=tuple(drugs.get(key, ())),
                signatures=tuple(signatures.get(key, ())),
                absent=absent(mentions[key]),
                odds=odds[key],
            )
            _check(entry, row)
            conditions.append(entry)
        if not any(entry.primary for entry in conditions):
            raise UserError(
                f"{next(iter(known.values())).file}: column 'primary': all 0; weigh one"
            )
        return tuple(conditions)

    def _grouped(self, table: str, known: Mapping[str, Row]) -> dict[str, list[Row]]:
        """A companion table's rows by condition."""
        groups: dict[str, list[Row]] = collections.defaultdict(list)
        for row in self._rows[table]:
            row.known("condition", known)
            groups[row.text("condition")].append(row)
        return groups


def _read_patients(row: Row) -> tuple[str, list[int]]:
    """Sex, and lowest, commonest and highest age in years, of those who have a condition."""
    ages = [int(row.number(column, 0, 120)) for column in ("age_low", "age_peak", "age_high")]
    if ages != sorted(ages):
        row.fail("age_peak", "a number from age_low to age_high")
    return row.choice("sex", ("", "F", "M")), ages


def _check(entry: ConditionEntry, row: Row) -> None:
    """What hangs together between a condition's rows in several tables."""
    for role in ("primary", "secondary"):
        if getattr(entry, role) and all(code.role not in ("", role) for code in entry.codes):
            row.fail(role, f"0, as none of the condition's codes in codes.csv is for role {role}")
    signs: Sequence[Drug | Signature] = (
        entry.drugs if entry.shows_in == "medications" else entry.signatures
    )
    if entry.shows_in and (len(entry.codes) > 1 or not any(sign.specific for sign in signs)):
        row.fail(
            "shows_in",
            f"nothing, unless the condition has one code and a row of {entry.shows_in} of its own",
        )
