"""A contact reads the same to the coder whether it comes from tables or as a line of JSON."""

import csv
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxcoder import contact_lines
from jaxcoder.records.sources import open_source
from jaxcoder.records.sources.relations import COLUMNS
from jaxcoder.tokens.serialise import SerialiseOptions, serialise

NOTE = {"time": "2024-02-01T08:00:00", "kind": "admission", "text": "Chest pain."}


def lab(name, **more):
    return {"time": "2024-02-01T08:00:00", "name": name, "value": "5", "unit": "mmol/L", **more}


CONTACTS = {
    "notes out of time order": {
        "notes": [
            {"time": "2024-02-03", "kind": "discharge", "text": "Home."},
            {"time": "2024-02-01 20:00", "kind": "ward", "text": "Better.\n\n  Slept  well. "},
            {"time": "2024-02-01 09:30", "kind": "admission", "text": "Chest pain."},
            {"time": "2024-02-01 09:30", "kind": "addendum", "text": "Same minute."},
            {"time": "2024-02-01", "kind": "triage", "text": "A date alone."},
            {"time": "2024-02-01T09:30:01.5", "kind": "ward", "text": "Another way to write it."},
            {"time": "2024-02-01 11:00:00+02:00", "kind": "zone", "text": "In a zone."},
            {"time": "yesterday", "kind": "ward", "text": "No time."},
        ]
    },
    "null times": {
        "notes": [
            {"time": None, "kind": "second", "text": "Without a time."},
            {"kind": "third", "text": "Without one, either."},
            {"time": "2024-02-01", "kind": "first", "text": "With a time."},
        ],
        "medications": [
            {"time": None, "code": "B01AC06", "name": "aspirin"},
            {"time": "2024-02-01", "code": "C07AB02", "name": "metoprolol"},
        ],
        "labs": [lab("sodium", time=None), lab("potassium")],
    },
    "medications with null fields": {
        "medications": [
            {"code": None, "name": "aspirin", "dose": "75 mg", "route": None},
            {"code": "C07AB02", "name": None, "dose": None, "route": "oral"},
            {"code": None, "name": None, "dose": None, "route": None},
            {"time": "2024-02-01", "code": None, "name": None, "dose": None, "route": None},
            {"code": "", "name": "  two  words ", "dose": "", "route": ""},
        ],
    },
    "labs with flags in lower case": {
        "labs": [
            lab("sodium", flag="l"),
            lab("potassium", flag="h"),
            lab("culture", flag="a"),
            lab("glucose", flag="high", high=4.0),
            lab("calcium", flag="", low=6.5),
            lab("iron", flag=None, low=1.0, high=9.0),
            {"time": None, "name": None, "code": "2345-7", "value": "<5", "unit": None},
        ],
    },
    "age 57.3": {"age": 57.3, "sex": "M", "notes": [NOTE]},
    "age 200": {"age": 200, "sex": "M", "notes": [NOTE]},
    "age unknown": {"age": None, "sex": None, "notes": [NOTE]},
    "sex female": {"age": 40, "sex": "female", "notes": [NOTE]},
    "sex f": {"age": 40, "sex": " f", "notes": [NOTE]},
    "blank notes": {
        "notes": [
            {"time": "2024-02-01", "kind": "empty", "text": ""},
            {"time": "2024-02-02", "kind": "blank", "text": " \n\t"},
            {"time": "2024-02-03", "kind": None, "text": " Chest pain.\n"},
            {"time": "2024-02-04", "kind": " two  words ", "text": "Home."},
        ]
    },
}


def write(folder, ending):
    """Writes all contacts as a user's own extract."""
    rows = {relation: [] for relation in ("contacts", "notes", "medications", "labs", "codes")}
    for contact_id, contact in CONTACTS.items():
        own = {key: value for key, value in contact.items() if key not in rows}
        rows["contacts"].append({"contact_id": contact_id, "patient_id": contact_id, **own})
        for relation in contact_lines.SECTIONS:
            for row in contact.get(relation, ()):
                rows[relation].append({"contact_id": contact_id, **row})
    for relation, content in rows.items():
        columns = COLUMNS[relation]
        if ending == "csv":
            with (folder / f"{relation}.csv").open("w", newline="") as file:
                table = csv.DictWriter(file, list(columns))
                table.writeheader()
                table.writerows(content)
            continue
        kinds = {
            name: pa.float64() if kind == "number" else pa.string()
            for name, kind in columns.items()
        }
        table = pa.Table.from_pylist(content, pa.schema(list(kinds.items())))
        parquet.write_table(table, folder / f"{relation}.parquet")


@pytest.fixture(scope="module", params=["csv", "parquet"])
def from_tables(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("extract")
    write(folder, request.param)
    source = open_source("tables", str(folder), {})
    return {
        contact.contact_id: contact for split in source.splits for contact in source.contacts(split)
    }


@pytest.mark.parametrize("name", CONTACTS)
def test_tables_and_a_line_of_json_read_the_same(from_tables, name):
    line = json.dumps({"contact_id": name, **CONTACTS[name]})
    options = SerialiseOptions()
    text = serialise(contact_lines.parse(line), options).text
    assert text == serialise(from_tables[name], options).text


def test_what_is_compared_is_not_empty(from_tables):
    texts = {name: serialise(each, SerialiseOptions()).text for name, each in from_tables.items()}
    assert set(texts) == set(CONTACTS)
    order = ["A date alone.", "In a zone.", "Chest pain.", "Same minute.", "Another way"]
    order += ["Better.", "Home.", "No time."]
    places = [texts["notes out of time order"].index(words) for words in order]
    assert places == sorted(places)
    assert texts["null times"].index("[NOTE first]") < texts["null times"].index("[NOTE second]")
    assert "[MEDICATIONS]\naspirin 75 mg\n" in texts["medications with null fields"]
    lines = texts["labs with flags in lower case"].splitlines()
    assert [line[-1] for line in lines[1:5]] == ["L", "H", "A", "H"]
    assert texts["age 57.3"].startswith("[PATIENT] age 57 sex M\n")
    assert texts["age 200"].startswith("[PATIENT] sex M\n")
    assert texts["sex female"].startswith("[PATIENT] age 40 sex F\n")
    assert "empty" not in texts["blank notes"] and "[NOTE two words]" in texts["blank notes"]
