import os
import pathlib
import pickle
import subprocess
import sys

import pytest

from jaxcoder.records.findings import Findings
from jaxcoder.records.report import SplitReport, table
from jaxcoder.records.schema import Code, Condition, Contact, Evidence, Lab, Medication, Note
from jaxcoder.records.sources import open_source


def contact(number, *codes, patient="p", **more):
    return Contact(str(number), patient, codes=tuple(map(Code, codes)), **more)


def reports():
    train, validation = SplitReport(), SplitReport()
    train.add(
        contact(
            1,
            "I10",
            "E11.9",
            notes=(Note("one two  three\nfour"), Note("five")),
            medications=(Medication("A"),),
            labs=(Lab("B"), Lab("C")),
            evidence=(Evidence("I10", 0, 0, 3, 0), Evidence("I10", 0, 4, 7, 0)),
        )
    )
    train.add(contact(2, "I10", notes=(Note("  "),)))
    validation.add(contact(3, "I10", "J45", "J46", patient="q"))
    validation.add(contact(4, patient="p"))
    return train, validation


def test_counts_by_hand():
    train, validation = reports()
    assert train.summary({"b": 1, "a": 2}, None) == {
        "contacts": 2,
        "patients": 1,
        "codes": 3,
        "codes_per_contact": 1.5,
        "distinct_codes": 2,
        "notes": 3,
        "words_per_note": round(5 / 3, 2),
        "medications": 1,
        "labs": 2,
        "mentions": 1,
        "contacts_without_notes": 1,
        "without_notes_share": 0.5,
        "contacts_without_codes": 0,
        "dropped": {"a": 2, "b": 1},
    }
    summary = validation.summary({}, train)
    assert summary["unseen_in_train_share"] == round(2 / 3, 4)
    assert summary["contacts_without_codes"] == 1
    assert train.overlap(validation) == 1


def test_an_example_of_each_reason_stands_beside_the_counts():
    findings = Findings()
    findings.add("labs.flag: not L, H or A (emptied)", "02")
    summary = reports()[0].summary(findings, None)
    assert summary["dropped"] == {"labs.flag: not L, H or A (emptied)": 1}
    assert summary["examples"] == {"labs.flag: not L, H or A (emptied)": "'02'"}


def test_the_table_tells_what_there_is_and_what_there_is_not():
    train, validation = reports()
    content = {
        "splits": {"train": train.summary({}, None), "validation": validation.summary({}, train)},
        "dropped": {},
    }
    lines = table(content).splitlines()
    rows = [dict(zip(lines[0].split(), line.split(), strict=True)) for line in lines[1:3]]
    assert [row["notes"] for row in rows] == ["3", "0"]
    assert [(row["medications"], row["labs"]) for row in rows] == [("1", "2"), ("0", "0")]
    assert lines[3:] == ["nothing dropped"]
    content["splits"].pop("train")
    lines = table(content).splitlines()
    assert lines[2:] == [
        "no contact has notes, medications, labs, evidence",
        "nothing dropped",
    ]


def test_the_ceiling_is_there_only_where_the_truth_is():
    report = SplitReport()
    report.add(contact(1, "I10", conditions=(Condition("I10", True, 1.0),)))
    assert report.summary({}, None)["ceiling_micro_f1"] == pytest.approx(1.0)
    assert "ceiling_micro_f1" not in reports()[0].summary({}, None)


def test_the_table_has_a_line_a_split_and_a_line_a_reason():
    train, validation = reports()
    failed = Findings()
    for number, code in enumerate(("K01.111", "K02.222", "K03.333", "Hansen", "A1", "A2", "A3")):
        for _ in range(7 - number):
            failed.add_failed_code("icd10", code, "c7")
    text = table(
        {
            "splits": {
                "train": train.summary(failed, None),
                "validation": validation.summary({f"reason {i}": i + 1 for i in range(14)}, train),
            },
            "dropped": {"notes: no contact_id": 7, "notes: contact_id not in contacts": 2},
            "examples": {"notes: contact_id not in contacts": "'99'"},
            "patients_in_several_splits": 1,
        }
    )
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["split", "contacts"]
    assert "ceiling_micro_f1" not in lines[0]
    assert lines[1].split()[:2] == ["train", "2"]
    assert "train: 28 × codes: malformed icd10 code, such as contact_id 'c7'" in lines
    assert (
        "train: failed codes: icd10 K01.111 (7), icd10 K02.222 (6), icd10 K03.333 (5), "
        "icd10 (not shown) (4), icd10 A1 (3), and 2 others in the report's file"
    ) in lines
    shares = dict(zip(lines[0].split(), lines[1].split()[: len(lines[0].split())], strict=True))
    assert shares["without_notes_share"] == "0.500"
    assert "validation: 14 × reason 13" in lines
    assert "validation: 1 × reason 0" not in lines
    assert "validation: 2 more reasons in the report's file" in lines
    assert "7 × notes: no contact_id" in lines
    assert "2 × notes: contact_id not in contacts, such as contact_id '99'" in lines
    assert "nothing dropped" not in lines
    assert "1 patients stand in more than one split" in lines


def count(contacts):
    report = SplitReport()
    for each in contacts:
        report.add(each)
    return report


@pytest.fixture(scope="module")
def cohort():
    source = open_source("synthetic", None, {"patients": "60"})
    return [contact for split in source.splits for contact in source.contacts(split)]


@pytest.mark.parametrize("middle", [0, 1, 77])
def test_merging_two_halves_gives_the_report_of_the_whole(cohort, middle):
    whole, merged = count(cohort), count(cohort[:middle])
    second = count(cohort[middle:])
    alone = second.summary({}, whole)
    merged.merge(second)
    assert merged.summary({}, None) == whole.summary({}, None)
    assert merged.codes == whole.codes
    assert second.summary({}, whole) == alone  # what is merged stays as it is
    assert whole.summary({}, None)["patients"] == len({each.patient_id for each in cohort})
    assert merged.overlap(second) == len({each.patient_id for each in cohort[middle:]})


def test_the_order_of_the_parts_does_not_matter(cohort):
    first, second = count(cohort[:50]), count(cohort[50:])
    second.merge(first)
    assert second.summary({}, None) == count(cohort).summary({}, None)


def test_a_patient_of_two_processes_counts_once():
    script = (
        "import pickle, sys\n"
        "from jaxcoder.records.report import SplitReport\n"
        "from jaxcoder.records.schema import Contact\n"
        "report = SplitReport()\n"
        "for number in range(3): report.add(Contact(str(number), f'p{number}'))\n"
        "sys.stdout.buffer.write(pickle.dumps(report))\n"
    )
    parts = [
        pickle.loads(
            subprocess.run(
                [sys.executable, "-c", script],
                check=True,
                capture_output=True,
                cwd=pathlib.Path(__file__).parents[2],
                env={**os.environ, "PYTHONHASHSEED": seed},
            ).stdout
        )
        for seed in ("1", "2")
    ]
    assert parts[0].overlap(parts[1]) == 3
    parts[0].merge(parts[1])
    parts[0].merge(count([contact(9, patient="p2"), contact(10, patient="p3")]))
    summary = parts[0].summary({}, None)
    assert (summary["contacts"], summary["patients"]) == (8, 4)
