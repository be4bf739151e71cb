import json

import pytest

from jaxcoder import contact_lines
from jaxcoder.contact_lines import BrokenLine
from jaxcoder.records.findings import Findings


def test_a_contact_in_full():
    contact = contact_lines.parse(
        json.dumps(
            {
                "contact_id": 17,
                "notes": [
                    {"kind": "discharge", "time": "2024-02-02T10:00", "text": "Home."},
                    {"kind": "admission", "time": "2024-02-01T09:00", "text": "Chest pain."},
                    {"kind": "empty", "text": " "},
                ],
                "medications": [{"code": "C01DA02", "name": "glyceryl trinitrate", "dose": 0.4}],
                "labs": [{"name": "troponin", "value": 52, "low": None, "high": "14", "flag": "H"}],
                "age": 61,
                "sex": "F",
                "kind": "inpatient",
                "specialty": None,
                "something_else": {"is": "ignored"},
            }
        )
    )
    assert contact.contact_id == "17"
    assert [note.kind for note in contact.notes] == ["admission", "discharge"]  # in time order
    assert contact.medications[0].dose == "0.4"
    assert (contact.labs[0].value, contact.labs[0].low, contact.labs[0].high) == ("52", None, 14.0)
    assert (contact.age, contact.sex, contact.specialty, contact.codes) == (61.0, "F", "", ())
    assert contact.kind == "inpatient"


def test_values_are_read_as_contact_records_have_them():
    contact = contact_lines.parse(
        """{"contact_id": "a", "age": NaN, "sex": "f", "notes": [
        {"text": "untimed"}, {"text": "timed", "time": "2024-01-01"}],
        "labs": [{"name": "x", "low": Infinity, "flag": "h"}, {"name": "y", "flag": "high"}]}"""
    )
    assert [note.text for note in contact.notes] == ["timed", "untimed"]
    assert (contact.age, contact.sex, contact.labs[0].low) == (None, "F", None)
    assert [lab.flag for lab in contact.labs] == ["H", ""]
    assert contact_lines.parse('{"contact_id": "a", "age": 200, "text": "b"}').age is None


def test_text_alone_is_one_note():
    contact = contact_lines.parse('{"contact_id": "a", "text": "Chest pain."}')
    assert [note.text for note in contact.notes] == ["Chest pain."]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"contact_id": "a", "text": "SECRET"', r"not JSON at column \d+"),
        (b'{"contact_id": "a", "text": "SECRET \xff"}', "not UTF-8 at byte 37"),
        ('{"contact_id": "a", "text": "SECRET"}'.encode("utf-16"), "not UTF-8 at byte 1"),
        (b'["SECRET"]', "a JSON list: expected an object"),
        (b'{"text": "SECRET"}', "contact_id is missing"),
        (b'{"contact_id": null, "text": "SECRET"}', "contact_id is missing"),
        (b'{"contact_id": "a", "text": "SECRET", "notes": []}', "both text and notes"),
        (b'{"contact_id": "a", "text": 3}', "text is a JSON number: expected text"),
        (b'{"contact_id": "a", "text": "  "}', "nothing to code"),
        (b'{"contact_id": "a"}', "nothing to code"),
        (
            b'{"contact_id": "a", "labs": [{}], "medications": [{"time": "2024"}]}',
            "nothing to code",
        ),
        (b'{"contact_id": "a", "notes": [{"text": ""}]}', "nothing to code"),
        (b'{"contact_id": "a", "notes": "SECRET"}', "notes is a JSON text: expected a list"),
        (b'{"contact_id": "a", "notes": ["SECRET"]}', r"notes\[0\] is a JSON text"),
        (b'{"contact_id": "a", "notes": [{"kind": "x"}]}', r"notes\[0\]\.text is missing"),
        (
            b'{"contact_id": "a", "notes": [{"text": ["SECRET"]}]}',
            r"notes\[0\]\.text is a JSON list",
        ),
        (b'{"contact_id": "a", "text": "SECRET \\ud800"}', "text holds half a surrogate pair"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_contact_is_said_without_its_text(line, reason):
    with pytest.raises(ValueError, match=reason) as error:
        contact_lines.parse(line)
    assert "SECRET" not in str(error.value) and "\n" not in str(error.value)


def test_lines_keep_their_numbers():
    lines = [
        b'{"contact_id": "a", "text": "b"}\n',
        b"\n",
        b"{\n",
        b'{"contact_id": "c", "text": "d"}',
    ]
    first, broken, last = contact_lines.read(lines)
    assert (first[0], last[0], last[1].contact_id) == (1, 4, "c")
    assert isinstance(broken, BrokenLine) and broken.line == 3


def test_a_coder_of_notes_cannot_code_a_contact_without_notes():
    line = b'{"contact_id": "a", "labs": [{"name": "troponin", "value": "52"}]}'
    assert contact_lines.parse(line).labs
    with pytest.raises(ValueError, match="nothing to code: expected notes that are not empty"):
        contact_lines.parse(line, ("notes",))


def test_what_is_not_read_is_counted_and_no_value_shown():
    dropped = Findings()
    lines = [
        b'{"contact_id": "a", "text": "x", "medication": [{"name": "SECRET"}], "age": 200}',
        b'{"contact_id": "b", "notes": [{"text": "x", "body": "SECRET"}], "codes": ["I10"]}',
        b'{"contact_id": "c", "text": "x", "Mrs SECRET, born 1960": 1, "medication": []}',
        b'{"contact_id": "d", "labs": [{"name": "y", "flag": "SECRET"}], "sex": "SECRET"}',
        b'{"contact_id": "e", "notes": [{"text": "x", "time": "SECRET"}], "end": "13/13/2020"}',
        b'{"contact_id": "f", "text": "x", "age": true, "labs": [{"name": "y", "low": "SECRET"}]}',
    ]
    assert len(list(contact_lines.read(lines, dropped=dropped))) == 6
    assert dropped == {
        "medication: unknown key (ignored); did you mean medications?": 2,
        "age: outside 0-130 years (emptied)": 1,
        "notes.body: unknown key (ignored)": 1,
        "(no plain name): unknown key (ignored)": 1,
        "labs.flag: not L, H or A (emptied)": 1,
        "sex: not F, M or U (set to U)": 1,
        "age: no number such as 3.5 (emptied)": 1,
        "labs.low: no number such as 3.5 (emptied)": 1,
        "notes.time: no time such as 2024-01-31 08:00 (emptied)": 1,
        "end: no time such as 2024-01-31 08:00 (emptied)": 1,
    }
