"""MIMIC-III and IV: the public demos against plain reading, and small folders made here."""

import collections
import csv
import gzip

import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from jaxcoder.errors import UserError
from jaxcoder.records.runner import Local
from jaxcoder.records.schema import Code, Lab, Medication, Note
from jaxcoder.records.sources import open_source

HOSP = {
    "admissions": [
        "subject_id,hadm_id,admittime,dischtime,admission_type",
        "1,20,2150-03-01 10:00:00,2150-03-04 12:00:00,EW EMER.",
        "1,21,2151-01-01 00:00:00,2151-01-02 00:00:00,URGENT",
        "2,22,2160-06-01 00:00:00,2160-06-02 00:00:00,",
    ],
    "patients": ["subject_id,gender,anchor_age,anchor_year", "1,F,60,2148", "2,M,91,2160"],
    "diagnoses_icd": [
        "subject_id,hadm_id,seq_num,icd_code,icd_version",
        "1,20,2,E119,10",
        "1,20,1,I2510,10",
        "1,21,1,0389,9",
        "2,22,1,I10,10",
    ],
    "procedures_icd": [
        "subject_id,hadm_id,seq_num,chartdate,icd_code,icd_version",
        "1,20,1,2150-03-02,02703DZ,10",
        "1,21,1,2151-01-01,0040,9",
    ],
    "services": [
        "subject_id,hadm_id,transfertime,prev_service,curr_service",
        "1,20,2150-03-03 00:00:00,MED,CMED",
        "1,20,2150-03-01 10:00:00,,MED",
    ],
    "prescriptions": [
        "subject_id,hadm_id,starttime,drug,ndc,dose_val_rx,dose_unit_rx,route",
        "1,20,2150-03-01 12:00:00,Aspirin,00536100,81,mg,PO",
        "1,20,2150-03-01 11:00:00,Water,0,,,IV",
    ],
    "labevents": [
        "labevent_id,subject_id,hadm_id,itemid,charttime,value,valuenum,valueuom,ref_range_lower,"
        "ref_range_upper,flag",
        "1,1,20,50931,2150-03-01 12:00:00,412,412,mg/dL,70,105,abnormal",
        "2,1,20,50912,2150-03-01 12:00:00,,1.1,mg/dL,0.4,1.1,",
        "3,1,,50912,2150-05-01 12:00:00,1.2,1.2,mg/dL,0.4,1.1,abnormal",
        "4,1,21,50912,2151-01-01 12:00:00,1.2,1.2,mg/dL,0.4,1.1,",
    ],
    "d_labitems": ["itemid,label,fluid,category", "50931,Glucose,Blood,Chemistry"],
}
NOTES = {
    "discharge": [
        "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text",
        '20-DS,1,20,DS,1,2150-03-04 00:00:00,,"Chest pain, 3 days.\nB12 given; 500 mg."',
    ],
    "radiology": [
        "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text",
        "20-RR,1,20,RR,1,2150-03-01 00:00:00,,Clear lungs.",
        "99-RR,1,,RR,1,2150-03-01 00:00:00,,Of no admission.",
    ],
}


def write(folder, tables, ending=".csv.gz", change=str):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in tables.items():
        text = change("\n".join([lines[0], *lines[1:]]) + "\n")
        if ending == ".parquet":
            rows = list(csv.DictReader(text.splitlines(keepends=True)))
            columns = {key: [row[key] or None for row in rows] for key in rows[0]}
            for key in columns:
                if key.lower() in ("subject_id", "hadm_id", "itemid", "seq_num", "icd_version"):
                    columns[key] = [None if x is None else int(x) for x in columns[key]]
            parquet.write_table(pa.table(columns), folder / f"{name}.parquet")
        elif ending == ".csv.gz":
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{name}{ending}").write_text(text)


@pytest.fixture
def mimic4(tmp_path):
    write(tmp_path / "hosp", HOSP)
    write(tmp_path / "note", NOTES)
    return tmp_path


def contacts(source):
    return {each.contact_id: each for split in source.splits for each in source.contacts(split)}


def dropped(source):
    counts = collections.Counter()
    for split in ("", *source.splits):
        counts.update(source.dropped(split))
    return dict(counts)


def test_an_admission_in_full(mimic4):
    source = open_source("mimic4", mimic4, {"notes": "discharge+radiology"})
    found = contacts(source)
    assert sorted(found) == ["20", "22"]
    contact = found["20"]
    assert (contact.patient_id, contact.sex, contact.age) == ("1", "F", 62.0)
    assert (contact.start, contact.end) == ("2150-03-01T10:00:00", "2150-03-04T12:00:00")
    assert (contact.specialty, contact.kind) == ("CMED", "EW EMER.")
    assert contact.codes == (
        Code("I25.10", "icd10cm", "primary", 1),
        Code("02703DZ", "icd10pcs", "primary", 1),
        Code("E11.9", "icd10cm", "secondary", 2),
    )
    assert contact.notes == (
        Note("Clear lungs.", "radiology", "2150-03-01T00:00:00"),
        Note("Chest pain, 3 days.\nB12 given; 500 mg.", "discharge", "2150-03-04T00:00:00"),
    )
    assert contact.medications == (
        Medication("", "Water", "", "IV", "2150-03-01T11:00:00"),
        Medication("00536100", "Aspirin", "81 mg", "PO", "2150-03-01T12:00:00"),
    )
    assert contact.labs == (
        Lab("50931", "Glucose", "412", "mg/dL", 70.0, 105.0, "A", "2150-03-01T12:00:00"),
        Lab("50912", "", "1.1", "mg/dL", 0.4, 1.1, "", "2150-03-01T12:00:00"),
    )
    assert (found["22"].age, found["22"].specialty, found["22"].labs) == (91.0, "", ())
    assert dropped(source) == {
        "contacts: no code of the kind that is asked for": 1,
        "labs: no contact_id": 1,
        "labs: of contacts that are left out": 1,
        "notes: no contact_id": 1,
    }


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize("upper", [False, True])
def test_every_form_of_the_files_reads_the_same(mimic4, tmp_path, ending, upper):
    expected = contacts(open_source("mimic4", mimic4, {}))
    other = tmp_path / "other"
    tables = {
        name.upper() if upper else name: [lines[0].upper() if upper else lines[0], *lines[1:]]
        for name, lines in HOSP.items()
    }
    write(other / "hosp", tables, ending)
    write(other / "note", NOTES, ending)
    assert contacts(open_source("mimic4", other, {})) == expected


def test_the_other_version_and_kinds_of_codes(mimic4):
    found = contacts(open_source("mimic4", mimic4, {"icd_version": "9"}))
    assert {key: [code.code for code in each.codes] for key, each in found.items()} == {
        "21": ["038.9", "00.40"]
    }
    assert found["21"].codes[0].system == "icd9cm"
    found = contacts(open_source("mimic4", mimic4, {"codes": "P"}))
    assert [code.code for code in found["20"].codes] == ["02703DZ"] and list(found) == ["20"]


def test_the_text_of_the_replication_study(mimic4):
    found = contacts(open_source("mimic4", mimic4, {"text": "replication"}))
    assert found["20"].notes[0].text == "chest pain days b12 given mg"


def test_rare_codes_of_all_splits_are_left_out_if_asked(mimic4):
    with gzip.open(mimic4 / "hosp" / "diagnoses_icd.csv.gz", "at") as file:
        file.write("2,22,2,E119,10\n")
    source = open_source("mimic4", mimic4, {"min_code_count_all_splits": "2"})
    codes = {key: [code.code for code in each.codes] for key, each in contacts(source).items()}
    assert codes == {"20": ["E11.9"], "22": ["E11.9"]}
    source = open_source("mimic4", mimic4, {"most_frequent_codes_all_splits": "1"})
    codes = {key: [code.code for code in each.codes] for key, each in contacts(source).items()}
    assert codes == {"20": ["E11.9"], "22": ["E11.9"]}


def test_codes_are_counted_over_the_contacts_of_the_splits_alone(mimic4, tmp_path):
    with gzip.open(mimic4 / "hosp" / "diagnoses_icd.csv.gz", "at") as file:
        file.write("2,22,2,E119,10\n")
        # Most of all, if those of no split counted.
        for number in range(90, 95):
            file.write(f"9,{number},1,Z00,10\n")
        file.write("1,20,3,Z00,10\n")
    header = HOSP["admissions"][0]
    with gzip.open(mimic4 / "hosp" / "admissions.csv.gz", "at") as file:
        for number in range(90, 95):
            row = {"subject_id": "9", "hadm_id": str(number)}
            file.write(",".join(row.get(name, "") for name in header.split(",")) + "\n")
    (tmp_path / "splits.csv").write_text("hadm_id,split\n20,train\n22,test\n")
    options = {"splits": str(tmp_path / "splits.csv"), "most_frequent_codes_all_splits": "1"}
    source = open_source("mimic4", mimic4, options)
    codes = {key: [code.code for code in each.codes] for key, each in contacts(source).items()}
    assert codes == {"20": ["E11.9"], "22": ["E11.9"]}
    # Of 20 the others, among them a procedure, and of 22 its first.
    assert dropped(source)["codes: too rare in all splits, as the options ask"] == 4
    again = source.parts(Local())[1]  # reading it a second time counts the same
    assert again["codes: too rare in all splits, as the options ask"] == 4


@pytest.mark.parametrize(
    ("options", "name"),
    [({"notes": "radiology"}, "note/radiology"), ({"codes": "DP"}, "hosp/procedures_icd")],
)
def test_what_is_asked_for_must_be_there(mimic4, options, name):
    (mimic4 / f"{name}.csv.gz").unlink()
    assert open_source("mimic4", mimic4, {}).splits
    with pytest.raises(UserError, match=f"no {name}.parquet or .*it is compulsory"):
        open_source("mimic4", mimic4, options)


@pytest.mark.parametrize(
    ("seq_num", "role"), [("1", "primary"), ("2", "secondary"), ("", "unknown")]
)
def test_the_role_comes_from_seq_num(mimic4, seq_num, role):
    path = mimic4 / "hosp" / "diagnoses_icd.csv.gz"
    path.write_bytes(
        gzip.compress(f"hadm_id,seq_num,icd_code,icd_version\n20,{seq_num},E119,10\n".encode())
    )
    found = contacts(open_source("mimic4", mimic4, {"codes": "D"}))
    assert [code.role for code in found["20"].codes] == [role]


@pytest.mark.parametrize("kind", ["feather", "csv", "lists"])
def test_published_splits(mimic4, tmp_path, kind):
    if kind == "feather":
        table = pa.table({"_id": [20, 22, 99], "split": ["train", "val", "test"]})
        feather.write_feather(table, str(tmp_path / "splits.feather"))
        path = tmp_path / "splits.feather"
    elif kind == "csv":
        path = tmp_path / "splits.csv"
        path.write_text("hadm_id,split\n20,train\n22,val\n99,test\n")
    else:
        path = tmp_path / "{}_ids.csv"
        for name, ids in {"train": "20\n", "dev": "22\n", "test": "99\n"}.items():
            (tmp_path / f"{name}_ids.csv").write_text(ids)
    source = open_source("mimic4", mimic4, {"splits": str(path)})
    assert source.splits == ("train", "validation")
    assert [each.contact_id for each in source.contacts("validation")] == ["22"]
    assert "published" in source.identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"icd_version": "8"}, "icd_version = 8: expected 9 or 10"),
        ({"codes": "X"}, "codes = 'X': expected one of D, P, DP"),
        ({"notes": "nursing"}, "notes = 'nursing': expected one of discharge"),
        ({"text": "x"}, "text = 'x': expected one of verbatim, replication"),
        ({"splits": "/nowhere.csv"}, "splits = /nowhere.csv: .* is not there"),
    ],
)
def test_wrong_options_name_the_key(mimic4, options, message):
    with pytest.raises(UserError, match=message):
        open_source("mimic4", mimic4, options)


def test_missing_files_and_columns_are_named(mimic4, tmp_path):
    (mimic4 / "hosp" / "labevents.csv.gz").write_bytes(gzip.compress(b"hadm_id,itemid\n20,1\n"))
    with pytest.raises(UserError, match=r"labevents.csv.gz: column charttime is missing"):
        open_source("mimic4", mimic4, {}).splits  # noqa: B018
    (mimic4 / "hosp" / "patients.csv.gz").unlink()
    with pytest.raises(UserError, match=r"no hosp/patients.parquet or hosp/patients.csv"):
        open_source("mimic4", mimic4, {})


def test_mimic3_reports_come_before_their_addenda(tmp_path):
    write(
        tmp_path,
        {
            "ADMISSIONS": [
                "ROW_ID,SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,ADMISSION_TYPE",
                "1,1,5,2150-03-01,,ELECTIVE",
            ],
            "PATIENTS": ["ROW_ID,SUBJECT_ID,GENDER,DOB", "1,1,M,1850-01-01"],
            "DIAGNOSES_ICD": ["ROW_ID,SUBJECT_ID,HADM_ID,SEQ_NUM,ICD9_CODE", "1,1,5,1,0389"],
            "NOTEEVENTS": [
                "ROW_ID,HADM_ID,CHARTDATE,CATEGORY,DESCRIPTION,TEXT",
                "1,5,2150-03-02,Discharge summary,Addendum,Second",  # dated before its report
                "2,5,2150-03-04,Discharge summary,Report,First",
                "3,5,2150-03-04,Nursing,Report,Not read",
                "4,5,2150-03-05,Discharge summary,Addendum,Third",
            ],
        },
        ".csv",
    )
    (contact,) = contacts(open_source("mimic3", tmp_path, {})).values()
    assert [note.text for note in contact.notes] == ["First", "Second", "Third"]
    assert [note.kind for note in contact.notes] == ["discharge", *["discharge addendum"] * 2]
    assert (contact.age, contact.codes) == (91.0, (Code("038.9", "icd9cm", "primary", 1),))
    assert contact.kind == "ELECTIVE"


def rows_of(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {key.lower(): value for key, value in row.items()}


LOST = {
    relation: {
        f"{relation}: {reason}"
        for reason in (
            "no contact_id",
            "no contact_id or no code",
            "contact_id not in contacts",
            "of contacts that are left out",
        )
    }
    for relation in ("codes", "labs", "medications")
}
"""Why a row is in no contact; other findings are of rows that are."""


def test_the_mimic4_demo_is_accounted_for(shared_data, way):
    folder = shared_data / "mimic4_demo"
    diagnoses = collections.defaultdict(set)
    for row in rows_of(folder / "hosp" / "diagnoses_icd.csv.gz"):
        if row["icd_version"] == "10":
            diagnoses[row["hadm_id"]].add(row["icd_code"].strip())
    labs = collections.Counter(row["hadm_id"] for row in rows_of(folder / "hosp/labevents.csv.gz"))
    assert sum(labs.values()) == 107_727
    source = open_source("mimic4", folder, {})
    found = contacts(source)
    assert len(found) == len(diagnoses) == 123
    for contact_id, contact in found.items():
        assert {code.code.replace(".", "") for code in contact.codes} == diagnoses[contact_id]
        assert len(contact.labs) == labs[contact_id]
    assert len({code.code for each in found.values() for code in each.codes}) == 734
    assert round(sum(len(each.codes) for each in found.values()) / 123, 1) == 18.8
    left = dropped(source)
    assert left["contacts: no code of the kind that is asked for"] == 275 - 123
    assert left["labs: no contact_id"] == labs[""]
    assert (
        sum(len(each.labs) for each in found.values())
        + sum(count for reason, count in left.items() if reason in LOST["labs"])
        == 107_727
    )


def test_the_mimic3_demo_is_accounted_for(shared_data, way):
    folder = shared_data / "mimic3_demo"
    source = open_source("mimic3", folder, {"codes": "D"})
    found = contacts(source)
    assert len(found) == 129
    left = dropped(source)
    for relation, table, total in (
        ("codes", "DIAGNOSES_ICD", 1761),
        ("medications", "PRESCRIPTIONS", 10_398),
    ):
        counts = collections.Counter(row["hadm_id"] for row in rows_of(folder / f"{table}.csv"))
        assert sum(counts.values()) == total
        for contact_id, contact in found.items():
            assert len(getattr(contact, relation)) == counts[contact_id]
        assert (
            sum(counts[contact_id] for contact_id in found)
            + sum(count for reason, count in left.items() if reason in LOST[relation])
            == total
        )


def test_mimic3_age_is_in_whole_years_and_unknown_without_a_birth(tmp_path):
    write(
        tmp_path,
        {
            "ADMISSIONS": [
                "SUBJECT_ID,HADM_ID,ADMITTIME,DISCHTIME,ADMISSION_TYPE",
                "1,5,2150-03-14,,",
                "1,6,2150-03-15,,",
                "2,7,2150-03-15,,",
            ],
            "PATIENTS": ["SUBJECT_ID,GENDER,DOB", "1,M,2132-03-15"],
            "DIAGNOSES_ICD": ["HADM_ID,SEQ_NUM,ICD9_CODE", "5,1,0389", "6,1,0389", "7,1,0389"],
        },
        ".csv",
    )
    found = contacts(open_source("mimic3", tmp_path, {}))
    assert {key: each.age for key, each in found.items()} == {"5": 17.0, "6": 18.0, "7": None}


def test_the_demos_describe_their_codes(shared_data):
    folder = shared_data / "mimic4_demo"
    titles = list(rows_of(folder / "hosp" / "d_icd_diagnoses.csv.gz"))
    for version in ("9", "10"):
        source = open_source("mimic4", folder, {"icd_version": version, "codes": "D"})
        plain = {code.replace(".", ""): title for code, title in source.descriptions.items()}
        assert plain == {
            row["icd_code"].strip(): row["long_title"]
            for row in titles
            if row["icd_version"] == version
        }
        for contact in contacts(source).values():
            assert all(code.code in source.descriptions for code in contact.codes)
    folder = shared_data / "mimic3_demo"
    expected = {}
    for kind, digits in (("PROCEDURES", 2), ("DIAGNOSES", 3)):
        for row in rows_of(folder / f"D_ICD_{kind}.csv"):
            code = row["icd9_code"]
            place = digits + code.startswith("E")
            expected[f"{code[:place]}.{code[place:]}".rstrip(".")] = row["long_title"]
    source = open_source("mimic3", folder, {})
    assert source.descriptions == expected
    assert (expected["003.1"], expected["00.31"]) == (
        "Salmonella septicemia",
        "Computer assisted surgery with CT/CTA",
    )


def test_titles_are_of_the_codes_asked_for_and_decide_identity(mimic4):
    assert open_source("mimic4", mimic4, {}).descriptions == {}
    before = open_source("mimic4", mimic4, {}).identity
    path = mimic4 / "hosp" / "d_icd_procedures.csv"
    path.write_text("icd_code,icd_version,long_title\n02703DZ,10,Dilation\n0040,9,Repair\n")
    source = open_source("mimic4", mimic4, {})
    assert source.descriptions == {"02703DZ": "Dilation"}
    assert source.identity["files"] != before["files"]
    assert open_source("mimic4", mimic4, {"codes": "D"}).descriptions == {}
    source = open_source("mimic4", mimic4, {"icd_version": "9"})
    assert source.descriptions == {"00.40": "Repair"}
    path.write_text("icd_code,icd_version\n0040,9\n")
    with pytest.raises(UserError, match=r"d_icd_procedures.csv: column long_title is missing"):
        open_source("mimic4", mimic4, {}).splits  # noqa: B018
