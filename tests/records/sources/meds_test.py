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
def test_the_same_contacts_come_back(tmp_path, cohort, ids):
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
