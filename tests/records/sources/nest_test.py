import collections

from jaxcoder.records.schema import Code
from jaxcoder.records.sources.nest import Groups, nest

CONTACT = ("c", "p", None, None, None, None, None)


def test_groups_are_taken_by_rising_ids():
    groups = Groups(iter([("a", 1), ("a", 2), ("c", 3), ("d", 4)]))
    taken = [groups.take(key) for key in ("a", "b", "c", "d", "e")]
    assert taken == [[("a", 1), ("a", 2)], [], [("c", 3)], [("d", 4)], []]


def test_null_is_empty_and_not_counted():
    dropped = collections.Counter()
    children = {
        "notes": [("c", None, None, None)],
        "medications": [("c", *[None] * 5)],
        "labs": [("c", *[None] * 8)],
        "codes": [("c", "I10", None, None, None)],
    }
    contact = nest(CONTACT, children, "icd10", dropped)
    assert contact.sex == "U" and contact.start == "" and contact.age is None
    assert contact.notes[0].text == "" and contact.labs[0].low is None
    assert contact.codes == (Code("I10", "icd10", "unknown", 0),)
    assert not dropped


def test_the_first_rank_of_a_repeated_code_is_kept():
    dropped = collections.Counter()
    codes = [("c", "I10", "icd10", "primary", 1), ("c", "i10", "icd10", "secondary", 2)]
    contact = nest(CONTACT, {"codes": codes}, "icd10", dropped)
    assert contact.codes == (Code("I10", "icd10", "primary", 1),)
    assert dropped == {"codes: code repeated in its contact": 1}


def test_an_unknown_system_is_counted():
    dropped = collections.Counter()
    contact = nest(CONTACT, {"codes": [("c", "I10", "snomed", None, None)]}, "icd10", dropped)
    assert contact.codes == ()
    assert [reason.split(";")[0] for reason in dropped] == ["codes: unknown system 'snomed'"]
