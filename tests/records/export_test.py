import dataclasses

from pyarrow import parquet

from jaxcoder.records import export
from jaxcoder.records.schema import Code, Contact, Evidence, Note
from jaxcoder.records.sources import open_source


def test_the_source_tables_reads_the_same_contacts_back(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_BATCH", 7)  # several row groups
    cohort = open_source("synthetic", None, {"patients": 40})
    made = {split: list(cohort.contacts(split)) for split in cohort.splits}
    export.write_tables(
        ((split, one) for split, contacts in made.items() for one in contacts), tmp_path
    )
    tables = open_source("tables", tmp_path, {"system": "icd10cm"})
    for split, contacts in made.items():
        assert contacts
        # The truth is no relation of an extract.
        found = sorted(tables.contacts(split), key=lambda contact: contact.contact_id)
        assert found == [dataclasses.replace(contact, conditions=()) for contact in contacts]
        assert not tables.dropped(split)
    truth = parquet.read_table(tmp_path / "conditions.parquet")
    assert truth.num_rows == sum(
        len(one.conditions) for contacts in made.values() for one in contacts
    )
    assert truth.column_names == ["contact_id", "code", "coded", "probability"]


def test_no_contacts_give_empty_files(tmp_path):
    export.write_tables([], tmp_path)
    assert parquet.read_table(tmp_path / "labs.parquet").num_rows == 0


def test_splits_and_pieces_of_mentions_stay(tmp_path):
    contact = Contact(
        "c",
        "p",
        notes=(Note("Cancer of the left lung. Cancer."),),
        codes=(Code("C34.9", "icd10"),),
        evidence=(
            Evidence("C34.9", 0, 0, 6, 3),
            Evidence("C34.9", 0, 19, 23, 3),
            Evidence("C34.9", 0, 25, 31, 5),
        ),
    )
    for split in ("train", "test"):
        folder = tmp_path / split
        export.write_tables([(split, contact)], folder)
        tables = open_source("tables", folder)
        assert tables.splits == (split,)
        assert list(tables.contacts(split)) == [contact]
