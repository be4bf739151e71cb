"""MEDS: the synthetic cohort, and the MIMIC-IV demo, written as MEDS data sets must come back."""

import collections
import csv
import dataclasses
import datetime
import gzip

import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxcoder.errors import UserError
from jaxcoder.records.schema import Code, Lab, Medication, Note
from jaxcoder.records.sources import open_source

EVENT = {
    "subject_id": pa.int64(),
    "time": pa.timestamp("us"),
    "code": pa.string(),
    "numeric_value": pa.float32(),
    "text_value": pa.large_string(),
    "hadm_id": pa.int64(),
    "route": pa.string(),
}
"""The columns of MIMIC-IV_MEDS that are read, of their types."""
T0 = datetime.datetime(2150, 3, 1)


def day(number, hour=0):
    return T0 + datetime.timedelta(days=number, hours=hour)


def at(text):
    return datetime.datetime.fromisoformat(text) if text else None


def meds(folder, shards, described=None, splits=None, without=()):
    """Writes events, tuples (subject, time, code, dict of the rest), as a data set."""
    for name, events in shards.items():
        path = folder / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"subject_id": subject, "time": time, "code": code, **more}
            for subject, time, code, more in events
        ]
        rows.sort(key=lambda row: (row["subject_id"], row["time"] or datetime.datetime.min))
        schema = pa.schema([(key, kind) for key, kind in EVENT.items() if key not in without])
        parquet.write_table(pa.Table.from_pylist(rows, schema), path)
    (folder / "metadata").mkdir()
    if described is not None:
        table = pa.table(
            {
                "code": pa.array(described.keys(), pa.string()),
                "description": pa.array(described.values(), pa.string()),
                "parent_codes": pa.nulls(len(described), pa.list_(pa.string())),
            }
        )
        # A code may have several rows.
        table = pa.concat_tables([table, table])
        parquet.write_table(table, folder / "metadata" / "codes.parquet")
    if splits is not None:
        table = pa.table({"subject_id": list(splits), "split": list(splits.values())})
        parquet.write_table(table, folder / "metadata" / "subject_splits.parquet")
    return folder


def contacts(source):
    return {each.contact_id: each for split in source.splits for each in source.contacts(split)}


def dropped(source):
    counts = collections.Counter()
    for split in ("", *source.splits):
        counts.update(source.dropped(split))
    return dict(counts)


def stay(subject, start, end, hadm=None, code="I10", ward="Medicine"):
    """The events of an admission with one diagnosis."""
    more = {} if hadm is None else {"hadm_id": hadm}
    return [
        (subject, start, "HOSPITAL_ADMISSION//URGENT//UNK", more),
        (subject, start, f"TRANSFER_TO//admit//{ward}", more),
        (subject, end, f"DIAGNOSIS//ICD//10//{code}", more),
        (subject, end, "HOSPITAL_DISCHARGE//HOME", more),
        (subject, end, "TRANSFER_TO//discharge//UNK", more),
    ]


@pytest.fixture(scope="module")
def cohort():
    source = open_source("synthetic", None, {"patients": "25"})
    return [
        (split, contact)
        for split in ("train", "validation", "test")
        for contact in source.contacts(split)
    ]


def of_cohort(folder, cohort, ids):
    """Writes contacts; gives the contact_id, and the birth, of each."""
    subjects, births, described, splits = {}, {}, {}, {}
    shards = collections.defaultdict(list)
    expected = []
    for number, (split, contact) in enumerate(cohort, start=1):
        subject = subjects.setdefault(contact.patient_id, len(subjects) + 1)
        splits[subject] = {"validation": "tuning", "test": "held_out"}.get(split, split)
        shard = shards[f"{splits[subject]}/{subject % 3}"]
        more = {"hadm_id": number} if ids else {}
        start, end = at(contact.start), at(contact.end)
        if subject not in births:
            births[subject] = start.replace(year=start.year - int(contact.age), month=1, day=1)
            shard.append((subject, births[subject], "MEDS_BIRTH", {}))
            shard.append((subject, None, f"GENDER//{contact.sex}", {}))
        events = [
            (start, "HOSPITAL_ADMISSION//URGENT//UNK", {}),
            (start, f"TRANSFER_TO//transfer//{contact.specialty}", {}),
            (end, "HOSPITAL_DISCHARGE//HOME", {}),
        ]
        for code in contact.codes:
            name = f"DIAGNOSIS//ICD//10//{code.code.replace('.', '')}"
            described[name] = f"about {code.code}"
            events.append((end, name, {}))
        for note in contact.notes:
            events.append((at(note.time), f"NOTE//{note.kind}", {"text_value": note.text}))
        for lab in contact.labs:
            name = f"LAB//RESULT//{lab.code}//{lab.unit or 'UNK'}"
            described[name] = f"{lab.name}\nits second name"
            events.append((at(lab.time), name, {"text_value": lab.value}))
        shard += [(subject, time, name, {**rest, **more}) for time, name, rest in events]
        for row in contact.medications:
            # The events of pharmacy have no hadm_id in MIMIC-IV_MEDS.
            name = f"MEDICATION//START//{row.code}"
            described[name] = row.name
            shard.append((subject, at(row.time), name, {"route": row.route}))
        expected.append((contact, str(number), subject, births[subject]))
    meds(folder, shards, described, splits, () if ids else ("hadm_id",))
    assert len(shards) > 5
    return expected


@pytest.mark.parametrize("ids", [True, False])
def test_the_same_contacts_come_back(tmp_path, cohort, ids, way):
    expected = of_cohort(tmp_path, cohort, ids)
    source = open_source("meds", tmp_path, {})
    found = contacts(source)
    seen = collections.Counter()
    for contact, contact_id, subject, birth in sorted(expected, key=lambda row: row[0].start):
        seen[subject] += 1
        ours = found.pop(contact_id if ids else f"{subject}-{seen[subject]}")
        start = at(contact.start)
        age = start.year - birth.year - (start.timetuple()[1:] < birth.timetuple()[1:])
        assert (ours.patient_id, ours.age) == (str(subject), age)
        for key in ("start", "end", "specialty", "sex"):
            assert getattr(ours, key) == getattr(contact, key)
        assert ours.notes == contact.notes
        # MEDS has no doses, no reference ranges and flags, and no roles of codes.
        assert sorted(map(repr, ours.medications)) == sorted(
            repr(dataclasses.replace(row, dose="")) for row in contact.medications
        )
        assert sorted(map(repr, ours.labs)) == sorted(
            repr(dataclasses.replace(row, low=None, high=None, flag="")) for row in contact.labs
        )
        assert ours.codes == tuple(Code(code.code, "icd10cm") for code in contact.codes)
    assert not found
    assert dropped(source) == {}
    for split in source.splits:
        ours = {each.patient_id for each in source.contacts(split)}
        assert ours == {str(row[2]) for row, (name, _) in zip(expected, cohort, strict=True)
                        if name == split}  # fmt: skip
    codes = {code.code for contact, *_ in expected for code in contact.codes}
    assert source.descriptions == {code: f"about {code}" for code in codes}


def labs_at(subject, times, **more):
    """A laboratory result at each time, whose value tells which it is."""
    return [
        (subject, time, "LAB//RESULT//50931//mg/dL", {"numeric_value": float(place), **more})
        for place, time in enumerate(times)
    ]


def written(contact):
    return [code.code for code in contact.codes]


def values(found):
    return {key: [lab.value for lab in each.labs] for key, each in found.items()}


def test_events_without_ids_go_to_the_contact_that_holds_their_time(tmp_path, way):
    times = [day(-1), day(0), day(4), day(5), day(6), day(8), day(20), day(30), None]
    events = [
        *stay(1, day(0), day(4), code="I10"),
        *stay(1, day(4), day(6), code="I11"),  # readmitted at the time of discharge
        *stay(1, day(20), day(40), code="I12")[:3],  # not discharged yet
        (1, day(30), "DIAGNOSIS//ICD//10//I13", {}),
        *labs_at(1, times),
    ]
    meds(tmp_path, {"0": events}, without=["hadm_id"])
    source = open_source("meds", tmp_path, {})
    found = contacts(source)
    assert values(found) == {"1-1": ["1", "2"], "1-2": ["3", "4"], "1-3": ["6", "7"]}
    assert {key: [code.code for code in each.codes] for key, each in found.items()} == {
        "1-1": ["I10"],
        "1-2": ["I11"],
        "1-3": ["I13", "I12"],
    }
    assert (found["1-3"].start, found["1-3"].end) == ("2150-03-21T00:00:00", "")
    assert dropped(source) == {
        "contacts: admission without a discharge (kept)": 1,
        "labs: no contact_id": 3,
    }


def test_of_contacts_that_overlap_an_event_goes_to_the_latest_and_an_id_comes_first(tmp_path, way):
    times = [day(1), day(3), day(4), day(5), day(7), day(11)]
    events = [
        *stay(1, day(0), day(10), 70, code="I10"),
        *stay(1, day(3), day(5), 60, code="I11"),
        *labs_at(1, times),
        *labs_at(1, [day(4)], hadm_id=70, text_value="of 70"),
        *labs_at(2, [day(4)]),
    ]
    meds(tmp_path, {"a/b/c": events})
    source = open_source("meds", tmp_path, {})
    assert values(contacts(source)) == {"60": ["1", "2", "3"], "70": ["0", "of 70", "4"]}
    assert dropped(source) == {
        "contacts: begins within another of its patient (kept)": 1,
        "labs: no contact_id": 2,
    }


def test_what_is_odd_about_admissions_and_discharges_is_counted(tmp_path, way):
    discharges = [(1, day(n), "HOSPITAL_DISCHARGE//HOME", {}) for n in (0, 5)]
    events = [
        *discharges,
        *stay(1, day(1), day(2))[:2],
        *stay(1, day(3), day(4)),
        *stay(1, day(7), day(7)),  # of no length
        *labs_at(1, [day(2), day(5), day(6), day(7)]),
        (1, day(8), "HOSPITAL_ADMISSION_REQUEST//URGENT", {}),
    ]
    meds(tmp_path, {"0": events}, without=["hadm_id"])
    source = open_source("meds", tmp_path, {"keep_uncoded": "true"})
    found = contacts(source)
    assert {key: (each.start[:10], each.end[:10]) for key, each in found.items()} == {
        "1-1": ("2150-03-02", ""),
        "1-2": ("2150-03-04", "2150-03-05"),
        "1-3": ("2150-03-08", "2150-03-08"),
    }
    assert values(found) == {"1-1": ["0"], "1-2": [], "1-3": ["3"]}
    assert dropped(source) == {
        "contacts: admission without a discharge (kept)": 1,
        "contacts: discharge without an admission of its own": 2,
        "labs: no contact_id": 2,
    }
    source = open_source("meds", tmp_path, {})
    assert list(contacts(source)) == ["1-2", "1-3"]
    assert dropped(source)["contacts: no code of the kind that is asked for"] == 1


def test_ids_join_admission_and_discharge(tmp_path, way):
    events = [
        *stay(1, day(0), day(1), 5),
        (1, day(0, 1), "HOSPITAL_ADMISSION//URGENT//UNK", {"hadm_id": 5}),
        (1, day(2), "HOSPITAL_DISCHARGE//DIED", {"hadm_id": 5}),
        (1, day(3), "HOSPITAL_DISCHARGE//HOME", {"hadm_id": 6}),
        (1, day(4), "HOSPITAL_ADMISSION//URGENT//UNK", {}),  # of no id: 1-1
        *labs_at(1, [day(9)], hadm_id=6),
        *labs_at(1, [day(9)], hadm_id=5),
    ]
    meds(tmp_path, {"0": events})
    source = open_source("meds", tmp_path, {})
    assert values(contacts(source)) == {"5": ["0"]}
    assert dropped(source) == {
        "contacts: admission repeated in its contact": 1,
        "contacts: admission without a discharge (kept)": 1,
        "contacts: discharge without an admission of its own": 2,
        "contacts: no code of the kind that is asked for": 1,
        "labs: contact_id not in contacts": 1,
        "labs.time: more than a day after the contact's end (kept)": 1,
    }


def test_a_coded_event_may_come_late_if_that_is_asked_for(tmp_path, way):
    late = [(1, day(1, 2), "DIAGNOSIS//ICD//10//E119", {}), *labs_at(1, [day(1, 2)])]
    meds(tmp_path, {"0": [*stay(1, day(0), day(1)), *late]}, without=["hadm_id"])
    source = open_source("meds", tmp_path, {"grace_hours": "1.5"})
    assert [code.code for code in contacts(source)["1-1"].codes] == ["I10"]
    assert dropped(source) == {"codes: no contact_id or no code": 1, "labs: no contact_id": 1}
    source = open_source("meds", tmp_path, {"grace_hours": "2"})
    assert [code.code for code in contacts(source)["1-1"].codes] == ["I10", "E11.9"]
    assert dropped(source) == {"labs: no contact_id": 1}


def test_an_admission_in_full(tmp_path, way):
    events = [
        (1, None, "GENDER//F", {}),
        (1, datetime.datetime(2088, 3, 2), "MEDS_BIRTH", {}),
        *stay(1, day(0, 10), day(3), 20, code="I2510"),
        (1, day(1), "TRANSFER_TO//transfer//CCU", {"hadm_id": 20}),
        (1, day(3), "PROCEDURE//ICD//10//02703DZ", {"hadm_id": 20}),
        (1, day(3), "PROCEDURE//ICD//9//0040", {"hadm_id": 20}),
        (1, day(1), "MEDICATION//START//Aspirin", {"route": "PO"}),
        (1, day(2), "MEDICATION//START//B01AC06", {}),
        (1, day(1), "MEDICATION//Aspirin//Administered", {"hadm_id": 20}),
        (1, day(1), "LAB//RESULT//50931//mg/dL", {"numeric_value": 412.0}),
        (1, day(2), "LAB//RESULT//50931//UNK", {"numeric_value": 6.1, "text_value": ""}),
        (1, day(2, 1), "LAB//RESULT//7//10^9//L", {"numeric_value": 3.0, "text_value": ">3"}),
        (1, day(2, 2), "LAB//RESULT//8//", {"numeric_value": float("nan")}),
        (1, day(2), "LAB//SPECIMEN_COLLECTED//50931", {"hadm_id": 20}),
        (1, day(2), "LAB//220045//bpm", {"numeric_value": 80.0}),
        (1, day(2), "NOTE//Radiology", {"text_value": "Clear lungs.\n"}),
    ]
    described = {
        "MEDICATION//START//B01AC06": "acetylsalicylic acid",
        "LAB//RESULT//50931//mg/dL": "Glucose\nGlucose in blood",
        "DIAGNOSIS//ICD//10//I2510": "Atherosclerosis",
        "DIAGNOSIS//ICD//10//NotACode": "Nothing",
        "DIAGNOSIS//ICD//9//0389": "Septicemia",
    }
    meds(tmp_path, {"0": events}, described)
    source = open_source("meds", tmp_path, {})
    contact = contacts(source)["20"]
    assert (contact.sex, contact.age, contact.specialty) == ("F", 61.0, "CCU")
    assert contact.codes == (Code("I25.10", "icd10cm"), Code("02703DZ", "icd10pcs"))
    assert contact.medications == (
        Medication("", "Aspirin", "", "PO", "2150-03-02T00:00:00"),
        Medication("B01AC06", "acetylsalicylic acid", "", "", "2150-03-03T00:00:00"),
    )
    assert contact.labs == (
        Lab("50931", "Glucose", "412", "mg/dL", time="2150-03-02T00:00:00"),
        Lab("50931", "", "6.1", "", time="2150-03-03T00:00:00"),
        Lab("7", "", ">3", "10^9//L", time="2150-03-03T01:00:00"),
        Lab("8", "", "", "", time="2150-03-03T02:00:00"),
    )
    assert contact.notes == (Note("Clear lungs.\n", "radiology", "2150-03-03T00:00:00"),)
    assert dropped(source) == {}
    assert source.descriptions == {"I25.10": "Atherosclerosis"}


def test_other_names_of_codes_and_other_columns(tmp_path, way):
    def event(time, code):
        return {"subject_id": 3, "time": time, "code": code, "visit": "v1"}

    rows = [
        event(day(0), "Visit/IP"),
        event(day(1), "ICD9CM/0389"),
        event(day(1), "ICD10CM/A419"),
        event(day(2), "Visit_end/IP"),
    ]
    (tmp_path / "data").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "0.parquet")
    options = {
        "admission": "Visit/",
        "discharge": "Visit_end/",
        "codes": "ICD9CM/=icd9cm,ICD10CM/=icd10cm",
        "contact_id": "visit",
        "labs": "",
    }
    source = open_source("meds", tmp_path, options)
    (contact,) = contacts(source).values()
    assert contact.contact_id == "v1"
    assert contact.codes == (Code("038.9", "icd9cm"), Code("A41.9", "icd10cm"))
    assert (contact.labs, contact.notes, contact.medications) == ((), (), ())
    with pytest.raises(UserError, match="data: column stay_id is missing; found subject_id"):
        open_source("meds", tmp_path, {**options, "contact_id": "stay_id"}).splits  # noqa: B018


def test_files_may_differ_in_the_columns_that_are_not_compulsory(tmp_path, way):
    meds(tmp_path, {"train/0": [*stay(1, day(0), day(1), 5), *labs_at(1, [day(0)])]})
    schema = {key: EVENT[key] for key in ("code", "time", "subject_id", "hadm_id")}
    rows = [{"subject_id": s, "time": t, "code": c, **m} for s, t, c, m in stay(2, T0, T0, 6)]
    table = pa.Table.from_pylist(rows, pa.schema(list(schema.items())))
    parquet.write_table(table, tmp_path / "data" / "train" / "1.parquet")
    source = open_source("meds", tmp_path, {})
    assert values(contacts(source)) == {"5": ["0"], "6": []}


def test_codes_may_have_no_descriptions(tmp_path, way):
    events = [*stay(1, day(0), day(1), 5), (1, day(0), "MEDICATION//START//Aspirin", {})]
    meds(tmp_path, {"0": [*events, *labs_at(1, [day(0)])]})
    table = pa.table({"code": ["DIAGNOSIS//ICD//10//I10", "MEDICATION//START//Aspirin"]})
    parquet.write_table(table, tmp_path / "metadata" / "codes.parquet")
    source = open_source("meds", tmp_path, {})
    (contact,) = contacts(source).values()
    assert [(row.code, row.name) for row in contact.medications] == [("", "Aspirin")]
    assert [(row.code, row.name) for row in contact.labs] == [("50931", "")]
    assert source.descriptions == {}


def test_admissions_without_an_id_are_numbered_where_others_have_one(tmp_path, way):
    events = [
        *stay(1, day(0), day(1), code="I10"),
        *stay(1, day(2), day(3), 7, code="I11"),
        *stay(1, day(10), day(11), code="I12"),
        *stay(2, day(0), day(1), code="I13"),
        *labs_at(1, [day(0), day(2), day(10)]),
    ]
    meds(tmp_path, {"0": events})
    source = open_source("meds", tmp_path, {})
    found = contacts(source)
    assert values(found) == {"1-1": ["0"], "7": ["1"], "1-2": ["2"], "2-1": []}
    assert {key: written(each) for key, each in found.items()} == {
        "1-1": ["I10"],
        "7": ["I11"],
        "1-2": ["I12"],
        "2-1": ["I13"],
    }
    assert (found["1-2"].start[:10], found["1-2"].end[:10]) == ("2150-03-11", "2150-03-12")
    assert dropped(source) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codes": "DIAGNOSIS"}, "codes = 'DIAGNOSIS': expected PREFIX=SYSTEM"),
        ({"codes": "D=icd11"}, "unknown code system 'icd11'"),
        ({"admission": ""}, "admission is empty"),
        ({"grace_hours": "-1"}, "grace_hours = -1.0: expected 0 or more"),
        ({"labs": 3}, "meds.labs = 3: expected a list"),
    ],
)
def test_wrong_options_name_the_key(tmp_path, options, message):
    meds(tmp_path, {"0": stay(1, day(0), day(1))})
    with pytest.raises(UserError, match=message):
        open_source("meds", tmp_path, options)


def test_mistakes_in_the_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no .parquet file below data/; expected the folder of"):
        open_source("meds", tmp_path, {})
    events = [(1, day(0), "VISIT//Mr Smith", {"text_value": "Mr Smith"})] * 3
    events += [(1, day(1), "DIAGNOSIS//ICD//10//I10", {}), (1, day(1), "Mr Smith", {})]
    meds(tmp_path, {"train/0": events, "train/1": stay(2, day(0), day(1))[1:]})
    with pytest.raises(UserError) as error:
        open_source("meds", tmp_path, {}).splits  # noqa: B018
    assert "no event has a code of admission = HOSPITAL_ADMISSION; found codes" in str(error.value)
    assert "VISIT (3), DIAGNOSIS (2), TRANSFER_TO (2), HOSPITAL_DISCHARGE (1);" in str(error.value)
    assert "Smith" not in str(error.value) and "\n" not in str(error.value)
    path = tmp_path / "data" / "train" / "1.parquet"
    table = parquet.read_table(path)
    whole = path.read_bytes()
    for change, message in (
        (lambda: parquet.write_table(table.drop_columns("code"), path), "column code is missing"),
        (
            lambda: parquet.write_table(table.set_column(1, "time", table["subject_id"]), path),
            "column time is int64; expected timestamp",
        ),
        (lambda: path.write_bytes(whole[: len(whole) // 2]), "cannot be read; expected Parquet"),
    ):
        change()
        with pytest.raises(UserError, match=rf"train/1.parquet: {message}"):
            open_source("meds", tmp_path, {}).splits  # noqa: B018
    path.write_bytes(whole)
    (tmp_path / "metadata" / "codes.parquet").write_bytes(whole[:99])
    with pytest.raises(UserError, match=r"metadata/codes.parquet: cannot be read"):
        open_source("meds", tmp_path, {}).splits  # noqa: B018


def test_a_split_that_is_unknown_is_refused_and_one_of_the_user_comes_first(tmp_path):
    events = [*stay(1, day(0), day(1), 5), *stay(2, day(0), day(1), 6)]
    meds(tmp_path, {"0": events}, splits={1: "train", 2: "cross"})
    with pytest.raises(UserError, match=r"subject_splits.parquet: unknown split 'cross'"):
        open_source("meds", tmp_path, {}).splits  # noqa: B018
    own = tmp_path / "own.csv"
    own.write_text("hadm_id,split\n5,test\n6,val\n")
    source = open_source("meds", tmp_path, {"splits": str(own)})
    assert [each.contact_id for each in source.contacts("test")] == ["5"]


def table_of(path):
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_mimic4_demo_as_its_etl_writes_it_is_what_mimic4_reads(shared_data, tmp_path):
    hosp = shared_data / "mimic4_demo" / "hosp"
    events, described, ends, held = [], {}, {}, collections.defaultdict(list)
    for row in table_of(hosp / "patients.csv.gz"):
        subject, year = int(row["subject_id"]), int(row["anchor_year"]) - int(row["anchor_age"])
        events.append((subject, None, f"GENDER//{row['gender']}", {}))
        events.append((subject, datetime.datetime(year, 1, 1), "MEDS_BIRTH", {}))
    for row in table_of(hosp / "admissions.csv.gz"):
        subject, start, end = int(row["subject_id"]), at(row["admittime"]), at(row["dischtime"])
        more = {"hadm_id": int(row["hadm_id"])}
        kind, place = row["admission_type"], row["admission_location"] or "UNK"
        events.append((subject, start, f"HOSPITAL_ADMISSION//{kind}//{place}", more))
        leaves = row["discharge_location"] or "UNK"
        events.append((subject, end, f"HOSPITAL_DISCHARGE//{leaves}", more))
        ends[row["hadm_id"]] = end
        held[subject].append((start, end))
    titles = {
        (row["icd_version"], row["icd_code"]): row["long_title"]
        for row in table_of(hosp / "d_icd_diagnoses.csv.gz")
    }
    for row in table_of(hosp / "diagnoses_icd.csv.gz"):
        name = f"DIAGNOSIS//ICD//{row['icd_version']}//{row['icd_code']}"
        described[name] = titles[row["icd_version"], row["icd_code"]]
        more = {"hadm_id": int(row["hadm_id"])}
        events.append((int(row["subject_id"]), ends[row["hadm_id"]], name, more))
    labels = {row["itemid"]: row["label"] for row in table_of(hosp / "d_labitems.csv.gz")}
    by_time = 0
    for row in table_of(hosp / "labevents.csv.gz"):
        name = f"LAB//RESULT//{row['itemid']}//{row['valueuom'] or 'UNK'}"
        described[name] = labels.get(row["itemid"])
        subject, time = int(row["subject_id"]), at(row["charttime"])
        more = {"text_value": row["value"] or None}
        more["numeric_value"] = float(row["valuenum"]) if row["valuenum"] else None
        more["hadm_id"] = int(row["hadm_id"]) if row["hadm_id"] else None
        by_time += not row["hadm_id"] and any(a <= time <= b for a, b in held[subject])
        events.append((subject, time, name, more))
    shards = collections.defaultdict(list)
    for event in events:
        shards[f"all/{event[0] % 4}"].append(event)
    source = open_source("meds", meds(tmp_path, shards, described), {})
    found = contacts(source)
    theirs = open_source("mimic4", hosp.parent, {})
    expected = contacts(theirs)
    assert found.keys() == expected.keys() and len(found) == 123
    more = 0
    for key, contact in expected.items():
        ours = found[key]
        # mimic4 has 91 for all of more than 89 years.
        assert (91 if ours.age > 89 else ours.age) == contact.age
        for name in ("patient_id", "start", "end", "sex"):
            assert getattr(ours, name) == getattr(contact, name)
        assert {code.code for code in ours.codes} == {code.code for code in contact.codes}
        labs = collections.Counter(dataclasses.replace(lab, low=None, high=None, flag="")
                                   for lab in contact.labs)  # fmt: skip
        assert not labs - collections.Counter(ours.labs)
        more += len(ours.labs) - len(contact.labs)
    # Results without hadm_id that fall into an admission; mimic4 leaves those out.
    left = dropped(source)["labs: of contacts that are left out"]
    assert more + left == by_time + dropped(theirs)["labs: of contacts that are left out"]
    codes = {code.code for contact in expected.values() for code in contact.codes}
    assert source.descriptions == {code: theirs.descriptions[code] for code in codes}
