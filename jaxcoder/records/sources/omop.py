"""OMOP Common Data Model 5.3 and 5.4: https://ohdsi.github.io/CommonDataModel.

The folder holds person, visit_occurrence, condition_occurrence, concept, and if there are any note,
drug_exposure, measurement, concept_relationship, provider, care_site, as CSV (also with tabs) or
Parquet; or a PostgreSQL database does. A contact is a visit. Rows without a visit are counted as
such.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from jaxcoder import settings
from jaxcoder.records import code_systems
from jaxcoder.records.sources import folder_source, parse_options
from jaxcoder.records.sources.columns import CODE, ID, TEXT
from jaxcoder.records.sources.folder_source import FolderOptions, FolderSource
from jaxcoder.records.sources.table_files import open_tables

CODES = ("source", "mapped")


@dataclasses.dataclass(frozen=True)
class OmopOptions(FolderOptions):
    """Options of the source.

    Attributes:
      codes: `source`: the codes that the hospital gave (condition_source_concept_id, and where that
        is 0 condition_source_value, in `system`); or `mapped`: standard concepts back to
        `vocabulary` through concept_relationship (`Mapped from`), to the first code of those that
        map to it.
      vocabulary: vocabulary_id of the codes wanted: `ICD10CM`, `ICD10`, `ICD9CM`, …
      system: code system of source values without a concept.
    """

    name: str = "omop"
    codes: str = "source"
    vocabulary: str = "ICD10CM"
    system: str = "icd10cm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes not in CODES:
            raise ValueError(f"codes = {self.codes!r}: expected one of {', '.join(CODES)}")
        code_systems.canonical_system(self.vocabulary)
        code_systems.canonical_system(self.system)


class Omop(FolderSource):
    """Visits of an OMOP database."""

    columns = {
        "person": {
            "person_id": ID,
            "gender_concept_id": ID,
            "year_of_birth": TEXT,
            "month_of_birth": TEXT,
            "day_of_birth": TEXT,
        },
        "visit_occurrence": {
            "visit_occurrence_id": ID,
            "person_id": ID,
            "visit_start_date": TEXT,
            "visit_start_datetime": TEXT,
            "visit_end_date": TEXT,
            "visit_end_datetime": TEXT,
            "provider_id": ID,
            "care_site_id": ID,
        },
        "condition_occurrence": {
            "visit_occurrence_id": ID,
            "condition_occurrence_id": ID,
            "condition_concept_id": ID,
            "condition_source_concept_id": ID,
            "condition_source_value": CODE,
            "condition_status_concept_id": ID,
        },
        "concept": {
            "concept_id": ID,
            "concept_name": TEXT,
            "vocabulary_id": TEXT,
            "concept_code": CODE,
        },
        "concept_relationship": {"concept_id_1": ID, "concept_id_2": ID, "relationship_id": TEXT},
        "note": {
            "visit_occurrence_id": ID,
            "note_date": TEXT,
            "note_datetime": TEXT,
            "note_title": TEXT,
            "note_text": TEXT,
        },
        "drug_exposure": {
            "visit_occurrence_id": ID,
            "drug_concept_id": ID,
            "drug_exposure_start_date": TEXT,
            "drug_exposure_start_datetime": TEXT,
            "quantity": TEXT,
            "dose_unit_source_value": TEXT,
            "route_source_value": TEXT,
            "drug_source_value": TEXT,
        },
        "measurement": {
            "visit_occurrence_id": ID,
            "measurement_concept_id": ID,
            "measurement_date": TEXT,
            "measurement_datetime": TEXT,
            "value_as_number": TEXT,
            "value_source_value": TEXT,
            "unit_source_value": TEXT,
            "range_low": TEXT,
            "range_high": TEXT,
            "measurement_source_value": TEXT,
        },
        "provider": {"provider_id": ID, "specialty_source_value": TEXT},
        "care_site": {"care_site_id": ID, "care_site_name": TEXT},
    }
    files = {
        "contacts": "visit_occurrence",
        "codes": "condition_occurrence",
        "notes": "note",
        "medications": "drug_exposure",
        "labs": "measurement",
    }
    by_file = frozenset({"codes", "notes", "medications", "labs"})

    def __init__(self, source_dir: epath.Path | str, options: Mapping[str, Any]) -> None:
        chosen = settings.build(OmopOptions, parse_options(options, folder_source.KINDS), "omop")
        compulsory = ["person", "visit_occurrence", "condition_occurrence", "concept"]
        compulsory += ["concept_relationship"] * (chosen.codes == "mapped")
        # Athena writes its vocabulary with tabs and without quotes.
        unquoted = ("concept", "concept_relationship")
        tables = open_tables(source_dir, self.columns, compulsory, unquoted)
        self._chosen = chosen
        super().__init__("omop", chosen, tables, chosen.system)

    def titles(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the names of the concepts of the vocabulary that is asked for."""
        system = code_systems.canonical_system(self._chosen.vocabulary)
        return {
            "concept": f"SELECT concept_code AS code, '{system}' AS system, concept_name AS title "
            f"FROM {read('concept')} WHERE lower(vocabulary_id) = "
            f"'{self._chosen.vocabulary.lower()}'"
        }

    def queries(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the relations."""
        queries = {"contacts": self._contacts(read), "codes": self._codes(read)}
        if "note" in self._tables:
            queries["notes"] = f"""
                SELECT visit_occurrence_id AS contact_id, note_title AS kind, note_text AS text,
                  {_time("note_datetime", "note_date")} AS time
                FROM {read("note")}"""
        if "drug_exposure" in self._tables:
            queries["medications"] = f"""
                SELECT visit_occurrence_id AS contact_id, concept_code AS code,
                  coalesce(concept_name, drug_source_value) AS name, route_source_value AS route,
                  concat_ws(' ', quantity, dose_unit_source_value) AS dose,
                  {_time("drug_exposure_start_datetime", "drug_exposure_start_date")} AS time
                FROM {read("drug_exposure")} LEFT JOIN {_concepts(read)}
                  ON concept_id = drug_concept_id"""
        if "measurement" in self._tables:
            queries["labs"] = f"""
                SELECT visit_occurrence_id AS contact_id, concept_code AS code,
                  coalesce(concept_name, measurement_source_value) AS name,
                  coalesce(value_source_value, value_as_number) AS value,
                  unit_source_value AS unit, range_low AS low, range_high AS high, NULL AS flag,
                  {_time("measurement_datetime", "measurement_date")} AS time
                FROM {read("measurement")} LEFT JOIN {_concepts(read)}
                  ON concept_id = measurement_concept_id"""
        return queries

    def _contacts(self, read: Callable[[str], str]) -> str:
        joins, names = "", []
        for table, key, name in (
            ("provider", "provider_id", "specialty_source_value"),
            ("care_site", "care_site_id", "care_site_name"),
        ):
            if table in self._tables:
                joins += f" LEFT JOIN {read(table)} USING ({key})"
                names.append(name)
        born = (
            "TRY_CAST(concat_ws('-', year, coalesce(month, 7), if(month IS NULL, 1, day)) AS DATE)"
        )
        start = _time("visit_start_datetime", "visit_start_date")
        return f"""
            SELECT visit_occurrence_id AS contact_id, person_id AS patient_id, {start} AS start,
              {_time("visit_end_datetime", "visit_end_date")} AS "end",
              {f"coalesce({', '.join(names)})" if names else "NULL"} AS specialty,
              CASE gender_concept_id WHEN '8507' THEN 'M' WHEN '8532' THEN 'F' END AS sex,
              date_sub('year', {born}, TRY_CAST({start} AS DATE)) AS age
            FROM {read("visit_occurrence")} LEFT JOIN (SELECT person_id, gender_concept_id,
                TRY_CAST(year_of_birth AS INTEGER) AS year,
                TRY_CAST(month_of_birth AS INTEGER) AS month,
                coalesce(TRY_CAST(day_of_birth AS INTEGER), 1) AS day
              FROM {read("person")}) USING (person_id) {joins}"""

    def _codes(self, read: Callable[[str], str]) -> str:
        system = code_systems.canonical_system(self._chosen.vocabulary)
        wanted = f"lower(vocabulary_id) = '{self._chosen.vocabulary.lower()}'"
        if self._chosen.codes == "source":
            # Of a concept of another vocabulary the source value is no code of ours: null, counted.
            unknown = "coalesce(condition_source_concept_id, '0') = '0'"
            code = f"CASE WHEN {unknown} THEN condition_source_value ELSE source.concept_code END"
            system = f"CASE WHEN {unknown} THEN '{self._chosen.system}' ELSE '{system}' END"
            join = f"""(SELECT * FROM {read("concept")} WHERE {wanted}) AS source
              ON source.concept_id = condition_source_concept_id"""
        else:
            code, system = "source.concept_code", f"'{system}'"
            join = f"""(SELECT concept_id_1, min(concept_code) AS concept_code
                FROM {read("concept_relationship")} JOIN {read("concept")}
                  ON concept_id = concept_id_2 AND relationship_id = 'Mapped from' AND {wanted}
                GROUP BY concept_id_1) AS source ON concept_id_1 = condition_concept_id"""
        return f"""
            SELECT visit_occurrence_id AS contact_id, {code} AS code, {system} AS system,
              CASE WHEN lower(status.concept_name) LIKE '%primary%' THEN 'primary'
                WHEN lower(status.concept_name) LIKE '%secondary%' THEN 'secondary' END AS role,
              TRY_CAST(condition_occurrence_id AS BIGINT) AS rank
            FROM {read("condition_occurrence")} LEFT JOIN {join}
              LEFT JOIN {_concepts(read)} AS status
                ON status.concept_id = condition_status_concept_id"""


def _time(time: str, date: str) -> str:
    return f"coalesce({time}, {date})"


def _concepts(read: Callable[[str], str]) -> str:
    """Concepts but the one of number 0, which stands for none."""
    return f"(SELECT * FROM {read('concept')} WHERE concept_id <> '0')"
