"""MIMIC-III 1.4: https://physionet.org/content/mimiciii.

The folder holds ADMISSIONS, PATIENTS, DIAGNOSES_ICD and so on, headers in either case. A contact is
an admission with a code; its first procedure is primary, too: the principal one. Its notes are the
discharge summaries, and after them their addenda, in the order of row_id. Dates of birth of those
over 89 are shifted by 300 years: their age is 91, as in MIMIC-IV.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from jaxcoder import settings
from jaxcoder.records.sources import parse_options
from jaxcoder.records.sources.columns import CODE, ID, TEXT
from jaxcoder.records.sources.mimic import KINDS, Mimic, MimicOptions
from jaxcoder.records.sources.table_files import TableFiles


@dataclasses.dataclass(frozen=True)
class Mimic3Options(MimicOptions):
    """Options of the source: those of every MIMIC source."""

    name: str = "mimic3"


class Mimic3(Mimic):
    """Admissions of MIMIC-III."""

    columns = {
        "admissions": {
            "subject_id": ID,
            "hadm_id": ID,
            "admittime": TEXT,
            "dischtime": TEXT,
            "admission_type": TEXT,
        },
        "patients": {"subject_id": ID, "gender": TEXT, "dob": TEXT},
        "diagnoses_icd": {"hadm_id": ID, "seq_num": TEXT, "icd9_code": CODE},
        "procedures_icd": {"hadm_id": ID, "seq_num": TEXT, "icd9_code": CODE},
        "d_icd_diagnoses": {"icd9_code": CODE, "long_title": TEXT},
        "d_icd_procedures": {"icd9_code": CODE, "long_title": TEXT},
        "services": {"hadm_id": ID, "transfertime": TEXT, "curr_service": TEXT},
        "prescriptions": {
            "hadm_id": ID,
            "startdate": TEXT,
            "drug": TEXT,
            "ndc": ID,
            "dose_val_rx": TEXT,
            "dose_unit_rx": TEXT,
            "route": TEXT,
        },
        "labevents": {
            "hadm_id": ID,
            "itemid": ID,
            "charttime": TEXT,
            "value": TEXT,
            "valueuom": TEXT,
            "flag": TEXT,
        },
        "d_labitems": {"itemid": ID, "label": TEXT, "loinc_code": TEXT},
        "noteevents": {
            "row_id": ID,
            "hadm_id": ID,
            "chartdate": TEXT,
            "category": TEXT,
            "description": TEXT,
            "text": TEXT,
        },
    }
    files = {
        "contacts": "admissions",
        "codes": "diagnoses_icd",
        "notes": "noteevents",
        "medications": "prescriptions",
        "labs": "labevents",
    }

    def __init__(self, source_dir: epath.Path, options: Mapping[str, Any]) -> None:
        chosen = settings.build(Mimic3Options, parse_options(options, KINDS), "mimic3")
        compulsory = ["admissions", "patients"]
        compulsory += ["diagnoses_icd"] * ("D" in chosen.codes)
        # What is asked for, and not only taken by default where it is there.
        compulsory += ["procedures_icd"] * ("P" in options.get("codes", ""))
        self._chosen = chosen
        super().__init__("mimic3", chosen, TableFiles(source_dir, self.columns, compulsory))

    def titles(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the titles of codes, of the kinds that are asked for."""
        return {
            table: f"SELECT icd9_code AS code, '{system}' AS system, long_title AS title "
            f"FROM {read(table)}"
            for letter, table, system in (
                ("D", "d_icd_diagnoses", "icd9cm"),
                ("P", "d_icd_procedures", "icd9cm-proc"),
            )
            if letter in self._chosen.codes and table in self._tables
        }

    def queries(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the relations."""
        there = self._tables
        service, services = self.service_at_discharge(read, "services")
        queries = {
            "contacts": f"""
                SELECT hadm_id AS contact_id, subject_id AS patient_id, admittime AS start,
                  dischtime AS "end", {service} AS specialty, gender AS sex,
                  admission_type AS kind, if(years > 89, 91, years) AS age
                FROM (SELECT *, CASE WHEN born >= TIMESTAMP '1700-01-01'
                    AND admitted >= TIMESTAMP '1800-01-01'
                    THEN date_sub('year', born, admitted) END AS years
                  FROM (SELECT *, TRY_CAST(dob AS TIMESTAMP) AS born,
                      TRY_CAST(admittime AS TIMESTAMP) AS admitted
                    FROM {read("admissions")} LEFT JOIN {read("patients")} USING (subject_id)))
                  {services}""",
            "codes": " UNION ALL ".join(
                f"""
                SELECT hadm_id AS contact_id, icd9_code AS code, '{system}' AS system,
                  CASE WHEN TRY_CAST(seq_num AS INTEGER) = 1 THEN 'primary'
                    WHEN TRY_CAST(seq_num AS INTEGER) > 1 THEN 'secondary' END AS role,
                  seq_num AS rank
                FROM {read(table)}"""
                for letter, table, system in (
                    ("D", "diagnoses_icd", "icd9cm"),
                    ("P", "procedures_icd", "icd9cm-proc"),
                )
                if letter in self._chosen.codes and table in there
            ),
        }
        if "noteevents" in there:
            queries["notes"] = f"""
                SELECT hadm_id AS contact_id, chartdate AS time,
                  if(addendum, 'discharge addendum', 'discharge') AS kind, text,
                  TRY_CAST(row_id AS BIGINT) + if(addendum, 1::BIGINT << 40, 0) AS rank
                FROM (SELECT *, lower(coalesce(description, '')) = 'addendum' AS addendum
                  FROM {read("noteevents")} WHERE lower(category) = 'discharge summary')"""
        if "prescriptions" in there:
            queries["medications"] = f"""
                SELECT hadm_id AS contact_id, startdate AS time, nullif(ndc, '0') AS code,
                  drug AS name, concat_ws(' ', dose_val_rx, dose_unit_rx) AS dose, route
                FROM {read("prescriptions")}"""
        if "labevents" in there:
            names, code, label = "", "itemid", "NULL"
            if "d_labitems" in there:
                names = f"LEFT JOIN {read('d_labitems')} USING (itemid)"
                code, label = "coalesce(nullif(loinc_code, ''), itemid)", "label"
            queries["labs"] = f"""
                SELECT hadm_id AS contact_id, charttime AS time, {code} AS code, {label} AS name,
                  value, valueuom AS unit, NULL AS low, NULL AS high,
                  CASE lower(flag) WHEN 'abnormal' THEN 'A' ELSE flag END AS flag
                FROM {read("labevents")} {names}"""
        return self.narrowed(queries, self._chosen)
