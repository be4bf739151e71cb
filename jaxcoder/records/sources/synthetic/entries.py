"""What the catalogue holds: conditions with all that is theirs, tests, specialties, phrases."""

import dataclasses

KINDS = {"full": 0.4, "abbreviation": 0.25, "finding": 0.2, "lay": 0.15}
"""Ways in which a note mentions a condition, and how often it uses each."""

CONTEXTS = ("negated", "family", "past", "suspected")
"""Contexts in which a mention must not be coded."""

NEWBORN_DAYS = 28
"""A condition whose `age_high` is 0 is one of the newborn, up to this age."""


@dataclasses.dataclass(frozen=True, slots=True)
class Specialty:
    """A specialty: the share of its contacts that are admissions, and their mean length in days."""

    name: str
    admitted: float
    days: float


@dataclasses.dataclass(frozen=True, slots=True)
class Wordings:
    """Texts and their cumulative weights."""

    texts: tuple[str, ...]
    cumulative: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.texts)


@dataclasses.dataclass(frozen=True, slots=True)
class CodeEntry:
    """A code of a condition.

    Attributes:
      code: normalised.
      title: what the code stands for.
      share: weight among the condition's codes.
      role: `primary` or `secondary` when it is for contacts in which the condition is that; else
        empty.
      wordings: how notes mention it: texts that tell it from the condition's other codes.
    """

    code: str
    title: str
    share: float
    role: str
    wordings: Wordings


@dataclasses.dataclass(frozen=True, slots=True)
class Drug:
    """A medication and the share of contacts in which it is given.

    It is `specific` when no other condition has it, and the background has not.
    """

    atc: str
    name: str
    dose: str
    route: str
    share: float
    specific: bool


@dataclasses.dataclass(frozen=True, slots=True)
class LabTest:
    """A laboratory test for one sex (`F`, `M` or empty for both) and age range in completed years.

    Attributes:
      key: its name in the tables.
      loinc: its LOINC code.
      low: lower bound of the reference range; None when the result is a word.
      normal: the normal result where it is a word.
      decimals: digits after the point.
      panel: share of contacts in which it is measured without a reason in a condition, in [0, 1].
    """

    key: str
    loinc: str
    name: str
    unit: str
    sex: str
    low: float | None
    high: float | None
    normal: str
    decimals: int
    panel: float
    age_low: int
    age_high: int


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """What a condition does to a laboratory test, in a share of the contacts.

    Attributes:
      lab: key of the test.
      low: results lie in [low, high], outside of the reference range; None when the result is a
        word.
      value: the result where it is a word.
      flag: `L`, `H` or `A`.
      share: of contacts with the condition in which it shows, in (0, 1].
      specific: no other condition moves this test in this direction.
    """

    lab: str
    low: float | None
    high: float | None
    value: str
    flag: str
    share: float
    specific: bool


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ConditionEntry:
    """A condition; there is one object of each, so that identity is equality.

    Attributes:
      number: its place in the catalogue.
      key: its name in the tables.
      chronic: carries over to the patient's later contacts.
      primary: weight as the reason for a contact.
      secondary: weight as a further condition.
      coded: probability of its being coded when it is a secondary condition, in (0, 1].
      sex: `F`, `M` or empty for both.
      age_low: completed years; as age_peak and age_high.
      specialties: those that see it as the main condition.
      contexts: in which it may be mentioned without being present.
      shows_in: `medications` or `labs` when it may show there alone, in no note; else empty.
      family: of its conditions a patient has at most one at a time; else empty.
      codes: at least one.
      drugs: its medications.
      signatures: what it does to laboratory tests.
      absent: how notes mention it where it is not present.
      odds: from a condition's number to how many times likelier the two make each other (both
        ways).
    """

    number: int
    key: str
    chronic: bool
    primary: float
    secondary: float
    coded: float
    sex: str
    age_low: int
    age_peak: int
    age_high: int
    specialties: tuple[Specialty, ...]
    contexts: tuple[str, ...]
    shows_in: str
    family: str
    codes: tuple[CodeEntry, ...]
    drugs: tuple[Drug, ...]
    signatures: tuple[Signature, ...]
    absent: Wordings
    odds: dict[int, float]

    def suits(self, sex: str, age: float) -> bool:
        """Whether a patient of this sex (`F` or `M`) and age in years can have it."""
        if self.sex and self.sex != sex:
            return False
        if not self.age_low <= int(age) <= self.age_high:
            return False
        return self.age_high > 0 or age * 365.25 <= NEWBORN_DAYS


@dataclasses.dataclass(frozen=True, slots=True)
class Phrase:
    """A sentence of a note.

    Attributes:
      before: text before the mention.
      after: text after it; None when the sentence has no mention.
      places: names of the other places to be filled, such as `year`.
      words: number of words.
    """

    before: str
    after: str | None
    places: tuple[str, ...]
    words: int
