"""The medications and laboratory results of a contact."""

import datetime

from jaxcoder.records.schema import Lab, Medication
from jaxcoder.records.sources.synthetic.catalogue import Catalogue
from jaxcoder.records.sources.synthetic.dice import Dice
from jaxcoder.records.sources.synthetic.entries import Drug, LabTest, Signature
from jaxcoder.records.sources.synthetic.patient import Visit


class Results:
    """Draws medications and results: a condition that no note mentions shows in one of them."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Prepares the draws."""
        self._catalogue = catalogue
        self._panels: dict[tuple[str, int], dict[str, LabTest]] = {}

    def medications(self, dice: Dice, visit: Visit) -> tuple[Medication, ...]:
        """Medications in time order; each ATC code once."""
        given: dict[str, Drug] = {}
        for presence in visit.present:
            drugs = presence.condition.drugs
            for drug in drugs:
                if dice.random() < drug.share:
                    given.setdefault(drug.atc, drug)
            if presence.shows_in == "medications":
                own = [drug for drug in drugs if drug.specific]
                if not any(drug.atc in given for drug in own):
                    drug = dice.pick(own)
                    given[drug.atc] = drug
        for drug in self._catalogue.background:
            if dice.random() < drug.share:
                given.setdefault(drug.atc, drug)
        order = list(given.values())
        dice.shuffle(order)
        time = stamp(visit.start + datetime.timedelta(minutes=20))
        return tuple(Medication(drug.atc, drug.name, drug.dose, drug.route, time) for drug in order)

    def labs(self, dice: Dice, visit: Visit) -> tuple[Lab, ...]:
        """Laboratory results, all of one time; each test once.

        A test that two conditions move takes the first; those that show nowhere else come first. If
        another of them has taken the test before, the condition is shown in the notes instead:
        `shows_in` is set.
        """
        tests = self._tests(visit.sex, visit.age)
        shown: dict[str, Signature] = {}
        for presence in visit.present:
            if presence.shows_in == "labs":
                own = [one for one in presence.condition.signatures if one.specific]
                signature = dice.pick(own)
                if shown.setdefault(signature.lab, signature) is not signature:
                    presence.shows_in = "notes"
        for presence in visit.present:
            for signature in presence.condition.signatures:
                if dice.random() < signature.share:
                    shown.setdefault(signature.lab, signature)
        time = stamp(visit.start + datetime.timedelta(minutes=10))
        results = []
        for key, test in tests.items():
            signature_or_none = shown.get(key)
            if signature_or_none is None:
                if dice.random() >= test.panel:
                    continue
                low, high, value, flag = test.low, test.high, test.normal, ""
            else:
                one = signature_or_none
                low, high, value, flag = one.low, one.high, one.value, one.flag
            if not value and low is not None and high is not None:
                value = f"{dice.between(low, high):.{test.decimals}f}"
            results.append(
                Lab(test.loinc, test.name, value, test.unit, test.low, test.high, flag, time)
            )
        return tuple(results)

    def _tests(self, sex: str, age: float) -> dict[str, LabTest]:
        """The test of each key that suits a sex and an age."""
        key = (sex, int(age))
        if key not in self._panels:
            self._panels[key] = {
                name: test
                for name, tests in self._catalogue.labs.items()
                for test in tests
                if test.sex in ("", sex) and test.age_low <= int(age) <= test.age_high
            }
        return self._panels[key]


def stamp(time: datetime.datetime) -> str:
    """ISO 8601, to the second."""
    return time.isoformat(timespec="seconds")
