"""The tables of conditions, read and checked."""

import collections
import hashlib
import importlib.resources
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records import codes as icd
from jaxcoder.records.sources.synthetic.entries import (
    CONTEXTS,
    KINDS,
    CodeEntry,
    ConditionEntry,
    Drug,
    LabTest,
    Phrase,
    Signature,
    Specialty,
    Wordings,
)
from jaxcoder.records.sources.synthetic.sheet import Row, read

SYSTEM = "icd10cm"
"""Code system of the tables' codes."""

COLUMNS: dict[str, str] = {
    "specialties": "specialty admitted days",
    "conditions": (
        "condition course primary secondary coded sex age_low age_peak age_high specialties contexts shows_in family"
    ),
    "codes": "condition code title share role",
    "mentions": "condition code kind text",
    "medications": "condition atc name dose route share",
    "labs": "lab loinc name unit sex low high normal decimals panel age_low age_high",
    "signatures": "condition lab low high value share",
    "companions": "condition raised_by factor",
    "phrases": "slot note specialty text",
}
"""The tables, one CSV file each, and their columns."""

NOTES = ("admission", "progress", "discharge", "outpatient")
_LISTS = ("known", "found", "again")  # slots whose sentences hold one mention or several
_SLOTS = ("reason", *_LISTS, "conclusion", *CONTEXTS, "filler")
_PLACES = {"age", "person", "year", "weeks", "bp", "pulse", "temp", "sat"}

_ATC = re.compile(r"[A-Z][0-9]{2}[A-Z]{1,2}([0-9]{2})?")
_LOINC = re.compile(r"([0-9]{1,7})-([0-9])")


class Catalogue:
    """The tables.

    Attributes:
      conditions: in the order of the table.
      specialties: by name.
      labs: tests by key; several rows a key where sexes or ages differ.
      background: medications that mean nothing, by share.
      phrases: sentences by slot, note kind (empty where the slot has none) and specialty (empty: any).
      fingerprint: 16 hexadecimal digits over the tables' contents.
    """

    def __init__(self, folder: epath.Path | None = None) -> None:
        """Reads the tables.

        Args:
          folder: with a CSV file for each of `COLUMNS`; None for the packaged ones.

        Raises:
          UserError: a missing file or column, or a cell that is not as it should be: file, row and column are named.
        """
        packaged = importlib.resources.files(__package__) / "data"
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
            self._rows[table] = list(
                read(path.name if folder is None else str(path), text, columns.split())
            )
        self.fingerprint = digest.hexdigest()
        self.specialties = {
            row.text("specialty"): Specialty(
                row.text("specialty"), row.number("admitted", 0, 1), row.number("days", 0.1, 365)
            )
            for row in self._rows["specialties"]
        }
        self.labs = self._read_labs()
        self.phrases = self._read_phrases()
        self.background, drugs = self._read_drugs()
        self.conditions = self._read_conditions(drugs)
        self._check_showing()
        del self._rows

    def _grouped(self, table: str, known: Mapping[str, Any]) -> dict[str, list[Row]]:
        """A companion table's rows by condition."""
        groups: dict[str, list[Row]] = collections.defaultdict(list)
        for row in self._rows[table]:
            row.known("condition", known, "condition")
            groups[row.text("condition")].append(row)
        return groups

    def _read_labs(self) -> dict[str, list[LabTest]]:
        labs: dict[str, list[LabTest]] = collections.defaultdict(list)
        for row in self._rows["labs"]:
            loinc = row.matching("loinc", _LOINC, "a LOINC code such as 2823-3")
            if not _loinc_checks(loinc):
                row.fail("loinc", "a LOINC code whose last digit is its check digit")
            normal = row.text("normal", empty=True)
            low, high = (
                (None, None) if normal else (row.number("low", 0, 1e9), row.number("high", 0, 1e9))
            )
            if low is not None and high is not None and low >= high:
                row.fail("high", "more than low")
            labs[row.text("lab")].append(
                LabTest(
                    row.text("lab"),
                    loinc,
                    row.text("name"),
                    row.text("unit", empty=True),
                    row.choice("sex", ("", "F", "M")),
                    low,
                    high,
                    normal,
                    int(row.number("decimals", 0, 4)),
                    row.number("panel", 0, 1),
                    int(row.number("age_low", 0, 120)),
                    int(row.number("age_high", 0, 120)),
                )
            )
        return dict(labs)

    def _read_phrases(self) -> dict[tuple[str, str, str], list[Phrase]]:
        phrases: dict[tuple[str, str, str], list[Phrase]] = collections.defaultdict(list)
        for row in self._rows["phrases"]:
            slot, text = row.choice("slot", _SLOTS), row.text("text")
            places = re.findall(r"\{(\w+)\}", text)
            mention = "list" if slot in _LISTS else "mention"
            if (
                places.count(mention) != (slot != "filler")
                or not set(places) - {mention} <= _PLACES
            ):
                wanted = "no mention" if slot == "filler" else f"{{{mention}}} once"
                row.fail("text", f"{wanted}, and no places but {{{'}, {'.join(sorted(_PLACES))}}}")
            if slot == "filler":
                note = row.choice("note", NOTES)
            else:
                note = row.choice("note", ("",))
            specialty = row.text("specialty", empty=True)
            if specialty:
                row.known("specialty", self.specialties, "specialty")
            before, found, after = text.partition(f"{{{mention}}}")
            rest = tuple(dict.fromkeys(place for place in places if place != mention))
            phrases[slot, note, specialty].append(
                Phrase(before, after if found else None, rest, len(text.split()))
            )
        for slot in _SLOTS:
            for note in NOTES if slot == "filler" else ("",):
                if (slot, note, "") not in phrases:
                    raise UserError(
                        f"{self._rows['phrases'][0].file}: no row of slot {slot!r}{f' and note {note!r}' * bool(note)} without "
                        "a specialty; add one"
                    )
        return dict(phrases)

    def _read_drugs(self) -> tuple[list[Drug], dict[str, list[Drug]]]:
        """Background medications, and those of each condition."""
        users: dict[str, set[str]] = collections.defaultdict(set)
        for row in self._rows["medications"]:
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
                    len(users[atc]) == 1,
                )
            )
        return drugs.pop("", []), drugs

    def _read_conditions(self, drugs: Mapping[str, list[Drug]]) -> tuple[ConditionEntry, ...]:
        known: dict[str, Row] = {}
        for row in self._rows["conditions"]:
            if row.text("condition") in known:
                row.fail("condition", "each condition once")
            known[row.text("condition")] = row
        numbers = {key: number for number, key in enumerate(known)}
        for row in self._rows["medications"]:
            if row.text("condition", empty=True):
                row.known("condition", known, "condition")
        codes, mentions = self._grouped("codes", known), self._grouped("mentions", known)
        signatures = self._read_signatures(known)
        odds: dict[str, dict[int, float]] = collections.defaultdict(dict)
        for key, group in self._grouped("companions", known).items():
            for row in group:
                row.known("raised_by", known, "condition")
                other, factor = row.text("raised_by"), row.number("factor", 1, 1000)
                odds[key][numbers[other]] = odds[other][numbers[key]] = factor
        seen: dict[str, str] = {}
        conditions = []
        for key, row in known.items():
            ages = [
                int(row.number(column, 0, 120)) for column in ("age_low", "age_peak", "age_high")
            ]
            if ages != sorted(ages):
                row.fail("age_peak", "age_low, age_peak and age_high in rising order")
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
                sex=row.choice("sex", ("", "F", "M")),
                age_low=ages[0],
                age_peak=ages[1],
                age_high=ages[2],
                specialties=tuple(self.specialties[name] for name in specialties),
                contexts=row.several("contexts", CONTEXTS),
                shows_in=row.choice("shows_in", ("", "medications", "labs")),
                family=row.text("family", empty=True),
                codes=self._read_codes(row, codes[key], mentions[key], seen),
                drugs=tuple(drugs.get(key, ())),
                signatures=tuple(signatures.get(key, ())),
                absent=_absent(mentions[key]),
                odds=odds[key],
            )
            for role in ("primary", "secondary"):
                if getattr(entry, role) and not any(
                    code.role in ("", role) for code in entry.codes
                ):
                    row.fail(
                        role, f"0, as no code of the condition in codes.csv has role {role} or none"
                    )
            conditions.append(entry)
        return tuple(conditions)

    def _read_codes(
        self, condition: Row, rows: Sequence[Row], mentions: Sequence[Row], seen: dict[str, str]
    ) -> tuple[CodeEntry, ...]:
        """A condition's codes with their wordings; `seen` holds every code and mention so far, and whose it is."""
        if not rows:
            condition.fail("condition", "at least one row in codes.csv")
        own = {row.text("code") for row in rows}
        texts: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
        key = condition.text("condition")
        for row in mentions:
            code, kind, text = (
                row.text("code", empty=True),
                row.choice("kind", (*KINDS, "qualifier")),
                row.text("text"),
            )
            if code and code not in own:
                row.fail("code", "a code of the condition in codes.csv, or nothing")
            if seen.setdefault(f"{code if kind == 'qualifier' else ''} {text.lower()}", key) != key:
                row.fail("text", f"a text that is not a mention of {seen[f' {text.lower()}']}, too")
            texts[code, kind].append(text)
        for kind in KINDS:
            if not any(texts.get((code, kind)) for code in ("", *own)):
                condition.fail("condition", f"a mention of kind {kind!r} in mentions.csv")
        entries = []
        for row in rows:
            code = row.text("code")
            try:
                normal = icd.normalise(code, SYSTEM)
            except ValueError:
                normal = ""
            if normal != code:
                row.fail("code", "a normalised ICD-10-CM code such as I10 or E11.65")
            if (
                seen.setdefault(code, key) != key
                or sum(other.text("code") == code for other in rows) > 1
            ):
                row.fail("code", "each code once")
            wordings = _wordings(texts, code, several=len(rows) > 1)
            if not wordings:
                row.fail(
                    "code",
                    "mentions of its own, or a qualifier to tell it from the condition's other codes",
                )
            entries.append(
                CodeEntry(
                    code,
                    row.text("title"),
                    row.number("share", 0.01, 1000),
                    row.choice("role", ("", "primary", "secondary")),
                    wordings,
                )
            )
        return tuple(entries)

    def _read_signatures(self, conditions: Mapping[str, Row]) -> dict[str, list[Signature]]:
        signatures: dict[str, list[Signature]] = collections.defaultdict(list)
        users: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
        for row in self._rows["signatures"]:
            row.known("condition", conditions, "condition")
            condition = conditions[row.text("condition")]
            tests = row.known("lab", self.labs, "lab")
            sexes = condition.text("sex", empty=True) or "FM"
            tests = [test for test in tests if not test.sex or test.sex in sexes]
            ages = (
                int(condition.number("age_low", 0, 120)),
                int(condition.number("age_high", 0, 120)),
            )
            for sex in sexes:
                if not any(
                    test.sex in ("", sex) and test.age_low <= ages[0] and ages[1] <= test.age_high
                    for test in tests
                ):
                    row.fail(
                        "lab",
                        f"a test for the sexes and ages that {condition.text('condition')} has",
                    )
            share, value = row.number("share", 0.01, 1), row.text("value", empty=True)
            low = high = None
            if value:
                if any(test.normal in ("", value) for test in tests):
                    row.fail(
                        "value",
                        "another word than the normal result, and no word for a test with a reference range",
                    )
                flag = "A"
            else:
                if any(test.normal for test in tests):
                    row.fail("value", "a word, as the test has no reference range")
                low, high = row.number("low", 0, 1e9), row.number("high", 0, 1e9)
                if low > high:
                    row.fail("high", "not less than low")
                if all(test.high is not None and low > test.high for test in tests):
                    flag = "H"
                elif all(test.low is not None and high < test.low for test in tests):
                    flag = "L"
                else:
                    row.fail("low", "a range above, or one below, the reference range of labs.csv")
            users[tests[0].key, flag].add(row.text("condition"))
            signatures[row.text("condition")].append(
                Signature(tests[0].key, low, high, value, flag, share, True)
            )
        for key, group in signatures.items():
            signatures[key] = [
                Signature(
                    one.lab,
                    one.low,
                    one.high,
                    one.value,
                    one.flag,
                    one.share,
                    len(users[one.lab, one.flag]) == 1,
                )
                for one in group
            ]
        return signatures

    def _check_showing(self) -> None:
        """A condition that may show in medications or labs alone needs something there that is its own."""
        for entry, row in zip(self.conditions, self._rows["conditions"], strict=True):
            signs: Sequence[Drug | Signature] = (
                entry.drugs if entry.shows_in == "medications" else entry.signatures
            )
            if entry.shows_in and (
                len(entry.codes) > 1 or not any(sign.specific for sign in signs)
            ):
                row.fail(
                    "shows_in",
                    f"nothing, or one code and a row of {entry.shows_in} that no other condition has",
                )


def _wordings(texts: Mapping[tuple[str, str], list[str]], code: str, several: bool) -> Wordings:
    """How notes mention a code: its own texts, and the condition's texts followed by its qualifiers.

    A condition of one code needs no qualifier. Kinds are weighted by `KINDS`, texts of a kind equally.
    """
    qualifiers = texts.get((code, "qualifier"), [])
    found: list[tuple[str, float]] = []
    for kind, weight in KINDS.items():
        general = texts.get(("", kind), [])
        if several:
            general = [
                f"{text} {qualifier}" for text, qualifier in itertools.product(general, qualifiers)
            ]
        options = [*general, *texts.get((code, kind), [])]
        found += [(text, weight / len(options)) for text in options]
    return Wordings(
        tuple(text for text, _ in found), tuple(itertools.accumulate(weight for _, weight in found))
    )


def _absent(mentions: Sequence[Row]) -> Wordings:
    """How notes mention a condition that is not there: texts of all codes, without qualifiers."""
    rows = [row for row in mentions if row.text("kind") in KINDS]
    counts = collections.Counter(row.text("kind") for row in rows)
    weights = [KINDS[row.text("kind")] / counts[row.text("kind")] for row in rows]
    return Wordings(tuple(row.text("text") for row in rows), tuple(itertools.accumulate(weights)))


def _loinc_checks(loinc: str) -> bool:
    """Whether the last digit is the check digit: Luhn's, modulo 10 (LOINC Users' Guide, appendix on check digits)."""
    digits, check = loinc.split("-")
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return (10 - total % 10) % 10 == int(check)
