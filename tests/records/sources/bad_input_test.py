"""Bad input, from the command line: one line that names the file, what is wrong and the remedy."""

import csv
import gzip
import random
import re

import pyarrow as pa
import pytest
from etils import epath
from pyarrow import feather, parquet

from jaxcoder import entry
from jaxcoder.records import __main__ as command
from jaxcoder.records.sources import open_source

# One patient of two contacts, another of one; a column each that an age comes from.
FOLDERS = {
    "tables": {
        "contacts": """contact_id,patient_id,start,end,specialty,age,sex
            20,1,2150-03-01 10:00:00,2150-03-04 12:00:00,,62,F
            21,1,2151-03-01 10:00:00,2151-03-04 12:00:00,,63,F
            22,2,2150-03-01 10:00:00,2150-03-04 12:00:00,,40,M""",
        "codes": """contact_id,code,system,role,rank
            20,I10,icd10,primary,1
            21,I10,icd10,primary,1
            22,I10,icd10,primary,1""",
        "notes": """contact_id,time,kind,text
            20,2150-03-01 12:00:00,admission,secret""",
        "medications": """contact_id,time,code,name,dose,route
            20,2150-03-01 12:00:00,B01,aspirin,75 mg,oral""",
        "labs": """contact_id,time,code,name,value,unit,low,high,flag
            20,2150-03-01 12:00:00,7,Hb,5,mmol/L,3,6,L""",
    },
    "mimic4": {
        "hosp/admissions": """subject_id,hadm_id,admittime,dischtime,admission_type
            1,20,2150-03-01 10:00:00,2150-03-04 12:00:00,URGENT
            1,21,2151-03-01 10:00:00,2151-03-04 12:00:00,URGENT
            2,22,2150-03-01 10:00:00,2150-03-04 12:00:00,URGENT""",
        "hosp/patients": """subject_id,gender,anchor_age,anchor_year
            1,F,62,2150
            2,M,40,2150""",
        "hosp/diagnoses_icd": """hadm_id,seq_num,icd_code,icd_version
            20,1,I10,10
            21,1,I10,10
            22,1,I10,10""",
        "hosp/labevents": """hadm_id,itemid,charttime,value,valuenum,valueuom,\
            ref_range_lower,ref_range_upper,flag
            20,7,2150-03-01 12:00:00,5,5,mmol/L,3,6,abnormal""",
        "hosp/d_labitems": """itemid,label
            7,Hb""",
        "note/discharge": """hadm_id,charttime,text
            20,2150-03-04 00:00:00,secret""",
    },
    "mimic3": {
        "ADMISSIONS": """SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,ADMISSION_TYPE
            1,20,2150-03-01 10:00:00,2150-03-04 12:00:00,URGENT
            1,21,2151-03-01 10:00:00,2151-03-04 12:00:00,URGENT
            2,22,2150-03-01 10:00:00,2150-03-04 12:00:00,URGENT""",
        "PATIENTS": """SUBJECT_ID,GENDER,DOB
            1,F,2088-01-01
            2,M,2110-01-01""",
        "DIAGNOSES_ICD": """HADM_ID,SEQ_NUM,ICD9_CODE
            20,1,0389
            21,1,0389
            22,1,0389""",
        "LABEVENTS": """HADM_ID,ITEMID,CHARTTIME,VALUE,VALUEUOM,FLAG
            20,7,2150-03-01 12:00:00,5,mmol/L,abnormal""",
        "D_LABITEMS": """ITEMID,LABEL,LOINC_CODE
            7,Hb,718-7""",
        "NOTEEVENTS": """ROW_ID,HADM_ID,CHARTDATE,CATEGORY,DESCRIPTION,TEXT
            1,20,2150-03-04,Discharge summary,Report,secret""",
    },
    "omop": {
        "person": """person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth
            1,8532,2088,1,1
            2,8507,2110,1,1""",
        "visit_occurrence": """visit_occurrence_id,person_id,visit_start_date,visit_start_datetime,\
            visit_end_date,visit_end_datetime,provider_id,care_site_id
            20,1,2150-03-01,2150-03-01 10:00:00,2150-03-04,2150-03-04 12:00:00,,
            21,1,2151-03-01,2151-03-01 10:00:00,2151-03-04,2151-03-04 12:00:00,,
            22,2,2150-03-01,2150-03-01 10:00:00,2150-03-04,2150-03-04 12:00:00,,""",
        "condition_occurrence": """visit_occurrence_id,condition_occurrence_id,\
            condition_concept_id,condition_source_concept_id,condition_source_value,\
            condition_status_concept_id
            20,1,0,5,I10,0
            21,2,0,5,I10,0
            22,3,0,5,I10,0""",
        "concept": """concept_id,concept_name,vocabulary_id,concept_code
            5,Hypertension,ICD10CM,I10
            7,Hb,LOINC,718-7""",
        "measurement": """visit_occurrence_id,measurement_concept_id,measurement_date,\
            measurement_datetime,value_as_number,value_source_value,unit_source_value,range_low,\
            range_high,measurement_source_value
            20,7,2150-03-01,2150-03-01 12:00:00,5,5,mmol/L,3,6,Hb""",
        "note": """visit_occurrence_id,note_date,note_datetime,note_title,note_text
            20,2150-03-01,2150-03-01 12:00:00,admission,secret""",
    },
}
CONTACTS = {
    "tables": "contacts",
    "mimic4": "hosp/admissions",
    "mimic3": "ADMISSIONS",
    "omop": "visit_occurrence",
}
LABS = {"tables": "labs", "mimic4": "hosp/labevents", "mimic3": "LABEVENTS", "omop": "measurement"}
JOINED = {"mimic4": "hosp/d_labitems", "mimic3": "D_LABITEMS", "omop": "concept"}
"""Tables that are read together with the laboratory results."""
COMPULSORY = {
    "tables": ["contacts"],
    "mimic4": ["hosp/admissions", "hosp/patients", "hosp/diagnoses_icd"],
    "mimic3": ["ADMISSIONS", "PATIENTS", "DIAGNOSES_ICD"],
    "omop": ["person", "visit_occurrence", "condition_occurrence", "concept"],
}
each_source = pytest.mark.parametrize("source", FOLDERS)
each_table = pytest.mark.parametrize(
    ("source", "table"), [(source, table) for source in FOLDERS for table in FOLDERS[source]]
)


def rows_of(source, table):
    lines = FOLDERS[source][table].splitlines()
    return [[cell.strip() for cell in line.split(",")] for line in lines]


def write(folder, table, rows, delimiter=",", encoding="utf-8", ending=".csv"):
    """Writes a table in place of that of the name; returns its file."""
    for old in (folder / table).parent.glob(f"{(folder / table).name}.*"):
        old.unlink()
    path = folder / f"{table}{ending}"
    path.parent.mkdir(exist_ok=True)
    if ending == ".parquet":
        header, *rows = rows
        columns = zip(*rows, strict=True)
        parquet.write_table(pa.table(dict(zip(header, columns, strict=True))), path)
        return path
    opened = gzip.open if ending == ".csv.gz" else open
    with opened(path, "wt", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def folder_of(source, folder):
    for table in FOLDERS[source]:
        write(folder, table, rows_of(source, table))
    return folder


def edited(folder, source, table, column, value, row=1):
    """Sets a cell; the header is row 0."""
    rows = rows_of(source, table)
    rows[row][[name.lower() for name in rows[0]].index(column)] = value
    return write(folder, table, rows)


def check(source, folder, *more):
    """Runs the command as a shell would."""
    entry.run(command.main, ["--source", source, "--source_dir", str(folder), "--check", *more])


def refusal(capsys, source, folder, *more):
    """The only line of a refusal."""
    with pytest.raises(SystemExit) as ended:
        check(source, folder, *more)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    prefix, _, told = line.partition(": error: ")
    assert prefix == "jaxcoder records" and told
    assert "secret" not in told and "Error" not in told and "Exception" not in told
    return told


def counted(capsys, source, folder, reason):
    """Checks that a reason is counted once with its contact, and refused by --strict."""
    check(source, folder)
    assert f"1 × {reason}, such as contact_id '20'" in capsys.readouterr().out
    told = refusal(capsys, source, folder, "--strict")
    assert told.startswith(f"--strict: 1 × {reason}") and "mend" in told


def contacts(source, folder):
    opened = open_source(source, epath.Path(folder), {})
    return sorted(
        (each for split in opened.splits for each in opened.contacts(split)),
        key=lambda contact: contact.contact_id,
    )


@each_source
def test_the_folders_here_are_good(source, tmp_path, capsys):
    check(source, folder_of(source, tmp_path), "--strict")
    assert "nothing dropped" in capsys.readouterr().out
    assert [len(contact.labs) for contact in contacts(source, tmp_path)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("source", "table"), [(source, table) for source in FOLDERS for table in COMPULSORY[source]]
)
def test_a_missing_file_is_named(source, table, tmp_path, capsys):
    (folder_of(source, tmp_path) / f"{table}.csv").unlink()
    told = refusal(capsys, source, tmp_path)
    assert told.startswith(f"{tmp_path}: no {table.lower()}.parquet or {table.lower()}.csv;")
    assert "compulsory; add it, or name the folder that holds it" in told


@each_source
def test_an_empty_folder_is_named(source, tmp_path, capsys):
    told = refusal(capsys, source, tmp_path)
    assert re.match(rf"{tmp_path}: no \S+.parquet or \S+.csv; it is compulsory; add it", told)


@each_table
def test_a_missing_column_is_named(source, table, tmp_path, capsys):
    rows = rows_of(source, table)
    path = write(folder_of(source, tmp_path), table, [row[:-1] for row in rows])
    gone = rows[0][-1].lower()
    told = refusal(capsys, source, tmp_path)
    assert told.startswith(f"{path}: column {gone} is missing; found {rows[0][0]}")
    assert "rename one, or add it" in told


@each_table
def test_a_wrong_delimiter_is_named(source, table, tmp_path, capsys):
    rows = rows_of(source, table)
    path = write(folder_of(source, tmp_path), table, rows, delimiter="~")
    told = refusal(capsys, source, tmp_path)
    assert re.match(rf"{path}: column \w+ is missing; found none of the names expected", told)
    assert "parted as the rows are by one of , ; | or tabs" in told


@pytest.mark.parametrize(("source", "table"), LABS.items())
def test_another_delimiter_than_the_headers_is_named(source, table, tmp_path, capsys):
    path = folder_of(source, tmp_path) / f"{table}.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(row.replace(",", ";") for row in rows)]) + "\n")
    told = refusal(capsys, source, tmp_path)
    assert told.startswith(f"{path}, row 2 (the header is row 1): has 1 cells; expected ")
    assert "part all as the header is" in told


@each_source
def test_the_case_of_headers_does_not_matter(source, tmp_path):
    expected = contacts(source, folder_of(source, tmp_path))
    for table in FOLDERS[source]:
        header, *rows = rows_of(source, table)
        mixed = [f" {name.swapcase()}" if len(name) % 2 else name.title() for name in header]
        write(tmp_path, table, [mixed, *rows])
    assert contacts(source, tmp_path) == expected


def many(source, table):
    """So many rows that the header of a file that is cut can still be read."""
    header, row, *_ = rows_of(source, table)
    draw = random.Random(0)
    noise = [[*row[:-1], f"{draw.getrandbits(256):x}"] for _ in range(10_000)]
    return [header, *noise]


@pytest.mark.parametrize(("source", "table"), [*LABS.items(), *JOINED.items()])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_gzip_is_named(source, table, share, tmp_path, capsys):
    path = write(folder_of(source, tmp_path), table, many(source, table), ending=".csv.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    told = refusal(capsys, source, tmp_path)
    assert told.startswith(f"{path}: ")
    assert "compressed as its name says and whole" in told or share == 0
    assert "write it again" in told or share == 0


@pytest.mark.parametrize(("source", "table"), JOINED.items())
def test_a_truncated_parquet_is_named(source, table, tmp_path, capsys):
    path = write(folder_of(source, tmp_path), table, many(source, table), ending=".parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    told = f"{path}: cannot be read; expected Parquet; write it again"
    assert refusal(capsys, source, tmp_path) == told
    half = len(whole) // 2
    path.write_bytes(whole[:half] + bytes(1000) + whole[half + 1000 :])
    assert refusal(capsys, source, tmp_path) == told


@each_table
def test_text_in_another_encoding_is_named(source, table, tmp_path, capsys):
    header, row, *rows = rows_of(source, table)
    rows = [header, ["sårbehandling"] * len(row), *rows]
    path = write(folder_of(source, tmp_path), table, rows, encoding="latin-1")
    told = refusal(capsys, source, tmp_path)
    assert told.startswith(f"{path}, row 2 (the header is row 1): is not UTF-8; expected that; ")
    assert "iconv -f WINDOWS-1252 -t UTF-8" in told
    write(tmp_path, table, rows, encoding="utf-16")
    told = refusal(capsys, source, tmp_path)
    assert told.startswith(f"{path}, row 1: is UTF-16; expected UTF-8; convert the file: `iconv")


@each_source
def test_an_age_below_zero_is_counted(source, tmp_path, capsys):
    table, column, value = {
        "tables": ("contacts", "age", "-4"),
        "mimic4": ("hosp/patients", "anchor_year", "2213"),
        # A year and more after the first contact, less than a year after the second.
        "mimic3": ("PATIENTS", "dob", "2151-03-02"),
        "omop": ("person", "year_of_birth", "2152"),
    }[source]
    edited(folder_of(source, tmp_path), source, table, column, value)
    counted(capsys, source, tmp_path, "contacts.age: outside 0-130 years (emptied)")
    assert contacts(source, tmp_path)[0].age is None


@each_source
def test_an_end_before_the_start_is_counted(source, tmp_path, capsys):
    column = {"tables": "end", "omop": "visit_end_datetime"}.get(source, "dischtime")
    table = CONTACTS[source]
    edited(folder_of(source, tmp_path), source, table, column, "2150-02-01 00:00:00")
    counted(capsys, source, tmp_path, "contacts.end: before its start (kept)")
    assert contacts(source, tmp_path)[0].end == "2150-02-01T00:00:00"


@each_source
def test_a_result_of_another_time_than_its_contacts_is_counted(source, tmp_path, capsys):
    column = {"tables": "time", "omop": "measurement_datetime"}.get(source, "charttime")
    for time, reason in (
        ("2150-02-28 09:59:59", "before the contact's start"),
        ("2150-03-05 12:00:01", "after the contact's end"),
    ):
        edited(folder_of(source, tmp_path), source, LABS[source], column, time)
        counted(capsys, source, tmp_path, f"labs.time: more than a day {reason} (kept)")
    for time in ("2150-02-28 10:00:00", "2150-03-05 12:00:00"):
        edited(folder_of(source, tmp_path), source, LABS[source], column, time)
        check(source, tmp_path, "--strict")


@pytest.mark.parametrize(("system", "shown"), [("icd11", "'icd11'"), ("Jensen", "(not shown)")])
def test_a_code_of_no_known_system_is_counted(system, shown, tmp_path, capsys):
    edited(folder_of("tables", tmp_path), "tables", "codes", "system", system)
    check("tables", tmp_path)
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "unknown system" in line)
    assert f"1 × codes: unknown system {shown}; expected icd" in line
    assert line.endswith("such as contact_id '20'") and "Jensen" not in out
    told = refusal(capsys, "tables", tmp_path, "--strict")
    assert told.startswith(f"--strict: 1 × codes: unknown system {shown}; expected icd")


@pytest.mark.parametrize(
    ("source", "option", "named"),
    [("tables", "system", "tables: system"), ("omop", "vocabulary", "omop: vocabulary")],
)
def test_an_option_of_no_known_system_is_named(source, option, named, tmp_path, capsys):
    folder_of(source, tmp_path)
    told = refusal(capsys, source, tmp_path, "--option", f"{option}=icd11")
    assert f"{named}: unknown code system 'icd11': expected one of icd10, " in told


@each_source
def test_two_contacts_of_one_id_are_refused(source, tmp_path, capsys):
    rows = rows_of(source, CONTACTS[source])
    path = write(folder_of(source, tmp_path), CONTACTS[source], [*rows, rows[1]])
    assert refusal(capsys, source, tmp_path) == (
        f"{path}: contact_id '20' stands in 2 rows; expected one row a contact; remove the others, "
        "or give each an id of its own"
    )


@each_source
def test_a_patient_in_two_splits_is_refused(source, tmp_path, capsys):
    folder_of(source, tmp_path)
    rows = [["contact_id", "split"], ["20", "train"], ["21", "test"], ["22", "val"]]
    path = write(tmp_path, "splits", rows)
    more = [] if source == "tables" else ["--option", f"splits={path}"]
    assert refusal(capsys, source, tmp_path, *more) == (
        f"{path}: contact_id '21' is in test, and '20' of the same patient in train; a split is by "
        "patient: give each patient one"
    )
    if source != "tables":
        splits = pa.table({"hadm_id": [20, 21, 22], "split": ["train", "test", "val"]})
        feather.write_feather(splits, str(tmp_path / "splits.feather"))
        more = ["--option", f"splits={tmp_path / 'splits.feather'}"]
        assert "is in test, and '20' of the same patient in train" in refusal(
            capsys, source, tmp_path, *more
        )


@each_source
def test_no_contacts_at_all_is_one_line(source, tmp_path, capsys):
    write(folder_of(source, tmp_path), CONTACTS[source], rows_of(source, CONTACTS[source])[:1])
    assert "no contacts in any split; expected some" in refusal(capsys, source, tmp_path)


def not_utf8(texts):
    """Bytes that the file says are text, as writers that do not check leave them."""
    bad = pa.array([text.encode("latin-1") for text in texts], pa.binary())
    return pa.Array.from_buffers(pa.string(), len(bad), bad.buffers())


@pytest.mark.parametrize("said_to_be", ["text", "bytes"])
def test_parquet_in_another_encoding_is_named(said_to_be, tmp_path, capsys):
    folder_of("tables", tmp_path)
    (tmp_path / "notes.csv").unlink()
    text = not_utf8(["secret sår"])
    table = {"contact_id": ["20"], "time": [None], "kind": [None]}
    table["text"] = text if said_to_be == "text" else text.cast(pa.binary())
    parquet.write_table(pa.table(table), tmp_path / "notes.parquet")
    told = refusal(capsys, "tables", tmp_path)
    assert told.startswith(f"{tmp_path / 'notes.parquet'}: a column of text is not UTF-8; expected")
    assert "decode it before it is written" in told


def test_text_that_parquet_has_as_bytes_is_read(tmp_path):
    folder_of("tables", tmp_path)
    (tmp_path / "notes.csv").unlink()
    columns = {
        "contact_id": b"20",
        "time": b"2150-03-01",
        "kind": b"\xc3\xb8",
        "text": "så \\".encode(),
    }
    parquet.write_table(
        pa.table({key: [x] for key, x in columns.items()}), tmp_path / "notes.parquet"
    )
    (note,) = contacts("tables", tmp_path)[0].notes
    assert (note.text, note.kind, note.time) == ("så \\", "ø", "2150-03-01T00:00:00")


def test_the_file_of_a_message_is_not_taken_from_a_row(tmp_path, capsys):
    """DuckDB quotes the row that it cannot read, which may hold anything."""
    folder_of("tables", tmp_path)
    other = tmp_path / "codes.csv"
    path = write(
        tmp_path,
        "notes",
        [["contact_id", "time", "kind", "text"], ["20", "", f"\n  file = {other}"]],
    )
    assert refusal(capsys, "tables", tmp_path).startswith(f"{path}, row 2")


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        ("labs", "99,,7,Hb,5,,,,", "labs: contact_id not in contacts"),
        ("notes", ",,,secret", "notes: no contact_id"),
        ("codes", "20,DX1.2,icd10,,", "codes: malformed icd10 code"),
        ("codes", "20,i10,icd10,,", "codes: code repeated in its contact"),
        ("notes", None, "notes: row repeated in its contact (kept)"),
        ("medications", None, "medications: row repeated in its contact (kept)"),
        ("labs", None, "labs: row repeated in its contact (kept)"),
        ("notes", "20,,,secret s\ufffdr", "notes.text: has U+FFFD, where an earlier conversion"),
        ("notes", "20,2149-01-01,,secret", "notes.time: more than a day before the contact's"),
        ("notes", "20,2152-01-01,,secret", "notes.time: more than a day after the contact's end"),
        ("labs", "20,soon,7,Hb,5,,,,", "labs.time: no time such as"),
    ],
)
def test_strict_makes_an_error_of_each_finding(table, row, reason, tmp_path, capsys):
    rows = rows_of("tables", table)
    more = row.split(",") if row else rows[1]
    write(folder_of("tables", tmp_path), table, [*rows, more])
    check("tables", tmp_path)
    out = capsys.readouterr().out
    assert f"1 × {reason}" in out and "secret" not in out
    assert ("failed codes: icd10 DX1.2 (1)" in out) == ("malformed" in reason)
    told = refusal(capsys, "tables", tmp_path, "--strict")
    assert told.startswith(f"--strict: 1 × {reason}") and told.endswith("or leave out --strict")
