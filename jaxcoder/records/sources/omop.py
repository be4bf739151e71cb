"""OMOP Common Data Model 5.3 and 5.4: https://ohdsi.github.io/CommonDataModel.

The folder holds person, visit_occurrence, condition_occurrence, concept, and if there are any note,
drug_exposure, measurement, observation, procedure_occurrence, concept_relationship, provider,
care_site, as CSV (also with tabs) or Parquet; or a PostgreSQL database does. A contact is a visit.
Rows without a visit are counted as such.

A row lies in the table of its concept's domain: of ICD-10-CM, Z79.4 is an observation. So codes are
read from other tables, too, after the conditions; what is there no code of the vocabulary is no
code that is lost, and not counted.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from jaxcoder import settings
from jaxcoder.records import code_systems
from jaxcoder.records.sources import folder_source, parse_options
from jaxcoder.records.sources.columns import CODE, ID, TEXT, by_name
from jaxcoder.records.sources.engine import reading
from jaxcoder.records.sources.folder_source import FolderOptions, FolderSource
from jaxcoder.records.sources.table_files import open_tables

CODES = ("source", "mapped")

_OPTIONAL = {
    "visit_occurrence": ("visit_concept_id",),
    "condition_occurrence": ("condition_type_concept_id",),
    "observation": ("observation_source_concept_id",),
    "procedure_occurrence": ("procedure_source_concept_id",),
    "measurement": ("measurement_source_concept_id",),
    "concept": ("invalid_reason",),
    "concept_relationship": ("invalid_reason",),
}
"""Columns of the CDM that files may lack."""

_ROLE = r"""CASE
  WHEN contains(name, 'primary') AND NOT contains(name, 'admission')
    OR regexp_matches(name, '\b1st position') THEN 'primary'
  WHEN contains(name, 'secondary') OR regexp_matches(name, '\bposition\b') THEN 'secondary' END"""
"""SQL of the role that the name of a status or type tells.

A primary admission diagnosis is what the patient came for, not what the stay was found to be. Types
have positions: `Inpatient detail - primary`, `Inpatient header - 1st position`.
"""


@dataclasses.dataclass(frozen=True)
class OmopOptions(FolderOptions):
    """Options of the source.

    Attributes:
      codes: `source`: the codes that the hospital gave (condition_source_concept_id, and where that
        is 0 condition_source_value, in `system`; and the source concepts of observations,
        procedures and measurements); or `mapped`: standard concepts of conditions and observations
        back to `vocabulary` through the valid rows of concept_relationship (`Mapped from`), to the
        first code of those that map to it, a valid one if there is any.
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
        for key in ("vocabulary", "system"):
            try:
                code_systems.canonical_system(getattr(self, key))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None


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
            "visit_concept_id": ID,
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
            "condition_type_concept_id": ID,
        },
        "observation": {
            "visit_occurrence_id": ID,
            "observation_concept_id": ID,
            "observation_source_concept_id": ID,
        },
        "procedure_occurrence": {"visit_occurrence_id": ID, "procedure_source_concept_id": ID},
        "concept": {
            "concept_id": ID,
            "concept_name": TEXT,
            "vocabulary_id": TEXT,
            "concept_code": CODE,
            "invalid_reason": TEXT,
        },
        "concept_relationship": {
            "concept_id_1": ID,
            "concept_id_2": ID,
            "relationship_id": TEXT,
            "invalid_reason": TEXT,
        },
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
            "measurement_source_concept_id": ID,
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
    by_file = frozenset({"notes", "medications", "labs"})

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
              concept_name AS kind,
              {f"coalesce({', '.join(names)})" if names else "NULL"} AS specialty,
              CASE gender_concept_id WHEN '8507' THEN 'M' WHEN '8532' THEN 'F' END AS sex,
              date_sub('year', {born}, TRY_CAST({start} AS DATE)) AS age
            FROM {read("visit_occurrence")} LEFT JOIN (SELECT person_id, gender_concept_id,
                TRY_CAST(year_of_birth AS INTEGER) AS year,
                TRY_CAST(month_of_birth AS INTEGER) AS month,
                coalesce(TRY_CAST(day_of_birth AS INTEGER), 1) AS day
              FROM {read("person")}) USING (person_id)
              LEFT JOIN {_concepts(read)} ON concept_id = visit_concept_id {joins}"""

    def _codes(self, read: Callable[[str], str]) -> str:
        system = code_systems.canonical_system(self._chosen.vocabulary)
        concepts = f"""(SELECT concept_id, concept_code, coalesce(invalid_reason, '') = '' AS valid
            FROM {read("concept")} WHERE lower(vocabulary_id) = '{self._chosen.vocabulary.lower()}')
            """
        if self._chosen.codes == "source":
            key, others = "source_concept_id", ["observation", "procedure", "measurement"]
            # Of a concept of another vocabulary the source value is no code of ours: null, counted.
            unknown = "coalesce(condition_source_concept_id, '0') = '0'"
            code = f"CASE WHEN {unknown} THEN condition_source_value ELSE concept_code END"
            written = f"CASE WHEN {unknown} THEN '{self._chosen.system}' ELSE '{system}' END"
        else:
            key, others = "concept_id", ["observation"]
            code, written = "concept_code", f"'{system}'"
            concepts = f"""(SELECT concept_id_1 AS concept_id,
                coalesce(min(concept_code) FILTER (valid), min(concept_code)) AS concept_code
              FROM {read("concept_relationship")} JOIN {concepts} ON concept_id = concept_id_2
              WHERE relationship_id = 'Mapped from' AND coalesce(invalid_reason, '') = ''
              GROUP BY concept_id_1)"""
        # Not all concepts are held, of which there are millions.
        roles = f"""(SELECT concept_id, {_ROLE} AS role FROM (
            SELECT concept_id, lower(concept_name) AS name FROM {read("concept")})
          WHERE role IS NOT NULL)"""
        # Each is read once, however many tables are looked up in it.
        shared = f"WITH source AS MATERIALIZED {concepts}, roles AS MATERIALIZED {roles}"
        queries = [
            f"""
            SELECT visit_occurrence_id AS contact_id, {code} AS code, {written} AS system,
              coalesce(status.role, type.role) AS role,
              TRY_CAST(condition_occurrence_id AS BIGINT) AS rank
            FROM {read("condition_occurrence")}
              LEFT JOIN source ON source.concept_id = condition_{key}
              LEFT JOIN roles AS status ON status.concept_id = condition_status_concept_id
              LEFT JOIN roles AS type ON type.concept_id = condition_type_concept_id"""
        ]
        for domain in others:
            table = "procedure_occurrence" if domain == "procedure" else domain
            if table in self._tables and f"{domain}_{key}" not in self._lacks(table):
                queries.append(f"""
            SELECT visit_occurrence_id, concept_code, '{system}', NULL, NULL
            FROM {read(table)} JOIN source ON concept_id = {domain}_{key}""")
        return f"{shared} {' UNION ALL '.join(queries)}"

    def _read(self, name: str) -> str:
        lacks = self._lacks(name)
        kinds = {key: kind for key, kind in self.columns[name].items() if key not in lacks}
        with reading(self._tables.where(name), self.refusal):
            query = self._tables.typed(self._header_connection, name, kinds)
        nulls = "".join(f", CAST(NULL AS VARCHAR) AS {key}" for key in lacks)
        return f"(SELECT *{nulls} FROM {query})"

    def _lacks(self, name: str) -> list[str]:
        """The optional columns that a table does not have."""
        with reading(self._tables.where(name), self.refusal):
            query = self._tables.query(name)
            self._tables.attach(self._header_connection)
            found = by_name(self._header_connection.sql(query).columns, self._tables.where(name))
        return [key for key in _OPTIONAL.get(name, ()) if key not in found]


def _time(time: str, date: str) -> str:
    return f"coalesce({time}, {date})"


def _concepts(read: Callable[[str], str]) -> str:
    """Concepts but the one of number 0, which stands for none."""
    return f"(SELECT * FROM {read('concept')} WHERE concept_id <> '0')"
