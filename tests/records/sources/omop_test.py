"""OMOP: the synthetic cohort written as a CDM must come back as the same contacts."""

import csv
import dataclasses
import datetime

import pytest

from jaxcoder.errors import UserError
from jaxcoder.records.schema import Code
from jaxcoder.records.sources import open_source

SEX = {"M": 8507, "F": 8532, "U": 0}
PRIMARY, SECONDARY = 900_001, 900_002


class Concepts:
    """Numbers of concepts, given as they are asked for."""

    def __init__(self):
        self.rows = [
            (0, "No matching concept", "None", "No matching concept"),
            (PRIMARY, "Primary diagnosis", "Condition Status", "p"),
            (SECONDARY, "Secondary diagnosis", "Condition Status", "s"),
        ]
        self._known = {}

    def number(self, vocabulary, code, name):
        key = (vocabulary, code, name)
        if key not in self._known:
            self._known[key] = len(self.rows)
            self.rows.append((len(self.rows), name, vocabulary, code))
        return self._known[key]


def write(folder, name, columns, rows):
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(columns.split())
        table.writerows(rows)


def cdm(folder, contacts):
    """Writes contacts as the tables of a CDM; ids become numbers."""
    folder.mkdir()
    concepts, people, specialties = Concepts(), {}, {}
    tables = {name: [] for name in ("visit", "condition", "note", "drug", "measurement")}
    maps = set()
    for visit, contact in enumerate(contacts, start=1):
        person = people.setdefault(contact.patient_id, (len(people) + 1, contact))[0]
        provider = specialties.setdefault(contact.specialty, len(specialties) + 1)
        tables["visit"].append(
            (visit, person, concepts.number("Visit", contact.kind, contact.kind))
            + (contact.start[:10], contact.start, contact.end[:10], contact.end)
            + (provider, "")
        )
        for code in contact.codes:
            source = concepts.number("ICD10CM", code.code, f"about {code.code}")
            standard = concepts.number("SNOMED", f"s{code.code}", f"disorder {code.code}")
            maps.add((standard, source, "Mapped from", ""))
            maps.add((source, standard, "Maps to", ""))
            status = PRIMARY if code.role == "primary" else SECONDARY
            row = (visit, 100 * visit + code.rank, standard, source, code.code, status, 0)
            tables["condition"].append(row)
        for note in contact.notes:
            tables["note"].append((visit, note.time[:10], note.time, note.kind, note.text))
        for row in contact.medications:
            number = concepts.number("ATC", row.code, row.name)
            times = (row.time[:10], row.time)
            tables["drug"].append((visit, number, *times, row.dose, "", row.route, ""))
        for row in contact.labs:
            number = concepts.number("LOINC", row.code, row.name)
            times = (row.time[:10], row.time)
            limits = ("" if x is None else x for x in (row.low, row.high))
            tables["measurement"].append(
                (visit, number, 0, *times, "", row.value, row.unit, *limits, "")
            )
    tables["note"].append(("", "2020-01-01", "2020-01-01", "letter", "Of no visit."))
    born = [
        (person, SEX[contact.sex], int(contact.start[:4]) - int(contact.age), "", "")
        for person, contact in people.values()
    ]
    write(
        folder,
        "person",
        "person_id gender_concept_id year_of_birth month_of_birth day_of_birth",
        born,
    )
    write(
        folder,
        "VISIT_OCCURRENCE",
        "visit_occurrence_id person_id visit_concept_id visit_start_date visit_start_datetime "
        "visit_end_date visit_end_datetime provider_id care_site_id",
        tables["visit"],
    )
    write(
        folder,
        "condition_occurrence",
        "visit_occurrence_id condition_occurrence_id condition_concept_id "
        "condition_source_concept_id condition_source_value condition_status_concept_id "
        "condition_type_concept_id",
        tables["condition"],
    )
    write(
        folder,
        "note",
        "visit_occurrence_id note_date note_datetime note_title note_text",
        tables["note"],
    )
    write(
        folder,
        "drug_exposure",
        "visit_occurrence_id drug_concept_id drug_exposure_start_date "
        "drug_exposure_start_datetime quantity dose_unit_source_value route_source_value "
        "drug_source_value",
        tables["drug"],
    )
    write(
        folder,
        "measurement",
        "visit_occurrence_id measurement_concept_id measurement_source_concept_id "
        "measurement_date measurement_datetime "
        "value_as_number value_source_value unit_source_value range_low range_high "
        "measurement_source_value",
        tables["measurement"],
    )
    write(folder, "provider", "provider_id specialty_source_value",
          [(number, name) for name, number in specialties.items()])  # fmt: skip
    concepts.rows.append((99_999, '"Quoted in part', "ICD10CM", "Z99"))
    lines = ["concept_id\tconcept_name\tvocabulary_id\tconcept_code\tinvalid_reason"]
    lines += ["\t".join(map(str, (*row, ""))) for row in concepts.rows]
    (folder / "concept.csv").write_text("\n".join(lines) + "\n")
    write(folder, "concept_relationship",
          "concept_id_1 concept_id_2 relationship_id invalid_reason", sorted(maps))  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def cohort():
    source = open_source("synthetic", None, {"patients": "25"})
    return [contact for split in source.splits for contact in source.contacts(split)]


@pytest.fixture
def folder(tmp_path, cohort):
    return cdm(tmp_path / "cdm", cohort)


def contacts(source):
    found = {each.contact_id: each for split in source.splits for each in source.contacts(split)}
    return [found[str(number)] for number in range(1, len(found) + 1)]


@pytest.mark.parametrize("codes", ["source", "mapped"])
def test_the_same_contacts_come_back(folder, cohort, codes, way):
    source = open_source("omop", folder, {"codes": codes})
    found = contacts(source)
    assert len(found) == len(cohort)
    for visit, (ours, contact) in enumerate(zip(found, cohort, strict=True), start=1):
        assert ours.contact_id == str(visit)
        assert (ours.start, ours.end, ours.sex) == (contact.start, contact.end, contact.sex)
        assert (ours.specialty, ours.kind) == (contact.specialty, contact.kind)
        assert ours.notes == contact.notes
        assert sorted(map(repr, ours.medications)) == sorted(map(repr, contact.medications))
        for own, lab in zip(
            sorted(ours.labs, key=repr), sorted(contact.labs, key=repr), strict=True
        ):
            assert dataclasses.replace(own, flag="") == dataclasses.replace(lab, flag="")
        assert [code.code for code in ours.codes] == [code.code for code in contact.codes]
        assert [code.role for code in ours.codes] == [
            "primary" if code.role == "primary" else "secondary" for code in contact.codes
        ]
    assert source.dropped("") == {"notes: no contact_id": 1}
    patients = {ours.patient_id for ours in found}
    assert len(patients) == len({contact.patient_id for contact in cohort})


def test_a_source_value_without_a_concept_is_read_in_the_system_given(folder):
    with open(folder / "condition_occurrence.csv", "a", newline="", encoding="utf-8") as file:
        file.write("1\t999\t0\t0\tDI109\t0\t0\r\n")
    (contact, *_) = contacts(open_source("omop", folder, {"system": "sks"}))
    assert Code("I10.9", "sks", "unknown", 999) in contact.codes


def test_a_code_of_another_vocabulary_is_counted_and_not_taken_for_one_of_ours(folder):
    with open(folder / "concept.csv", "a", encoding="utf-8") as file:
        file.write("77777\told\tICD9CM\t250.00\t\n")
    with open(folder / "condition_occurrence.csv", "a", newline="", encoding="utf-8") as file:
        file.write("1\t999\t0\t77777\tE8788\t0\t0\r\n")
    source = open_source("omop", folder, {"vocabulary": "icd10cm"})
    (contact, *_) = contacts(source)
    assert "E87.88" not in [code.code for code in contact.codes] and contact.codes
    assert source.dropped("")["codes: no contact_id or no code"] == 1


def test_mistakes_name_file_and_column(folder):
    with pytest.raises(UserError, match="codes = 'all': expected one of source, mapped"):
        open_source("omop", folder, {"codes": "all"})
    for key in ("vocabulary", "system"):
        with pytest.raises(UserError, match=f"{key}: unknown code system 'icd11': expected one"):
            open_source("omop", folder, {key: "icd11"})
    (folder / "note.csv").write_text("visit_occurrence_id\tnote_text\n1\tx\n")
    with pytest.raises(UserError, match=r"note.csv: column note_date is missing"):
        open_source("omop", folder, {}).splits  # noqa: B018
    (folder / "concept.csv").unlink()
    with pytest.raises(UserError, match=r"no concept.parquet or concept.csv; it is compulsory"):
        open_source("omop", folder, {})


def test_age_is_that_at_the_start_of_the_visit(folder, cohort):
    for ours, contact in zip(contacts(open_source("omop", folder, {})), cohort, strict=True):
        # Only the year of birth is known: half a year either way.
        assert abs(ours.age - contact.age) <= 3, datetime.date.fromisoformat(contact.start[:10])


def test_codes_are_described_by_the_concepts_of_the_vocabulary(folder, cohort):
    for options in ({}, {"codes": "mapped", "vocabulary": "icd10cm"}):
        source = open_source("omop", folder, options)
        codes = {code.code for contact in cohort for code in contact.codes}
        expected = {code: f"about {code}" for code in codes}
        assert source.descriptions == {**expected, "Z99": '"Quoted in part'}
    assert open_source("omop", folder, {"vocabulary": "ICD9CM"}).descriptions == {}


PEOPLE = {
    "person": "person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth\n"
    "1,8507,1950,2,1",
    "visit_occurrence": "visit_occurrence_id,person_id,visit_start_date,visit_start_datetime,"
    "visit_end_date,visit_end_datetime,provider_id,care_site_id\n10,1,2020-01-01,,2020-01-05,,,",
}
CONDITION = (
    "visit_occurrence_id,condition_occurrence_id,condition_concept_id,condition_source_concept_id,"
    "condition_source_value,condition_status_concept_id,condition_type_concept_id\n"
)
CONCEPT = "concept_id,concept_name,vocabulary_id,concept_code,invalid_reason\n"
RELATED = "concept_id_1,concept_id_2,relationship_id,invalid_reason\n"


def codes(folder, options, tables):
    """The codes of visit 10, and what is counted."""
    for name, text in {**PEOPLE, **tables}.items():
        (folder / f"{name}.csv").write_text(f"{text}\n")
    source = open_source("omop", folder, options)
    (contact,) = (each for split in source.splits for each in source.contacts(split))
    return contact.codes, source.dropped("")


def written(found):
    return [code.code for code in found]


def without(text, column):
    """A table without one of its columns."""
    rows = [line.split(",") for line in text.split("\n")]
    place = rows[0].index(column)
    return "\n".join(",".join(row[:place] + row[place + 1 :]) for row in rows)


def test_what_the_vocabulary_withdrew_does_not_lead_to_a_code(tmp_path):
    tables = {
        "condition_occurrence": f"{CONDITION}10,1,500,0,,0,0\n10,2,501,0,,0,0\n10,3,502,0,,0,0",
        "concept": f"{CONCEPT}100,dm,ICD10CM,E11.9,\n101,a,ICD10CM,A00.0,\n"
        "102,b,ICD10CM,B00.0,D\n103,c,ICD10CM,C50.9,U\n104,d,ICD10CM,I10,",
        "concept_relationship": f"{RELATED}500,100,Mapped from,\n"
        "500,101,Mapped from,D\n"  # the relationship is withdrawn
        "501,104,Mapped from,\n501,102,Mapped from,\n"  # a concept is, and there is another
        "502,103,Mapped from,",  # the only one
    }
    found, _ = codes(tmp_path, {"codes": "mapped"}, tables)
    assert written(found) == ["E11.9", "I10", "C50.9"]
    for name in ("concept", "concept_relationship"):
        tables[name] = without(tables[name], "invalid_reason")
    found, _ = codes(tmp_path, {"codes": "mapped"}, tables)
    assert written(found) == ["A00.0", "B00.0", "C50.9"]


DOMAINS = {
    "condition_occurrence": f"{CONDITION}10,5000000000,500,100,E11.9,0,0",
    "observation": "visit_occurrence_id,observation_concept_id,observation_source_concept_id\n"
    "10,600,101\n10,601,0\n10,602,105\n,600,101",
    "procedure_occurrence": "visit_occurrence_id,procedure_source_concept_id\n10,102\n10,105",
    "measurement": "visit_occurrence_id,measurement_concept_id,measurement_source_concept_id,"
    "measurement_date,measurement_datetime,value_as_number,value_source_value,unit_source_value,"
    "range_low,range_high,measurement_source_value\n10,0,103,2020-01-02,,7,,mg,,,K",
    "concept": f"{CONCEPT}100,a,ICD10CM,E11.9,\n101,b,ICD10CM,Z79.4,\n102,c,ICD10CM,Z51.1,\n"
    "103,d,ICD10CM,R73.0,\n104,e,ICD10CM,Z87.8,\n105,f,SNOMED,1,",
    "concept_relationship": f"{RELATED}500,100,Mapped from,\n600,101,Mapped from,\n"
    "601,104,Mapped from,",
}


def test_codes_are_read_from_the_tables_of_all_domains(tmp_path, way):
    found, dropped = codes(tmp_path, {}, DOMAINS)
    assert (found[0].code, found[0].rank) == ("E11.9", 5_000_000_000)
    assert sorted(written(found[1:])) == ["R73.0", "Z51.1", "Z79.4"]
    assert {code.role for code in found} == {"unknown"}
    assert dropped == {"codes: no contact_id or no code": 1}  # the observation of no visit
    found, dropped = codes(tmp_path, {"codes": "mapped"}, DOMAINS)
    assert found[0].code == "E11.9" and sorted(written(found[1:])) == ["Z79.4", "Z87.8"]
    assert dropped == {"codes: no contact_id or no code": 1}


def test_files_may_lack_the_source_concepts_of_other_domains(tmp_path):
    tables = DOMAINS | {
        name: without(DOMAINS[name], f"{name}_source_concept_id")
        for name in ("observation", "measurement")
    }
    found, _ = codes(tmp_path, {}, tables)
    assert written(found) == ["E11.9", "Z51.1"]


ROLES = {
    "Primary diagnosis": "primary",
    "Primary discharge diagnosis": "primary",
    "Primary admission diagnosis": "unknown",
    "Secondary diagnosis": "secondary",
    "Final diagnosis": "unknown",
    "Inpatient detail - primary": "primary",
    "Inpatient header - 1st position": "primary",
    "Inpatient header - 2nd position": "secondary",
    "Inpatient header - 21st position": "secondary",
    "Discharge disposition": "unknown",
}


@pytest.mark.parametrize("column", ["condition_status_concept_id", "condition_type_concept_id"])
def test_status_or_type_tells_the_role(tmp_path, column):
    places = range(len(ROLES))
    cells = [("0", f"{100 + n}") if "type" in column else (f"{100 + n}", "0") for n in places]
    concepts = [f"{100 + n},{name},Type,t{n}," for n, name in zip(places, ROLES, strict=True)]
    concepts += [f"{n + 1},x,ICD10CM,I1{n}," for n in places]
    tables = {
        "condition_occurrence": CONDITION
        + "\n".join(f"10,{n},9,{n + 1},,{','.join(cells[n])}" for n in places),
        "concept": CONCEPT + "\n".join(concepts),
    }
    found, _ = codes(tmp_path, {}, tables)
    assert [code.role for code in found] == list(ROLES.values())
    condition = without(tables["condition_occurrence"], "condition_type_concept_id")
    found, _ = codes(tmp_path, {}, {**tables, "condition_occurrence": condition})
    unknown = ["unknown"] * len(ROLES)
    assert [code.role for code in found] == (unknown if "type" in column else [*ROLES.values()])


def test_a_status_that_tells_the_role_comes_before_the_type(tmp_path):
    tables = {
        "condition_occurrence": f"{CONDITION}10,1,9,1,,102,101\n10,2,9,2,,103,101",
        "concept": f"{CONCEPT}1,x,ICD10CM,I10,\n2,x,ICD10CM,I11,\n101,Detail - primary,T,t,\n"
        "102,Secondary diagnosis,S,s,\n103,Final diagnosis,S,f,",
    }
    found, _ = codes(tmp_path, {}, tables)
    assert [code.role for code in found] == ["secondary", "primary"]
