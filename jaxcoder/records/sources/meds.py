"""Medical Event Data Standard: https://github.com/Medical-Event-Data-Standard/meds.

The folder holds Parquet files anywhere below `data/`, and if there are any
`metadata/subject_splits.parquet` and `metadata/codes.parquet`. A contact begins with an event of
admission and ends with one of discharge; the defaults are the codes of MIMIC-IV_MEDS. MEDS has
neither roles of codes nor doses, reference ranges and flags.

An event belongs to the contact whose id it has, where events have ids of contacts, and else to the
contact of its subject that holds its time: the one discharged at that very time (codes are stamped
so), or of those under way the one that began last.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import duckdb
from etils import epath

from jaxcoder import settings
from jaxcoder.errors import UserError
from jaxcoder.records import code_systems
from jaxcoder.records.findings import Findings
from jaxcoder.records.sources import columns, folder_source, parse_options
from jaxcoder.records.sources.columns import CODE, ID, NUMBER, TEXT, literal, quoted
from jaxcoder.records.sources.engine import reading
from jaxcoder.records.sources.folder_source import FolderOptions, FolderSource
from jaxcoder.records.sources.meds_files import COMPULSORY, EVENTS, MedsFiles
from jaxcoder.records.sources.prefixes import has, rest, system_of

_CODES, _SPLITS = "metadata/codes", "metadata/subject_splits"
_CONTACT_ID = "hadm_id"
_OPTIONAL = {"numeric_value": NUMBER, "text_value": TEXT, "route": TEXT}
_PREFIXES = ("admission", "discharge", "labs", "medications", "notes", "sex", "birth", "specialty")


@dataclasses.dataclass(frozen=True)
class MedsOptions(FolderOptions):
    """Options of the source.

    Codes of events are named by prefixes: `LAB//RESULT` is the code `LAB//RESULT` and every code
    that begins with `LAB//RESULT//`; one that ends in `/` is a beginning as it stands (`ICD10CM/`).
    What follows the prefix is called the rest. Without prefixes there is no such relation.

    Attributes:
      admission: prefixes of the events that begin a contact.
      discharge: of those that end one.
      codes: of coded events, each with the code system of its rest: `PREFIX=SYSTEM`.
      labs: of laboratory results; the rest is a code and after `//` a unit.
      medications: of medications; the rest is a code where metadata/codes describes it, and else a
        name.
      notes: of notes, whose text is in text_value; the rest is their kind.
      sex: of the event whose rest is the sex.
      birth: of the event of birth, from which age is told.
      specialty: of events of which the last of a contact has the specialty as its rest.
      contact_id: the column with the id of the contact; admissions without one are numbered within
        their subject. Events may lack the default column.
      grace_hours: for so long after a discharge a coded event may still belong to that contact.
      keep_uncoded: whether contacts without a code of `codes` are kept, as for prediction.
    """

    name: str = "meds"
    admission: tuple[str, ...] = ("HOSPITAL_ADMISSION",)
    discharge: tuple[str, ...] = ("HOSPITAL_DISCHARGE",)
    codes: tuple[str, ...] = ("DIAGNOSIS//ICD//10=icd10cm", "PROCEDURE//ICD//10=icd10pcs")
    labs: tuple[str, ...] = ("LAB//RESULT",)
    medications: tuple[str, ...] = ("MEDICATION//START",)
    notes: tuple[str, ...] = ("NOTE",)
    sex: tuple[str, ...] = ("GENDER",)
    birth: tuple[str, ...] = ("MEDS_BIRTH",)
    specialty: tuple[str, ...] = ("TRANSFER_TO//admit", "TRANSFER_TO//transfer")
    contact_id: str = _CONTACT_ID
    grace_hours: float = 0.0
    keep_uncoded: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("admission", "discharge", "codes"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty: expected the codes of such events")
        if not 0 <= self.grace_hours < float("inf"):
            raise ValueError(f"grace_hours = {self.grace_hours}: expected 0 or more")
        for each in self.codes:
            if not each.rpartition("=")[0]:
                raise ValueError(f"codes = {each!r}: expected PREFIX=SYSTEM")
        for system in self.systems.values():
            code_systems.canonical_system(system)

    @property
    def systems(self) -> dict[str, str]:
        """From a prefix of coded events to its code system."""
        pairs = (each.rpartition("=") for each in self.codes)
        return {prefix: system for prefix, _, system in pairs}


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


_KINDS: dict[str, Callable[[str], Any]] = {
    **folder_source.KINDS,
    **dict.fromkeys((*_PREFIXES, "codes"), _words),
    "grace_hours": float,
    "keep_uncoded": bool,
}


class Meds(FolderSource):
    """Admissions of a MEDS data set."""

    columns = {
        _CODES: {"code": CODE, "description": TEXT},
        _SPLITS: {"subject_id": ID, "split": TEXT},
    }
    files = dict.fromkeys(("contacts", "codes", "notes", "medications", "labs"), EVENTS)
    by_file = frozenset({"codes", "notes", "medications", "labs"})
    of_files = ("_queries", "_events")

    def __init__(self, source_dir: epath.Path, options: Mapping[str, Any]) -> None:
        chosen = settings.build(MedsOptions, parse_options(options, _KINDS), "meds")
        self._chosen = chosen
        self._stays_file: epath.Path | None = None
        super().__init__("meds", chosen, MedsFiles(source_dir, (_CODES, _SPLITS)))

    def where(self, relation: str) -> str:
        """The folder of the events, or the file of metadata."""
        if relation == "splits" and not self._chosen.splits:
            return self._tables.where(_SPLITS)
        return super().where(relation)

    def titles(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the titles of codes."""
        if not self._described:
            return {}
        systems = self._chosen.systems
        return {
            _CODES: f"SELECT {rest(systems)} AS code, {system_of(systems)} AS system, "
            f"description AS title FROM {read(_CODES)} WHERE {has(systems)}"
        }

    def prepare(self, connection: duckdb.DuckDBPyConnection, folder: epath.Path) -> None:
        """Leaves in the work folder what every event is looked up in: the contacts' stays."""
        self._stays_file = folder / "stays.parquet"
        with self.reading("contacts"):
            connection.execute(
                f"COPY ({self._stays()}) TO {literal(str(self._stays_file))} (FORMAT parquet)"
            )
            self._view_stays(connection)
            self._check_admissions(connection)

    def relations(
        self, connection: duckdb.DuckDBPyConnection
    ) -> dict[str, duckdb.DuckDBPyRelation]:
        """The relations, over a view of the contacts' stays."""
        with self.reading("contacts"):
            self._view_stays(connection)
        return super().relations(connection)

    def _view_stays(self, connection: duckdb.DuckDBPyConnection) -> None:
        if self._stays_file is None:  # for headers
            connection.execute(f"CREATE OR REPLACE TABLE stays AS {self._stays()} WITH NO DATA")
        else:
            query = f"SELECT * FROM read_parquet({literal(str(self._stays_file))})"
            connection.execute(f"CREATE OR REPLACE VIEW stays AS {query}")

    def queries(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the relations."""
        chosen = self._chosen
        coded = f"""
            SELECT contact_id, {rest(chosen.systems)} AS code, 'unknown' AS role, NULL AS rank,
              {system_of(chosen.systems)} AS system
            FROM {self._placed(chosen.systems, chosen.grace_hours)}"""
        queries = {"contacts": self._contacts(), "codes": coded}
        if not chosen.keep_uncoded:
            queries["selected"] = f"SELECT contact_id FROM ({coded})"
        if _SPLITS in self._tables:
            queries["splits"] = f"SELECT subject_id AS patient_id, split FROM {read(_SPLITS)}"
        name, names = "NULL", ""
        if self._described:
            # Several names of a code stand on lines of their own.
            first = "min(split_part(nullif(description, ''), chr(10), 1)) AS name"
            table = f"SELECT code, {first} FROM {read(_CODES)} GROUP BY code"
            name, names = "name", f"LEFT JOIN ({table}) USING (code)"
        if "text_value" in self._there:
            queries["notes"] = f"""
                SELECT contact_id, time, lower({rest(chosen.notes)}) AS kind, text_value AS text
                FROM {self._placed(chosen.notes)}"""
        queries["medications"] = f"""
            SELECT contact_id, time, CASE WHEN {name} IS NOT NULL THEN rest END AS code,
              coalesce({name}, rest) AS name, NULL AS dose, {self._optional("route")} AS route
            FROM (SELECT *, {rest(chosen.medications)} AS rest
              FROM {self._placed(chosen.medications)}) {names}"""
        # A number as it was before it was one: 500, not 500.0.
        number = f"CAST({self._optional('numeric_value')} AS VARCHAR)"
        number = f"nullif(regexp_replace({number}, '\\.0$', ''), 'nan')"
        queries["labs"] = f"""
            SELECT contact_id, time, split_part(rest, '//', 1) AS code, {name} AS name,
              coalesce(nullif({self._optional("text_value")}, ''), {number}) AS value,
              nullif(array_to_string(string_split(rest, '//')[2:], '//'), 'UNK') AS unit,
              NULL AS low, NULL AS high, NULL AS flag
            FROM (SELECT *, {rest(chosen.labs)} AS rest
              FROM {self._placed(chosen.labs)}) {names}"""
        return queries

    def _contacts(self) -> str:
        chosen = self._chosen
        return f"""
            SELECT contact_id, subject_id AS patient_id, start, "end", specialty, sex,
              date_sub('year', born, start) AS age
            FROM (SELECT * FROM stays WHERE admissions > 0) LEFT JOIN (
                SELECT subject_id, min(time) FILTER ({has(chosen.birth)}) AS born,
                  min({rest(chosen.sex)}) AS sex
                FROM {self._events} WHERE {has((*chosen.birth, *chosen.sex))} GROUP BY subject_id
              ) USING (subject_id) LEFT JOIN (
                SELECT contact_id, arg_max(rest, time) AS specialty
                FROM (SELECT *, {rest(chosen.specialty)} AS rest
                  FROM {self._placed(chosen.specialty)})
                WHERE rest NOT IN ('', 'UNK') GROUP BY contact_id
              ) USING (contact_id)"""

    def _stays(self) -> str:
        """SQL of what lies between admission and discharge, a row each, with how many of both."""
        chosen = self._chosen
        # The number of admissions without an id so far. Of those at one time a discharge comes
        # first where the last event before, of a time that has one kind alone, was an admission.
        number = """count(*) FILTER (admitted) OVER (PARTITION BY subject_id, id
                ORDER BY time, admitted = coalesce(under_way, false), code
                ROWS UNBOUNDED PRECEDING)"""
        return f"""
            SELECT subject_id, stay AS contact_id, min(time) FILTER (admitted) AS start,
              min(time) FILTER (NOT admitted) AS "end", count(*) FILTER (admitted) AS admissions,
              count(*) FILTER (NOT admitted) AS discharges
            FROM (SELECT *, coalesce(id, concat(subject_id, '-', {number})) AS stay FROM (
              SELECT *, last_value(CASE WHEN alike THEN admitted END IGNORE NULLS) OVER (
                PARTITION BY subject_id, id ORDER BY time
                GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS under_way
              FROM (SELECT *, bool_and(admitted) OVER same = bool_or(admitted) OVER same AS alike
                FROM (SELECT subject_id, time, code, {has(chosen.admission)} AS admitted,
                    {self._id or "CAST(NULL AS VARCHAR)"} AS id FROM {self._events}
                  WHERE {has((*chosen.admission, *chosen.discharge))})
                WINDOW same AS (PARTITION BY subject_id, id, time))))
            GROUP BY subject_id, stay"""

    def _placed(self, prefixes: Iterable[str], grace_hours: float = 0.0) -> str:
        """SQL of the events of some codes, with contact_id; null where no contact holds them.

        The stays of a subject are one row, so that events stream past and none becomes two.
        """
        last = "list_filter(stays, lambda stay: {})[-1].contact_id"
        held = ['stay."end" = time', "stay.start <= time AND time <= stay.until"]
        if grace_hours:
            seconds = round(3600 * grace_hours)
            held.append(f'stay.start <= time AND time <= stay."end" + to_seconds({seconds})')
        first = f"{self._id}, " if self._id else ""
        return f"""(
            SELECT * EXCLUDE (stays), coalesce({first}{", ".join(map(last.format, held))})
              AS contact_id
            FROM (SELECT * FROM {self._events} WHERE {has(prefixes)}) LEFT JOIN (
                SELECT subject_id, list({{contact_id: contact_id, start: start, "end": "end",
                  until: until}} ORDER BY start, contact_id) AS stays
                FROM (SELECT *, coalesce("end", lead(start) OVER (PARTITION BY subject_id
                    ORDER BY start, contact_id), 'infinity') AS until FROM stays
                  WHERE admissions > 0 AND contact_id IS NOT NULL AND start IS NOT NULL)
                GROUP BY subject_id) USING (subject_id))"""

    @functools.cached_property
    def _there(self) -> dict[str, str]:
        """The columns of the events that are read, of any file, and what they hold."""
        found, named = self._found(EVENTS), self._chosen.contact_id
        if named not in found and named != _CONTACT_ID:
            raise columns.missing(named, COMPULSORY, found, self._tables.where(EVENTS))
        wanted = {**COMPULSORY, **_OPTIONAL, named: ID}
        return {name: kind for name, kind in wanted.items() if name in found}

    @functools.cached_property
    def _events(self) -> str:
        """SQL of all events; columns that these files lack, but others have, are null."""
        found = self._found(EVENTS)
        kinds = {name: kind for name, kind in self._there.items() if name in found}
        read = self._tables.typed(self._header_connection, EVENTS, kinds)
        nulls = "".join(
            f", CAST(NULL AS VARCHAR) AS {quoted(name)}"
            for name in self._there
            if name not in kinds
        )
        return f"(SELECT * REPLACE (CAST(time AS TIMESTAMP) AS time){nulls} FROM {read})"

    @functools.cached_property
    def _described(self) -> bool:
        """Whether there are descriptions of codes, which MEDS 0.4 leaves to the data set."""
        return _CODES in self._tables and "description" in self._found(_CODES)

    def _found(self, table: str) -> dict[str, str]:
        """The columns of a table."""
        where = self._tables.where(table)
        with reading(where, self.refusal):
            query = self._tables.query(table)
            return columns.by_name(self._header_connection.sql(query).columns, where)

    @property
    def _id(self) -> str:
        """The column with the id of the contact, as SQL; empty where there is none."""
        named = self._chosen.contact_id
        return quoted(named) if named in self._there else ""

    def _optional(self, column: str) -> str:
        return column if column in self._there else "NULL"

    def _check_admissions(self, connection: duckdb.DuckDBPyConnection) -> None:
        if connection.execute("SELECT 1 FROM stays WHERE admissions > 0 LIMIT 1").fetchall():
            return
        # A word before a slash is no text of a patient.
        rows = connection.execute(
            "SELECT regexp_extract(code, '^([A-Za-z][A-Za-z0-9_-]{0,39})/', 1) AS word, count(*) "
            f"FROM {self._events} GROUP BY word HAVING word <> '' ORDER BY 2 DESC, 1 LIMIT 10"
        ).fetchall()
        found = ", ".join(f"{word} ({count:,})" for word, count in rows) or "none with a slash"
        raise UserError(
            f"{self.where('contacts')}: no event has a code of admission = "
            f"{', '.join(self._chosen.admission)}; found codes that begin with {found}; name the "
            "events that begin and end a contact by the options admission and discharge"
        )

    def _assign(self, connection: duckdb.DuckDBPyConnection, folder: epath.Path) -> Findings:
        """Counts, too, what is odd about admissions and discharges."""
        dropped = super()._assign(connection, folder)
        before = "PARTITION BY subject_id ORDER BY start, contact_id ROWS BETWEEN UNBOUNDED"
        for reason, number, where in (
            ("admission without a discharge (kept)", "1", "admissions > 0 AND discharges = 0"),
            ("admission repeated in its contact", "admissions - 1", "admissions > 1"),
            (
                "discharge without an admission of its own",
                "discharges - least(admissions, 1)",
                "discharges > least(admissions, 1)",
            ),
            (
                "begins within another of its patient (kept)",
                "1",
                "admissions > 0 AND start < latest",
            ),
        ):
            ((count, example),) = connection.execute(
                f"""SELECT coalesce(sum({number}), 0), min(contact_id) FROM (
                  SELECT *, max("end") OVER ({before} PRECEDING AND 1 PRECEDING) AS latest
                  FROM stays) WHERE {where}"""
            ).fetchall()
            dropped.add(f"contacts: {reason}", example, count)
        return dropped
