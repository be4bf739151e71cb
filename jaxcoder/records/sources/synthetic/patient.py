"""A patient's course: the contacts, and which conditions are present at each."""

import dataclasses
import datetime
import itertools
import math
from collections.abc import Callable, Iterable, Iterator

from jaxcoder.records.sources.synthetic.catalogue import Catalogue
from jaxcoder.records.sources.synthetic.dice import Dice
from jaxcoder.records.sources.synthetic.entries import (
    NEWBORN_DAYS,
    CodeEntry,
    ConditionEntry,
    Specialty,
)

_EPOCH = datetime.datetime(2015, 1, 1)
_YEARS = 8.0  # first contacts fall in so many years after the epoch
_GAP_DAYS = 240.0  # mean time from one contact to the next
_CHRONIC_REASON = (
    0.35  # share of later contacts whose reason is a chronic condition that the patient had before
)
_NEW_CHRONIC = 0.12  # chance of one more chronic condition at a later contact, times the mean below
_CHRONIC_BY_AGE = (
    (1, 0.05),
    (18, 0.2),
    (45, 0.8),
    (65, 1.8),
    (200, 2.6),
)  # up to an age: mean count at first contact
_ACUTE_ADMITTED, _ACUTE_SEEN = (
    0.8,
    0.2,
)  # mean number of further acute conditions: admissions, outpatient visits
_MOST_CONTACTS = 40


@dataclasses.dataclass(slots=True)
class Presence:
    """A condition that is present at a contact.

    Attributes:
      condition: which.
      code: its code at this contact.
      primary: it is the main condition.
      shows_in: `notes`, or where alone it shows: `medications` or `labs`.
      coded: it is among the contact's codes.
    """

    condition: ConditionEntry
    code: CodeEntry
    primary: bool
    shows_in: str = "notes"
    coded: bool = True

    @property
    def probability(self) -> float:
        """That of its being coded."""
        return 1.0 if self.primary else self.condition.coded


@dataclasses.dataclass(slots=True)
class Visit:
    """A contact before anything is written about it; the first of `present` is primary."""

    start: datetime.datetime
    end: datetime.datetime
    age: float
    sex: str
    specialty: Specialty
    admitted: bool
    present: list[Presence]
    families: frozenset[str]


class _Pool:
    """Conditions that suit a sex and an age, with their cumulative weights."""

    def __init__(self, weighted: Iterable[tuple[ConditionEntry, float]]) -> None:
        kept = [(condition, weight) for condition, weight in weighted if weight > 0]
        self.conditions = [condition for condition, _ in kept]
        self.cumulative = list(itertools.accumulate(weight for _, weight in kept))
        self.total = self.cumulative[-1] if kept else 0.0


class Courses:
    """Draws the courses of patients; remembers nothing of them."""

    def __init__(self, catalogue: Catalogue, contacts_per_patient: float, hidden: float) -> None:
        """Prepares the draws.

        Args:
          catalogue: the conditions.
          contacts_per_patient: their mean number, at least 1.
          hidden: chance that a secondary condition shows in no note, where it may, in [0, 1].
        """
        self._catalogue, self._hidden = catalogue, hidden
        self._further = contacts_per_patient - 1
        conditions = catalogue.conditions
        self._reasons = _Pool((condition, condition.primary) for condition in conditions)
        self._pools: dict[tuple[str, str, int], _Pool] = {}

    def visits(self, dice: Dice) -> Iterator[Visit]:
        """The contacts of a patient, in time order."""
        # The first reason decides the patient's age and sex, so that weights are prevalences
        # whatever the ages.
        first = dice.weighted(self._reasons.conditions, self._reasons.cumulative)
        sex = first.sex or ("F" if dice.random() < 0.52 else "M")
        if first.age_high == 0:
            age = dice.between(0, 7) / 365.25
        else:
            age = dice.triangular(first.age_low, first.age_peak, first.age_high + 0.99)
        start = _EPOCH + datetime.timedelta(
            days=dice.below(int(_YEARS * 365)), minutes=5 * dice.below(288)
        )
        chronic = [first] if first.chronic else []
        count = dice.count(_chronic_mean(age))
        self._add(dice, chronic, count, "chronic", sex, age, around=[first])
        codes: dict[tuple[int, str], CodeEntry] = {}
        contacts = 1
        if self._further > 0:
            # The whole part of an exponential variable is geometric; this mean makes its mean
            # `_further`.
            contacts += int(dice.exponential(1 / math.log1p(1 / self._further)))
        reason: ConditionEntry | None = first
        for number in range(min(contacts, _MOST_CONTACTS)):
            if number:
                days = 1 + dice.exponential(_GAP_DAYS)
                age += days / 365.25
                start += datetime.timedelta(days=int(days), minutes=5 * dice.below(288))
                chronic = [condition for condition in chronic if condition.suits(sex, age)]
                if dice.random() < _NEW_CHRONIC * _chronic_mean(age):
                    self._add(dice, chronic, 1, "chronic", sex, age)
                reason = self._reason(dice, chronic, sex, age)
            if reason is None:
                return
            if reason.chronic and reason not in chronic:
                chronic.append(reason)
            visit = self._visit(dice, reason, chronic, codes, sex, age, start)
            yield visit
            # No contact starts before the last one ended.
            age += (visit.end - start).total_seconds() / 86400 / 365.25
            start = visit.end

    def _visit(
        self,
        dice: Dice,
        reason: ConditionEntry,
        chronic: list[ConditionEntry],
        codes: dict[tuple[int, str], CodeEntry],
        sex: str,
        age: float,
        start: datetime.datetime,
    ) -> Visit:
        specialty = dice.pick(reason.specialties)
        admitted = dice.random() < specialty.admitted
        family = reason.family
        present = [reason]
        present += [
            one for one in chronic if one is not reason and not (family and one.family == family)
        ]
        self._add(
            dice,
            present,
            dice.count(_ACUTE_ADMITTED if admitted else _ACUTE_SEEN),
            "acute",
            sex,
            age,
        )
        minutes = (
            int(dice.exponential(specialty.days) * 1440) + 300 if admitted else 30 + dice.below(60)
        )
        presences = []
        for condition in present:
            presence = Presence(
                condition,
                self._code(dice, condition, condition is reason, codes),
                condition is reason,
            )
            if not presence.primary:
                presence.coded = dice.random() < condition.coded
                if condition.shows_in and dice.random() < self._hidden:
                    presence.shows_in = condition.shows_in
            presences.append(presence)
        return Visit(
            start=start,
            end=start + datetime.timedelta(minutes=min(minutes, 120 * 1440)),
            age=math.floor(age * 100) / 100,  # rounding up could make a year too many
            sex=sex,
            specialty=specialty,
            admitted=admitted,
            present=presences,
            families=frozenset(condition.family for condition in present if condition.family),
        )

    def _reason(
        self, dice: Dice, chronic: list[ConditionEntry], sex: str, age: float
    ) -> ConditionEntry | None:
        """The main condition of a later contact; None where nothing suits the patient."""
        if dice.random() < _CHRONIC_REASON:
            known = [condition for condition in chronic if condition.primary > 0]
            if known:
                return dice.weighted(
                    known, list(itertools.accumulate(condition.primary for condition in known))
                )
        return self._draw(dice, chronic, "reason", sex, age)

    def _add(
        self,
        dice: Dice,
        present: list[ConditionEntry],
        count: int,
        kind: str,
        sex: str,
        age: float,
        around: list[ConditionEntry] | None = None,
    ) -> None:
        """Adds up to `count` conditions that go with those that are present."""
        for _ in range(count):
            others = present + [one for one in around or () if one not in present]
            drawn = self._draw(dice, others, kind, sex, age)
            if drawn is None or drawn in others:
                continue
            if not (drawn.family and any(one.family == drawn.family for one in others)):
                present.append(drawn)

    def _draw(
        self, dice: Dice, present: list[ConditionEntry], kind: str, sex: str, age: float
    ) -> ConditionEntry | None:
        """A condition by its weight times the odds that the present ones give it."""
        pool = self._pool(kind, sex, age)
        conditions = self._catalogue.conditions
        raised: list[tuple[ConditionEntry, float]] = []
        extra = 0.0
        for one in present:
            for number, factor in one.odds.items():
                other = conditions[number]
                weight = _WEIGHTS[kind](other) * (factor - 1)
                if weight > 0 and other.suits(sex, age) and other not in present:
                    extra += weight
                    raised.append((other, weight))
        place = dice.random() * (pool.total + extra)
        for other, weight in raised:
            place -= weight
            if place < 0:
                return other
        return dice.weighted(pool.conditions, pool.cumulative) if pool.total else None

    def _pool(self, kind: str, sex: str, age: float) -> _Pool:
        years = -1 if age * 365.25 <= NEWBORN_DAYS else int(age)
        key = (kind, sex, years)
        if key not in self._pools:
            self._pools[key] = _Pool(
                (condition, _WEIGHTS[kind](condition) * _likelihood(condition, max(years, 0)))
                for condition in self._catalogue.conditions
                if condition.suits(sex, age)
            )
        return self._pools[key]

    def _code(
        self,
        dice: Dice,
        condition: ConditionEntry,
        primary: bool,
        codes: dict[tuple[int, str], CodeEntry],
    ) -> CodeEntry:
        """The condition's code; a chronic condition keeps it while its role stays."""
        role = "primary" if primary else "secondary"
        key = (condition.number, role if any(code.role for code in condition.codes) else "")
        if condition.chronic and key in codes:
            return codes[key]
        eligible = [code for code in condition.codes if code.role in ("", role)]
        if len(eligible) == 1:
            return eligible[0]
        code = dice.weighted(eligible, list(itertools.accumulate(code.share for code in eligible)))
        if condition.chronic:
            codes[key] = code
        return code


_WEIGHTS: dict[str, Callable[[ConditionEntry], float]] = {
    "reason": lambda condition: condition.primary,
    "chronic": lambda condition: condition.secondary if condition.chronic else 0.0,
    "acute": lambda condition: 0.0 if condition.chronic else condition.secondary,
}


def _chronic_mean(age: float) -> float:
    """Mean number of chronic conditions at the first contact."""
    return next(mean for limit, mean in _CHRONIC_BY_AGE if age < limit)


def _likelihood(condition: ConditionEntry, years: int) -> float:
    """Triangular over the ages, 1 at the peak and 0.1 at the ends."""
    low, peak, high = condition.age_low, condition.age_peak, condition.age_high
    if years < peak:
        return 0.1 + 0.9 * (years - low) / (peak - low)
    return 0.1 + 0.9 * (high - years) / (high - peak) if years > peak else 1.0
