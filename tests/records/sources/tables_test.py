import csv
import datetime
import hashlib
import io
import os
import tempfile

import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxcoder.errors import UserError
from jaxcoder.records.runner import Local
from jaxcoder.records.schema import Code, Evidence, Lab, Medication, Note
from jaxcoder.records.sources import open_source
from jaxcoder.records.split import split_of

HEADERS = {
    "contacts": "contact_id,patient_id,start,end,specialty,age,sex",
    "notes": "contact_id,time,kind,text",
    "medications": "contact_id,time,code,name,dose,route",
    "labs": "contact_id,time,code,name,value,unit,low,high,flag",
    "codes": "contact_id,code,system,role,rank",
    "evidence": "contact_id,code,note,start,end",
}


def write(folder, relation, rows, header=None):
    with open(folder / f"{relation}.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow((header or HEADERS[relation]).split(","))
        table.writerows(rows)


@pytest.fixture
def extract(tmp_path):
    """Two contacts, with one of everything and a few things that do not fit."""
    write(
        tmp_path,
        "contacts",
        [
            ["02", "p1", "2020-01-02 08:00", "2020-01-05", "cardiology", "63.5", "f"],
            ["01", "p1", "", "not a date", "", "-4", "X"],
        ],
        header="Contact_ID, PATIENT_ID,start,end,specialty,age,Sex",
    )
    write(
        tmp_path,
        "notes",
        [
            ["02", "2020-01-03T00:00:00", "progress", 'Second, with "quotes"\nand lines'],
            ["02", "2020-01-02T00:00:00", "admission", "First: ångina"],
            ["02", "", "late", "No time"],
            ["99", "", "", "Nobody's"],
            ["", "", "", "Nobody's"],
        ],
    )
    write(tmp_path, "medications", [["02", "2020-01-02", "B01AC06", "aspirin", "75 mg", "oral"]])
    write(
        tmp_path,
        "labs",
        [
            ["02", "2020-01-02 10:00:00", "2345-7", "glucose", "> 30", "mmol/L", "3.5", "6.1", "h"],
            ["02", "2020-01-02 09:00:00", "718-7", "Hb", "", "", "low", "", "abnormal"],
        ],
    )
    write(
        tmp_path,
        "codes",
        [
            ["02", "0389", "icd9cm", "secondary", "2"],
            ["02", "DI219", "sks", "primary", "1"],
            ["02", "i21.9", "icd10", "", "3"],
            ["02", "pneumonia in the left lobe", "", "", ""],
            ["02", "K", "", "", ""],
            ["01", "042", "ICD-9-CM", "main", "x"],
        ],
    )
    write(
        tmp_path,
        "evidence",
        [
            ["02", "DI219", "0", "7", "13"],
            ["02", "I21.9", "7", "0", "3"],
            ["02", "I21.9", "0", "7", "400"],
            ["02", "A00", "0", "7", "13"],
        ],
    )
    return tmp_path


def by_id(source):
    return {
        contact.contact_id: contact for split in source.splits for contact in source.contacts(split)
    }


def test_the_kind_of_a_contact_may_be_there(extract):
    """Extracts of before have no such column."""
    assert [each.kind for each in by_id(open_source("tables", extract, {})).values()] == ["", ""]
    lines = (extract / "contacts.csv").read_text().splitlines()
    cells = ("kind", "inpatient", "")
    text = "".join(f"{line},{cell}\n" for line, cell in zip(lines, cells, strict=True))
    (extract / "contacts.csv").write_text(text)
    found = by_id(open_source("tables", extract, {}))
    assert {key: each.kind for key, each in found.items()} == {"02": "inpatient", "01": ""}


def test_relations_nest_into_contacts(extract):
    contact = by_id(open_source("tables", extract, {"name": "mine"}))["02"]
    assert (contact.patient_id, contact.specialty) == ("p1", "cardiology")
    assert (contact.start, contact.end) == ("2020-01-02T08:00:00", "2020-01-05T00:00:00")
    assert (contact.age, contact.sex) == (63.5, "F")
    assert contact.notes == (
        Note("First: ångina", "admission", "2020-01-02T00:00:00"),
        Note('Second, with "quotes"\nand lines', "progress", "2020-01-03T00:00:00"),
        Note("No time", "late", ""),
    )
    assert contact.medications == (
        Medication("B01AC06", "aspirin", "75 mg", "oral", "2020-01-02T00:00:00"),
    )
    assert contact.labs == (
        Lab("718-7", "Hb", "", "", None, None, "", "2020-01-02T09:00:00"),
        Lab("2345-7", "glucose", "> 30", "mmol/L", 3.5, 6.1, "H", "2020-01-02T10:00:00"),
    )
    assert contact.codes == (
        Code("I21.9", "sks", "primary", 1),
        Code("038.9", "icd9cm", "secondary", 2),
    )
    assert contact.evidence == (Evidence("I21.9", 0, 7, 13, 0),)
    assert contact.notes[0].text[7:13] == "ångina"


def test_what_does_not_fit_is_counted_and_never_quoted(extract):
    source = open_source("tables", extract, {})
    contacts = by_id(source)
    assert (contacts["01"].end, contacts["01"].age, contacts["01"].sex) == ("", None, "U")
    assert contacts["01"].codes == (Code("042", "icd9cm", "unknown", 0),)
    (split,) = source.splits
    assert source.dropped(split) == {
        "codes: malformed icd10 code": 2,
        "codes: code repeated in its contact": 1,
        "codes.role: not unknown, primary, secondary (set to unknown)": 1,
        "codes.rank: no whole number (emptied)": 1,
        "contacts.end: no time such as 2024-01-31 08:00 (emptied)": 1,
        "contacts.age: outside 0-130 years (emptied)": 1,
        "contacts.sex: not F, M or U (set to U)": 1,
        "labs.low: no number such as 3.5 (emptied)": 1,
        "labs.flag: not L, H or A (emptied)": 1,
        "evidence: the contact does not have the note": 1,
        "evidence: offsets outside the note": 1,
        "evidence: the contact does not have the code": 1,
    }
    assert source.dropped(split).failed_codes == {"icd10 (not shown)": 2}
    assert source.dropped("") == {
        "notes: no contact_id": 1,
        "notes: contact_id not in contacts": 1,
    }
    assert source.dropped("").examples == {"notes: contact_id not in contacts": "'99'"}
    examples = source.dropped(split).examples
    assert examples.keys() == source.dropped(split).keys()
    assert examples["contacts.end: no time such as 2024-01-31 08:00 (emptied)"] == "'01'"
    assert examples["labs.low: no number such as 3.5 (emptied)"] == "'02'"


def test_patients_are_split_by_the_hash(tmp_path):
    write(tmp_path, "contacts", [[i, f"p{i % 60}", "", "", "", "", ""] for i in range(180)])
    source = open_source("tables", tmp_path, {"seed": "5", "shares": "0.5,0.25,0.25"})
    seen = 0
    for split in source.splits:
        order = []
        for contact in source.contacts(split):
            assert split_of(contact.patient_id, 5, (0.5, 0.25, 0.25)) == split
            digest = hashlib.md5(contact.patient_id.encode()).digest()
            order.append((int.from_bytes(digest[:8], "little"), contact.contact_id))
        assert order == sorted(order)
        seen += len(order)
    assert seen == 180
    assert source.splits == ("train", "validation", "test")


def test_parquet_gives_what_csv_gives(extract, tmp_path_factory):
    other = tmp_path_factory.mktemp("parquet")
    expected = by_id(open_source("tables", extract, {}))
    contacts = pa.table(
        {
            "contact_id": ["02", "01"],
            "patient_id": ["p1", "p1"],
            "start": pa.array([datetime.datetime(2020, 1, 2, 8), None], pa.timestamp("us")),
            "end": pa.array([datetime.date(2020, 1, 5), None], pa.date32()),
            "specialty": ["cardiology", None],
            "age": [63.5, None],
            "sex": ["F", None],
        }
    )
    (other / "contacts").mkdir()  # in parts
    parquet.write_table(contacts.slice(0, 1), other / "contacts/part-0.parquet")
    parquet.write_table(contacts.slice(1, 1), other / "contacts/part-1.parquet")
    for relation in ("notes", "medications", "labs", "codes", "evidence"):
        with open(extract / f"{relation}.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        parquet.write_table(pa.Table.from_pylist(rows), other / f"{relation}.parquet")
    assert by_id(open_source("tables", other, {})) == expected


def test_codes_may_be_absent(tmp_path):
    write(tmp_path, "contacts", [["1", "p", "", "", "", "", ""]])
    assert by_id(open_source("tables", tmp_path, {}))["1"].codes == ()


@pytest.mark.parametrize("key", ["patient_id", "contact_id"])
def test_a_published_split_is_kept(tmp_path, key):
    write(tmp_path, "contacts", [[f"c{i}", f"p{i}", "", "", "", "", ""] for i in range(6)])
    ids = [f"{key[0]}{i}" for i in range(5)]
    names = ["train", "Val", "dev", "test", "validation"]
    write(tmp_path, "splits", zip(ids, names, strict=True), header=f"{key},split")
    source = open_source("tables", tmp_path, {})
    found = {
        split: sorted(contact.contact_id for contact in source.contacts(split))
        for split in source.splits
    }
    assert found == {"train": ["c0"], "validation": ["c1", "c2", "c4"], "test": ["c3"]}
    assert source.dropped("") == {"contacts: not in the relation splits": 1}


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (
            "patient_id,split",
            [["p1", "tran"]],
            r"splits.csv: unknown split 'tran' of patient_id 'p1'; expected one of train",
        ),
        (
            "patient_id,split",
            [["p1", "train"], ["p1", "test"]],
            r"patient_id 'p1' is in test and train",
        ),
        (
            "contact_id,split",
            [["01", "train"], ["02", "test"]],
            r"'02' is in test, and '01' of the same patient in tr",
        ),
        (
            "person,split",
            [["p1", "train"]],
            r"splits.csv: column patient_id or contact_id is missing",
        ),
        (
            "patient_id,fold",
            [["p1", "train"]],
            r"splits.csv: column split is missing; found patient",
        ),
    ],
)
def test_splits_that_contradict_are_refused(extract, header, rows, message):
    write(extract, "splits", rows, header=header)
    with pytest.raises(UserError, match=message):
        by_id(open_source("tables", extract, {}))


def test_a_missing_column_is_named_with_what_was_found(extract):
    write(extract, "labs", [], header="contact_id,time,code,name,value,unit,lower,high,flag")
    with pytest.raises(
        UserError, match=r"labs.csv: column low is missing; found contact_id, .*lower"
    ):
        by_id(open_source("tables", extract, {}))


def test_one_row_a_contact(extract):
    write(extract, "contacts", [["1", "p", "", "", "", "", ""], ["1", "q", "", "", "", "", ""]])
    with pytest.raises(UserError, match=r"contacts.csv: contact_id '1' stands in 2 rows"):
        by_id(open_source("tables", extract, {}))


def test_unreadable_files_are_named_without_their_text(extract):
    (extract / "notes.csv").write_text(
        'contact_id,time,kind,text\n02,,,secret,secret\n02,"secret\n'
    )
    with pytest.raises(UserError, match=r"notes.csv, row 2 ") as caught:
        by_id(open_source("tables", extract, {}))
    assert "secret" not in str(caught.value)
    (extract / "notes.csv").unlink()
    (extract / "notes.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"notes.parquet.*cannot be read"):
        by_id(open_source("tables", extract, {}))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Notes.csv", "notes.csv;"),
        ("note.csv", "notes.csv;"),
        ("medication.parquet", "medications.parquet;"),
        ("lab.csv.gz", "labs.csv.gz;"),
        ("contacts.CSV", "contacts.csv;"),
        ("codes.tsv", "codes.parquet or codes.csv;"),
        ("notes.csv.bz2", "notes.parquet or notes.csv;"),
        ("Split.csv.zst", "splits.csv.zst;"),
        ("evidences/part-0.parquet", "evidence;"),
    ],
)
def test_a_name_that_is_nearly_a_relations_is_refused(extract, name, expected):
    (extract / name).parent.mkdir(exist_ok=True)
    (extract / name).write_text("")
    with pytest.raises(UserError, match=f"would be ignored.*expected {expected}") as caught:
        open_source("tables", extract, {})
    assert str(caught.value).startswith(str(extract / name.split("/")[0]))


def test_files_of_another_kind_are_left_alone(extract):
    for name in (
        "README.md",
        "notes.md",
        "notes.csv.bak",
        "cases.csv",
        "queries.sql",
        ".codes.csv",
    ):
        (extract / name).write_text("")
    (extract / "code").mkdir()
    assert len(by_id(open_source("tables", extract, {}))) == 2


def test_folder_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="no contacts.parquet or contacts.csv"):
        open_source("tables", tmp_path, {})
    write(tmp_path, "contacts", [])
    (tmp_path / "contacts.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="expected one file for contacts"):
        open_source("tables", tmp_path, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "my data"}, "name = 'my data': expected letters"),
        ({"shares": "0.8,0.3,0.1"}, "shares"),
        ({"shares": "a"}, "--option shares=a: expected"),
        ({"seed": "x"}, "--option seed=x: expected"),
        ({"system": "snomed"}, "unknown code system 'snomed'"),
        ({"memory_limit": "lots"}, "memory_limit = 'lots': expected a size such as 2GB"),
    ],
)
def test_option_mistakes_are_named(tmp_path, options, message):
    write(tmp_path, "contacts", [["1", "p", "", "", "", "", ""]])
    with pytest.raises(UserError, match=message):
        by_id(open_source("tables", tmp_path, options))


def test_relations_larger_than_memory_are_read_in_parts(tmp_path, monkeypatch):
    # 40 MB of notes, in an order far from the contacts', under a limit of 64 MB.
    count = 8_000
    ids = [f"{i:05d}" for i in range(count)]
    contacts = {name: [None] * count for name in HEADERS["contacts"].split(",")[2:]}
    table = pa.table({"contact_id": ids, "patient_id": ids, **contacts})
    parquet.write_table(table, tmp_path / "contacts.parquet")
    where = [(i * 7919) % count for i in range(4 * count)]
    notes = pa.table(
        {
            "contact_id": [ids[i] for i in where],
            "time": [f"2020-01-0{9 - number // count}" for number in range(len(where))],
            "kind": [str(number // count) for number in range(len(where))],
            "text": [f"{i:05d} " * 210 for i in where],
        }
    )
    parquet.write_table(notes, tmp_path / "notes.parquet", row_group_size=4000)
    source = open_source("tables", tmp_path, {"memory_limit": "64MB", "shares": "1,0,0"})
    monkeypatch.setattr(source, "size_of_rows", lambda: 42_000_000)
    found = []
    for contact in source.contacts("train"):
        assert [note.kind for note in contact.notes] == ["3", "2", "1", "0"]
        assert all(note.text.startswith(contact.contact_id) for note in contact.notes)
        found.append(contact.contact_id)
    assert sorted(found) == ids
    assert len(source.parts(Local())[0]["train"]) == 3


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize(("ending", "codec"), [("gz", "gzip"), ("zst", "zstd")])
def test_other_delimiters_and_compression(extract, delimiter, ending, codec):
    expected = by_id(open_source("tables", extract, {}))
    for relation in HEADERS:
        path = extract / f"{relation}.csv"
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows(rows)
        with pa.output_stream(extract / f"{relation}.csv.{ending}", codec) as file:
            file.write(text.getvalue().encode("utf-8-sig"))
        path.unlink()
    assert by_id(open_source("tables", extract, {})) == expected


def test_a_decimal_comma_is_read_where_it_can_be_nothing_else(extract):
    rows = [["02", "", "1", "x", "5", "", low, high, ""] for low, high in
            (("3,5", "-0,25"), ("1,250", "2,7500"), (" 4,0 ", "1,2,3"))]  # fmt: skip
    write(extract, "labs", rows)
    source = open_source("tables", extract, {})
    labs = by_id(source)["02"].labs
    assert [(lab.low, lab.high) for lab in labs] == [(3.5, -0.25), (None, 2.75), (4.0, None)]


def test_files_are_the_same_when_their_contents_are(extract):
    before = open_source("tables", extract, {}).identity
    path = extract / "codes.csv"
    os.utime(path, (1, 1))
    assert open_source("tables", extract, {}).identity == before
    path.write_bytes(path.read_bytes().replace(b"042", b"043"))  # of the same size
    os.utime(path, (1, 1))
    assert open_source("tables", extract, {}).identity != before


def test_rows_of_one_time_keep_the_order_of_the_file(tmp_path):
    count = 300_000
    one = {"contact_id": ["1"], "patient_id": ["1"]}
    one |= {name: [None] for name in HEADERS["contacts"].split(",")[2:]}
    parquet.write_table(pa.table(one), tmp_path / "contacts.parquet")
    labs = {name: pa.nulls(count, pa.string()) for name in HEADERS["labs"].split(",")}
    labs |= {"contact_id": ["1"] * count, "value": [str(number) for number in range(count)]}
    parquet.write_table(pa.table(labs), tmp_path / "labs.parquet", row_group_size=10_000)
    source = open_source("tables", tmp_path, {"shares": "1,0,0"})
    (contact,) = source.contacts("train")
    assert [lab.value for lab in contact.labs] == labs["value"]


def test_what_a_killed_process_left_is_removed(extract, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "jaxcoder-work-killed").mkdir()
    (tmp_path / "jaxcoder-work-killed" / ".lock").touch()
    (tmp_path / "jaxcoder-work-killed" / "notes.parquet").write_text("of a patient")
    (tmp_path / "jaxcoder-anothers").mkdir()  # without a lock: not known to be ours
    first, second = (open_source("tables", extract, {}) for _ in range(2))
    assert by_id(first) == by_id(second)  # and neither removes the other's
    names = {path.name for path in tmp_path.glob("jaxcoder-*")}
    assert "jaxcoder-work-killed" not in names and "jaxcoder-anothers" in names and len(names) == 3
