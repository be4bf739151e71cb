"""MIMIC-IV: https://physionet.org/content/mimiciv (2.2, 3.x) and /mimic-iv-note.

The folder holds `hosp/`, and `note/` where notes are. A contact is an admission that has a code of
`icd_version`; the role of a code comes from its seq_num, the specialty is the service at discharge,
and age is that at admission, 91 for all of more than 89 years. The first procedure is primary, too:
the principal one. Laboratory results outside admissions are counted as such.
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

_NOTES = {each: each.split("+") for each in ("discharge", "radiology", "discharge+radiology")}
_SYSTEMS = {9: ("icd9cm", "icd9cm-proc"), 10: ("icd10cm", "icd10pcs")}


@dataclasses.dataclass(frozen=True)
class Mimic4Options(MimicOptions):
    """Options of the source.

    Attributes:
      icd_version: 9 or 10: codes of that version count, and admissions that have one.
      notes: `discharge`, `radiology` or `discharge+radiology`.
    """

    name: str = "mimic4"
    icd_version: int = 10
    notes: str = "discharge"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.icd_version not in _SYSTEMS:
            raise ValueError(f"icd_version = {self.icd_version}: expected 9 or 10")
        if self.notes not in _NOTES:
            raise ValueError(f"notes = {self.notes!r}: expected one of {', '.join(_NOTES)}")


class Mimic4(Mimic):
    """Admissions of MIMIC-IV."""

    columns = {
        "hosp/admissions": {
            "subject_id": ID,
            "hadm_id": ID,
            "admittime": TEXT,
            "dischtime": TEXT,
            "admission_type": TEXT,
        },
        "hosp/patients": {
            "subject_id": ID,
            "gender": TEXT,
            "anchor_age": TEXT,
            "anchor_year": TEXT,
        },
        "hosp/diagnoses_icd": {
            "hadm_id": ID,
            "seq_num": TEXT,
            "icd_code": CODE,
            "icd_version": TEXT,
        },
        "hosp/procedures_icd": {
            "hadm_id": ID,
            "seq_num": TEXT,
            "icd_code": CODE,
            "icd_version": TEXT,
        },
        "hosp/d_icd_diagnoses": {"icd_code": CODE, "icd_version": TEXT, "long_title": TEXT},
        "hosp/d_icd_procedures": {"icd_code": CODE, "icd_version": TEXT, "long_title": TEXT},
        "hosp/services": {"hadm_id": ID, "transfertime": TEXT, "curr_service": TEXT},
        "hosp/prescriptions": {
            "hadm_id": ID,
            "starttime": TEXT,
            "drug": TEXT,
            "ndc": ID,
            "dose_val_rx": TEXT,
            "dose_unit_rx": TEXT,
            "route": TEXT,
        },
        "hosp/labevents": {
            "hadm_id": ID,
            "itemid": ID,
            "charttime": TEXT,
            "value": TEXT,
            "valuenum": TEXT,
            "valueuom": TEXT,
            "ref_range_lower": TEXT,
            "ref_range_upper": TEXT,
            "flag": TEXT,
        },
        "hosp/d_labitems": {"itemid": ID, "label": TEXT},
        "note/discharge": {"hadm_id": ID, "charttime": TEXT, "text": TEXT},
        "note/radiology": {"hadm_id": ID, "charttime": TEXT, "text": TEXT},
    }
    files = {
        "contacts": "hosp/admissions",
        "codes": "hosp/diagnoses_icd",
        "notes": "note/discharge",
        "medications": "hosp/prescriptions",
        "labs": "hosp/labevents",
    }

    def __init__(self, source_dir: epath.Path, options: Mapping[str, Any]) -> None:
        kinds: dict[str, Callable[[str], Any]] = {**KINDS, "icd_version": int}
        chosen = settings.build(Mimic4Options, parse_options(options, kinds), "mimic4")
        compulsory = ["hosp/admissions", "hosp/patients"]
        compulsory += ["hosp/diagnoses_icd"] * ("D" in chosen.codes)
        # What is asked for, and not only taken by default where it is there.
        compulsory += ["hosp/procedures_icd"] * ("P" in options.get("codes", ""))
        compulsory += [f"note/{kind}" for kind in _NOTES[chosen.notes] if "notes" in options]
        self._chosen = chosen
        super().__init__("mimic4", chosen, TableFiles(source_dir, self.columns, compulsory))

    def titles(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the titles of codes, of the version and the kinds that are asked for."""
        version = self._chosen.icd_version
        return {
            table: f"SELECT icd_code AS code, '{system}' AS system, long_title AS title "
            f"FROM {read(table)} WHERE icd_version = '{version}'"
            for letter, table, system in zip(
                "DP",
                ("hosp/d_icd_diagnoses", "hosp/d_icd_procedures"),
                _SYSTEMS[version],
                strict=True,
            )
            if letter in self._chosen.codes and table in self._tables
        }

    def queries(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the relations."""
        there = self._tables
        service, services = self.service_at_discharge(read, "hosp/services")
        queries = {
            "contacts": f"""
                SELECT hadm_id AS contact_id, subject_id AS patient_id, admittime AS start,
                  dischtime AS "end", {service} AS specialty, gender AS sex,
                  admission_type AS kind, if(years > 89, 91, years) AS age
                FROM (SELECT *, TRY_CAST(anchor_age AS INTEGER) - TRY_CAST(anchor_year AS INTEGER)
                    + year(TRY_CAST(admittime AS TIMESTAMP)) AS years
                  FROM {read("hosp/admissions")} LEFT JOIN {read("hosp/patients")}
                    USING (subject_id)) {services}""",
            "codes": " UNION ALL ".join(
                f"""
                SELECT hadm_id AS contact_id, icd_code AS code, '{system}' AS system,
                  CASE WHEN TRY_CAST(seq_num AS INTEGER) = 1 THEN 'primary'
                    WHEN TRY_CAST(seq_num AS INTEGER) > 1 THEN 'secondary' END AS role,
                  seq_num AS rank
                FROM {read(table)} WHERE icd_version = '{self._chosen.icd_version}'"""
                for letter, table, system in zip(
                    "DP",
                    ("hosp/diagnoses_icd", "hosp/procedures_icd"),
                    _SYSTEMS[self._chosen.icd_version],
                    strict=True,
                )
                if letter in self._chosen.codes and table in there
            ),
        }
        notes = [kind for kind in _NOTES[self._chosen.notes] if f"note/{kind}" in there]
        if notes:
            queries["notes"] = " UNION ALL ".join(
                f"SELECT hadm_id AS contact_id, charttime AS time, '{kind}' AS kind, text "
                f"FROM {read(f'note/{kind}')}"
                for kind in notes
            )
        if "hosp/prescriptions" in there:
            queries["medications"] = f"""
                SELECT hadm_id AS contact_id, starttime AS time, nullif(ndc, '0') AS code,
                  drug AS name, concat_ws(' ', dose_val_rx, dose_unit_rx) AS dose, route
                FROM {read("hosp/prescriptions")}"""
        if "hosp/labevents" in there:
            names, label = "", "NULL"
            if "hosp/d_labitems" in there:
                names, label = f"LEFT JOIN {read('hosp/d_labitems')} USING (itemid)", "label"
            queries["labs"] = f"""
                SELECT hadm_id AS contact_id, charttime AS time, itemid AS code, {label} AS name,
                  coalesce(value, valuenum) AS value, valueuom AS unit, ref_range_lower AS low,
                  ref_range_upper AS high,
                  CASE lower(flag) WHEN 'abnormal' THEN 'A' ELSE flag END AS flag
                FROM {read("hosp/labevents")} {names}"""
        return self.narrowed(queries, self._chosen)
