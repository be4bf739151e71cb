"""Laboratory tests and what conditions do to them, read from their tables."""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence

from jaxcoder.records.sources.synthetic.entries import LabTest, Signature
from jaxcoder.records.sources.synthetic.sheet import Row

_LOINC = re.compile(r"([0-9]{1,7})-([0-9])")


def read_labs(rows: Sequence[Row]) -> dict[str, list[LabTest]]:
    """The tests by key; a key has several where sexes or ages differ.

    Raises:
      UserError: a cell that is not as it should be.
    """
    labs: dict[str, list[LabTest]] = collections.defaultdict(list)
    for row in rows:
        loinc = row.matching("loinc", _LOINC, "a LOINC code such as 2823-3")
        if not _checks(loinc):
            row.fail("loinc", "a LOINC code whose last digit is its check digit")
        normal = row.text("normal", empty=True)
        low = high = None
        if not normal:
            low, high = row.number("low", 0, 1e9), row.number("high", 0, 1e9)
            if low >= high:
                row.fail("high", "more than low")
        labs[row.text("lab")].append(
            LabTest(
                key=row.text("lab"),
                loinc=loinc,
                name=row.text("name"),
                unit=row.text("unit", empty=True),
                sex=row.choice("sex", ("", "F", "M")),
                low=low,
                high=high,
                normal=normal,
                decimals=int(row.number("decimals", 0, 4)),
                panel=row.number("panel", 0, 1),
                age_low=int(row.number("age_low", 0, 120)),
                age_high=int(row.number("age_high", 0, 120)),
            )
        )
    return dict(labs)


def read_signatures(
    rows: Sequence[Row], labs: Mapping[str, list[LabTest]], conditions: Mapping[str, Row]
) -> dict[str, list[Signature]]:
    """The signatures by condition; the flag follows from the reference range.

    Args:
      rows: of the table.
      labs: the tests by key.
      conditions: by key, their rows.

    Returns:
      From a condition's key to its signatures, `specific` where no other condition has the same.

    Raises:
      UserError: a cell that is not as it should be, or a range that is not outside of the reference
        range of the sexes and ages that the condition has.
    """
    signatures: dict[str, list[Signature]] = collections.defaultdict(list)
    users: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for row in rows:
        row.known("condition", conditions)
        condition, key = conditions[row.text("condition")], row.text("condition")
        tests = _tests(row, row.known("lab", labs), condition)
        signature = _signature(row, tests)
        users[signature.lab, signature.flag].add(key)
        signatures[key].append(signature)
    return {
        key: [
            dataclasses.replace(one, specific=len(users[one.lab, one.flag]) == 1) for one in group
        ]
        for key, group in signatures.items()
    }


def _tests(row: Row, tests: Sequence[LabTest], condition: Row) -> list[LabTest]:
    """The tests of the sexes that a condition has; they must be for all of its ages."""
    sexes = condition.text("sex", empty=True) or "FM"
    youngest = condition.number("age_low", 0, 120)
    oldest = condition.number("age_high", 0, 120)
    for sex in sexes:
        if not any(
            test.sex in ("", sex) and test.age_low <= youngest and oldest <= test.age_high
            for test in tests
        ):
            row.fail("lab", "a test for every sex and age that the condition has")
    return [test for test in tests if test.sex in ("", *sexes)]


def _signature(row: Row, tests: Sequence[LabTest]) -> Signature:
    value = row.text("value", empty=True)
    low = high = None
    flag = ""
    if value:
        if any(test.normal in ("", value) for test in tests):
            row.fail("value", "nothing for a test with a range, or a word that is not the normal")
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
            row.fail("low", "a range that lies outside of the reference range of labs.csv")
    share = row.number("share", 0.01, 1)
    return Signature(tests[0].key, low, high, value, flag, share, specific=False)


def _checks(loinc: str) -> bool:
    """Whether the last digit is the check digit: Luhn's (LOINC Users' Guide, check digits)."""
    digits, check = loinc.split("-")
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return (10 - total % 10) % 10 == int(check)
