import pytest

from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import Code
from jaxcoder.records.sources.nest import Groups, nest

CONTACT = ("c", "p", None, None, None, None, None, None)


def test_groups_are_taken_by_rising_ids():
    groups = Groups(iter([("a", 1), ("a", 2), ("c", 3), ("d", 4)]))
    taken = [groups.take(key) for key in ("a", "b", "c", "d", "e")]
    assert taken == [[("a", 1), ("a", 2)], [], [("c", 3)], [("d", 4)], []]


def test_null_is_empty_and_not_counted():
    dropped = Findings()
    children = {
        "notes": [("c", None, None, None, None)],
        "medications": [("c", *[None] * 5)],
        "labs": [("c", *[None] * 8)],
        "codes": [("c", "I10", None, None, None)],
    }
    contact = nest(CONTACT, children, "icd10", dropped)
    assert (contact.sex, contact.start, contact.kind, contact.age) == ("U", "", "", None)
    assert contact.notes[0].text == "" and contact.labs[0].low is None
    assert contact.codes == (Code("I10", "icd10", "unknown", 0),)
    assert not dropped


def test_the_first_rank_of_a_repeated_code_is_kept():
    dropped = Findings()
    codes = [("c", "I10", "icd10", "primary", 1), ("c", "i10", "icd10", "secondary", 2)]
    contact = nest(CONTACT, {"codes": codes}, "icd10", dropped)
    assert contact.codes == (Code("I10", "icd10", "primary", 1),)
    assert dropped == {"codes: code repeated in its contact": 1}


def test_an_unknown_system_is_counted():
    dropped = Findings()
    codes = [("c", "I10", system, None, None) for system in ("icd11", "Hansen")]
    contact = nest(CONTACT, {"codes": codes}, "icd10", dropped)
    assert contact.codes == ()
    assert [reason.split(";")[0] for reason in dropped] == [
        "codes: unknown system 'icd11'",
        "codes: unknown system (not shown)",
    ]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("K", "(not shown)"),
        ("Hansen", "(not shown)"),
        ("DI10", "DI10"),
        ("I1.09", "I1.09"),
        ("42", "42"),
        ("250.001", "(not shown)"),
        ("0101701234", "(not shown)"),  # a personal number where columns have shifted
        ("010170-1234", "(not shown)"),
        ("O'Neill", "(not shown)"),
        ("a sentence", "(not shown)"),
        ("Hypertension", "(not shown)"),
    ],
)
def test_findings_show_what_looks_like_a_code_alone(written, shown):
    dropped = Findings()
    nest(CONTACT, {"codes": [("c", written, "icd9cm", None, None)]}, "icd10", dropped)
    assert dropped == {"codes: malformed icd9cm code": 1}
    assert dropped.failed_codes == {f"icd9cm {shown}": 1}
    assert list(dropped.examples.values()) == ["'c'"]


@pytest.mark.parametrize("system", ["0101701234", "a sentence that is a note"])
def test_findings_show_what_looks_like_a_system_alone(system):
    dropped = Findings()
    nest(CONTACT, {"codes": [("c", "I10", system, None, None)]}, "icd10", dropped)
    assert [reason.split(";")[0] for reason in dropped] == ["codes: unknown system (not shown)"]


def test_rows_that_are_the_same_are_counted_and_kept():
    dropped = Findings()
    lab = ("c", "2020-01-01T00:00:00", "1", "Hb", "5", "mmol/L", 3.0, 6.0, "")
    children = {
        "notes": [
            ("c", None, "progress", text, rank)
            for rank, text in enumerate(("one", "two", "one", "one"))
        ],
        "medications": [("c", None, "A", "x", dose, None) for dose in ("1 mg", "2 mg")],
        "labs": [lab, (*lab[:4], "5.0", *lab[5:]), lab],
    }
    contact = nest(CONTACT, children, "icd10", dropped)
    assert [note.text for note in contact.notes] == ["one", "two", "one", "one"]
    assert len(contact.labs) == 3
    assert dropped == {
        "notes: row repeated in its contact (kept)": 2,
        "labs: row repeated in its contact (kept)": 1,
    }


def at(*times):
    return {
        "notes": [("c", time, None, f"note {number}", None) for number, time in enumerate(times)]
    }


@pytest.mark.parametrize(
    ("start", "end", "times", "early", "late"),
    [
        (
            "2020-01-02T08:00:00",
            "2020-01-03T08:00:00",
            (
                "2019-12-31T08:00:00",
                "2020-01-01T07:59:59",
                "2020-01-01T08:00:00",
                "2020-01-04T08:00:00",
                "2020-01-04T08:00:01",
                None,
                None,
            ),
            2,
            1,
        ),
        ("2020-01-02T08:00:00", None, ("2019-01-01T00:00:00", "2021-01-01T00:00:00"), 1, 0),
        (None, "2020-01-02T08:00:00", ("2019-01-01T00:00:00", "2021-01-01T00:00:00"), 0, 1),
        (None, None, ("2019-01-01T00:00:00", None), 0, 0),
        ("2020-01-02T08:00:00", "2020-01-03T08:00:00", (None,), 0, 0),
        ("0001-01-01T00:00:00", "9999-12-31T12:00:00", ("2020-01-01T00:00:00",), 0, 0),
        ("2020-01-02T08:00:00", "2020-01-03T08:00:00", ("2021-01-01T00:00:00",) * 2, 0, 2),
    ],
)
def test_times_far_from_the_contact_are_counted(start, end, times, early, late):
    dropped = Findings()
    contact = nest(("c", "p", start, end, *CONTACT[4:]), at(*times), "icd10", dropped)
    assert len(contact.notes) == len(times)
    counts = [
        dropped[f"notes.time: more than a day {where} (kept)"]
        for where in ("before the contact's start", "after the contact's end")
    ]
    assert counts == [early, late]


def test_a_contact_that_ends_before_it_starts_is_counted_once():
    dropped = Findings()
    row = ("c", "p", "2020-01-09T00:00:00", "2020-01-01T00:00:00", *CONTACT[4:])
    nest(row, at("2020-01-05T00:00:00"), "icd10", dropped)
    assert dropped == {"contacts.end: before its start (kept)": 1}


def test_characters_that_an_earlier_conversion_lost_are_counted():
    dropped = Findings()
    texts = ("s\ufffdr, r\ufffdntgen", "sår", "?")
    nest(CONTACT, {"notes": [("c", None, None, text, None) for text in texts]}, "icd10", dropped)
    reason = "notes.text: has U+FFFD, where an earlier conversion lost characters (kept)"
    assert dropped == {reason: 1}


def test_evidence_finds_its_code_in_whichever_system_the_contact_has_it():
    dropped = Findings()
    children = {
        "notes": [("c", None, None, "x" * 9, None)],
        "codes": [("c", "DI219", "sks", None, 1), ("c", "E8801", "icd9cm", None, 2)],
        "evidence": [
            ("c", "I21.9", 0, 0, 1, None),
            ("c", "DI219", 0, 1, 2, None),
            ("c", "E8801", 0, 2, 3, None),
            ("c", "I10", 0, 0, 1, None),
        ],
    }
    contact = nest(CONTACT, children, "icd10", dropped)
    assert [row.code for row in contact.evidence] == ["I21.9", "I21.9", "E880.1"]
    assert dropped == {"evidence: the contact does not have the code": 1}
