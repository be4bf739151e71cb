"""The synthetic cohort as a source of contacts."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from jaxcoder import settings
from jaxcoder.records.findings import Findings
from jaxcoder.records.runner import Runner
from jaxcoder.records.schema import SPLITS, Code, Condition, Contact
from jaxcoder.records.sources import Part, Source, parse_options
from jaxcoder.records.sources.synthetic.catalogue import Catalogue
from jaxcoder.records.sources.synthetic.dice import Dice
from jaxcoder.records.sources.synthetic.patient import Courses, Visit
from jaxcoder.records.sources.synthetic.results import Results, stamp
from jaxcoder.records.sources.synthetic.wording import SYSTEM
from jaxcoder.records.sources.synthetic.writer import Writer
from jaxcoder.records.split import parse_shares, split_of

_PATIENTS = 5000
"""Patients of a part: some 13,000 contacts."""
_GENERATOR = 2
"""Rises when the same options and tables give other contacts than before."""
_EMERGENCY = 0.5
"""Share of the outpatient visits for an acute condition that are to the emergency room."""


@dataclasses.dataclass(frozen=True)
class SyntheticOptions:
    """Options of the source.

    Attributes:
      patients: their number, over all splits.
      first: number of the first patient. A patient depends on the seed and the own number alone, so
        that parts of a cohort can be made apart: `first=0,patients=500` and
        `first=500,patients=500` are `patients=1000`.
      seed: another seed gives another cohort, and another split.
      shares: of patients in train, validation and test.
      contacts_per_patient: their mean number, at least 1.
      note_words: mean number of words in all notes of a contact.
      distractors: mean number of mentions a contact of conditions that are negated, of the family,
        past or suspected.
      hidden: share of the secondary conditions with signs of their own that show in no note, in
        medications or laboratory results alone.
      name: of the data set; letters, digits and `_`.
    """

    patients: int = 3000
    first: int = 0
    seed: int = 0
    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    contacts_per_patient: float = 2.7
    note_words: int = 170
    distractors: float = 2.5
    hidden: float = 0.35
    name: str = "synthetic"

    def __post_init__(self) -> None:
        for key, low, high in (
            ("patients", 1, 10**9),
            ("first", 0, 10**9),
            ("contacts_per_patient", 1, 30),
            ("note_words", 20, 100_000),
            ("distractors", 0, 20),
            ("hidden", 0, 1),
        ):
            value = getattr(self, key)
            if not low <= value <= high:
                raise ValueError(f"{key} = {value!r}: expected a number from {low} to {high:,}")
        split_of("", self.seed, self.shares)
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII):
            raise ValueError(f"name = {self.name!r}: expected letters, digits and _")


class Synthetic(Source):
    """A cohort whose truth is known: `Contact.conditions` has what is present and what was coded.

    Each split is streamed in the order of contact ids.
    """

    def __init__(self, source_dir: epath.Path | None, options: Mapping[str, Any]) -> None:
        """Reads the tables.

        Args:
          source_dir: folder with tables of conditions; None for the packaged ones.
          options: those of `SyntheticOptions`.

        Raises:
          UserError: a mistake in an option or a table.
        """
        kinds: dict[str, Callable[[str], Any]] = {
            field.name: field.type
            for field in dataclasses.fields(SyntheticOptions)
            if isinstance(field.type, type)
        }
        kinds["shares"] = parse_shares
        self._options = settings.build(SyntheticOptions, parse_options(options, kinds), "synthetic")
        self.catalogue = Catalogue(source_dir)
        self.name = self._options.name
        self._courses = Courses(
            self.catalogue, self._options.contacts_per_patient, self._options.hidden
        )
        self._results = Results(self.catalogue)
        self._writer = Writer(self.catalogue, self._options.note_words, self._options.distractors)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Source, options, the contents of the tables and the generator's version."""
        return {
            "source": "synthetic",
            "options": dataclasses.asdict(self._options),
            "tables": self.catalogue.fingerprint,
            "generator": _GENERATOR,
        }

    @property
    def descriptions(self) -> Mapping[str, str]:
        """The official descriptions of the codes in the tables."""
        return {
            code.code: code.title for entry in self.catalogue.conditions for code in entry.codes
        }

    def parts(self, runner: Runner) -> tuple[Mapping[str, Sequence[Part]], Findings]:
        """Ranges of patients, in the order of their numbers."""
        del runner
        first, count = self._options.first, self._options.patients
        ranges = [
            range(start, min(start + _PATIENTS, first + count))
            for start in range(first, first + count, _PATIENTS)
        ]
        parts = {
            split: [functools.partial(self._range, split, numbers) for numbers in ranges]
            for split in SPLITS
        }
        return parts, Findings()

    def _range(self, split: str, numbers: range, dropped: Findings) -> Iterator[Contact]:
        """The contacts of the patients of a split among these; patients of others cost a hash."""
        del dropped  # nothing ever is
        options = self._options
        for number in numbers:
            if split_of(patient_id(number), options.seed, options.shares) == split:
                yield from self.patient(number)

    def patient(self, number: int) -> Iterator[Contact]:
        """The contacts of one patient, whatever its split."""
        patient = patient_id(number)
        dice = Dice(self._options.seed, number)
        other = Dice(self._options.seed, number, "kind")
        for place, visit in enumerate(self._courses.visits(dice)):
            kind = _kind(other, visit)
            yield self._contact(dice, patient, f"{patient}-{place + 1:02d}", visit, kind)

    def _contact(self, dice: Dice, patient: str, contact: str, visit: Visit, kind: str) -> Contact:
        # Results come first: they may return a condition to the notes.
        labs = self._results.labs(dice, visit)
        medications = self._results.medications(dice, visit)
        notes, evidence = self._writer.write(dice, visit)
        coded = [presence for presence in visit.present if presence.coded]
        return Contact(
            contact_id=contact,
            patient_id=patient,
            start=stamp(visit.start),
            end=stamp(visit.end),
            specialty=visit.specialty.name,
            age=visit.age,
            sex=visit.sex,
            kind=kind,
            notes=notes,
            medications=medications,
            labs=labs,
            codes=tuple(
                Code(
                    presence.code.code, SYSTEM, "primary" if presence.primary else "secondary", rank
                )
                for rank, presence in enumerate(coded, start=1)
            ),
            evidence=evidence,
            conditions=tuple(
                Condition(presence.code.code, presence.coded, presence.probability)
                for presence in visit.present
            ),
        )


def _kind(dice: Dice, visit: Visit) -> str:
    """Whether the patient stays, comes by appointment or comes at once."""
    emergency = dice.random() < _EMERGENCY  # drawn of each, so that no visit shifts another's
    if visit.admitted:
        return "inpatient"
    acute = not visit.present[0].condition.chronic
    return "emergency" if acute and emergency else "outpatient"


def patient_id(number: int) -> str:
    """The id of a patient: ids sort as numbers do."""
    return f"P{number:09d}"
