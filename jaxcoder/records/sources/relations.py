"""Contacts from the five relations: columns checked, rows typed, and ordered streams nested into contacts.

Everything that may be larger than memory is sorted and joined by DuckDB, which spills to the temporary folder (TMPDIR); the
sorted streams are merged here a contact at a time. DuckDB's `list(… ORDER BY …)` would nest them too, but does not spill: 20
million rows under a limit of 2 GB die.
"""

import abc
import collections
import contextlib
import functools
import itertools
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from jaxcoder.errors import UserError
from jaxcoder.records import codes as icd
from jaxcoder.records.schema import ROLES, SPLITS, Code, Contact, Evidence, Lab, Medication, Note
from jaxcoder.records.split import split_of

# What a column holds: an id may not be null; a place is an integer that a row of evidence cannot do without.
_ID, _TEXT, _TIME, _NUMBER, _INTEGER, _PLACE = "id", "text", "timestamp", "number", "integer", "place"
COLUMNS: dict[str, dict[str, str]] = {
    "contacts": {
        "contact_id": _ID,
        "patient_id": _ID,
        "start": _TIME,
        "end": _TIME,
        "specialty": _TEXT,
        "age": _NUMBER,
        "sex": _TEXT,
    },
    "notes": {"contact_id": _ID, "time": _TIME, "kind": _TEXT, "text": _TEXT},
    "medications": {
        "contact_id": _ID,
        "time": _TIME,
        "code": _TEXT,
        "name": _TEXT,
        "dose": _TEXT,
        "route": _TEXT,
    },
    "labs": {
        "contact_id": _ID,
        "time": _TIME,
        "code": _TEXT,
        "name": _TEXT,
        "value": _TEXT,
        "unit": _TEXT,
        "low": _NUMBER,
        "high": _NUMBER,
        "flag": _TEXT,
    },
    "codes": {"contact_id": _ID, "code": _ID, "system": _TEXT, "role": _TEXT, "rank": _INTEGER},
    "evidence": {"contact_id": _ID, "code": _ID, "note": _PLACE, "start": _PLACE, "end": _PLACE},
}
"""The relations that nest into a contact, their columns, and what each holds."""

_ORDER = {
    "notes": "time NULLS LAST",
    "medications": "time NULLS LAST",
    "labs": "time NULLS LAST",
    "codes": "rank NULLS LAST",
    "evidence": 'note, "start", "end"',
}
_SQL = {
    _ID: "nullif(CAST({} AS VARCHAR), '')",
    _TEXT: "CAST({} AS VARCHAR)",
    _TIME: "strftime(TRY_CAST({} AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S')",
    _NUMBER: "TRY_CAST({} AS DOUBLE)",
    _INTEGER: "TRY_CAST({} AS BIGINT)",
    _PLACE: "TRY_CAST({} AS BIGINT)",
}
_SEX = {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M", "U": "U", "UNKNOWN": "U", "": "U"}
_SPLIT_NAMES = {**{split: split for split in SPLITS}, "val": "validation", "dev": "validation"}
_BATCH = 2048


class RelationalSource(abc.ABC):
    """A source that is its relations. Subclasses set `name` and `identity`, and give `relations`."""

    name: str
    splits = SPLITS

    def __init__(
        self,
        *,
        seed: int = 0,
        shares: Sequence[float] = (0.8, 0.1, 0.1),
        system: str = "icd10",
        memory_limit: str = "2GB",
    ) -> None:
        """Remembers how to split and read; reads nothing.

        Args:
          seed: of the split by patient.
          shares: of train, validation and test; both are unused where there is a relation `splits`.
          system: code system of codes that name none.
          memory_limit: of DuckDB, such as `2GB`; what is larger goes through the temporary folder.
        """
        self._seed, self._shares, self._system, self._memory_limit = seed, shares, system, memory_limit
        self._dropped: dict[str, collections.Counter[str]] = {}
        self._exits = contextlib.ExitStack()

    @property
    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides every record, as JSON values."""

    @abc.abstractmethod
    def relations(self, connection: duckdb.DuckDBPyConnection) -> dict[str, duckdb.DuckDBPyRelation]:
        """The relations on a connection: contacts, and any of the others, `splits` included."""

    def where(self, relation: str) -> str:
        """What messages call a relation: its file, where it has one."""
        return relation

    def dropped(self, split: str) -> Mapping[str, int]:
        """From a reason to a number of rows; the split `""` has those that belong to no split."""
        return self._dropped.get(split, {})

    def contacts(self, split: str) -> Iterator[Contact]:
        """Streams the contacts of a split in the order of their ids.

        Raises:
          UserError: a missing column, an unreadable file, ids or splits that contradict each other.
        """
        dropped = self._dropped[split] = collections.Counter()
        children = {}
        for relation in (name for name in COLUMNS if name != "contacts" and name in self._columns):
            children[relation] = _Groups(self._rows(relation, split, dropped))
        for row in self._rows("contacts", split, dropped):
            taken = {relation: groups.take(row[0]) for relation, groups in children.items()}
            yield self._contact(row, taken, dropped)

    def _contact(
        self, row: tuple[Any, ...], children: Mapping[str, list[tuple[Any, ...]]], dropped: collections.Counter[str]
    ) -> Contact:
        contact_id, patient_id, start, end, specialty, age, sex = row
        notes = tuple(Note(text or "", kind or "", time or "") for _, time, kind, text in children.get("notes", ()))
        codes = self._codes(children.get("codes", ()), dropped)
        if age is not None and not 0 <= age <= 130:
            dropped["contacts.age: outside 0-130 years (emptied)"] += 1
            age = None
        if (sex or "").upper() not in _SEX:
            dropped["contacts.sex: not F, M or U (set to U)"] += 1
        return Contact(
            contact_id,
            patient_id,
            start or "",
            end or "",
            specialty or "",
            age,
            _SEX.get((sex or "").upper(), "U"),
            notes,
            tuple(
                Medication(code or "", name or "", dose or "", route or "", time or "")
                for _, time, code, name, dose, route in children.get("medications", ())
            ),
            tuple(
                Lab(
                    code or "",
                    name or "",
                    value or "",
                    unit or "",
                    low,
                    high,
                    _flag(flag, dropped) if flag else "",
                    time or "",
                )
                for _, time, code, name, value, unit, low, high, flag in children.get("labs", ())
            ),
            codes,
            self._evidence(children.get("evidence", ()), notes, codes, dropped),
        )

    def _codes(self, rows: Sequence[tuple[Any, ...]], dropped: collections.Counter[str]) -> tuple[Code, ...]:
        codes: dict[str, Code] = {}
        for _, written, system, role, rank in rows:
            try:
                code, system = _normalised(written, system or self._system)
            except ValueError as error:
                dropped[f"codes: {error}"] += 1
                continue
            role = (role or "unknown").lower()
            if role not in ROLES:
                dropped[f"codes.role: not {', '.join(ROLES)} (set to unknown)"] += 1
                role = "unknown"
            if code in codes:
                dropped["codes: code repeated in its contact"] += 1
            else:
                codes[code] = Code(code, system, role, max(0, rank or 0))
        return tuple(codes.values())

    def _evidence(
        self,
        rows: Sequence[tuple[Any, ...]],
        notes: Sequence[Note],
        codes: Sequence[Code],
        dropped: collections.Counter[str],
    ) -> tuple[Evidence, ...]:
        systems = {code.code: code.system for code in codes}
        evidence = []
        for mention, (_, written, note, start, end) in enumerate(rows):
            code = _match(written, systems)
            if code is None:
                dropped["evidence: the contact does not have the code"] += 1
            elif None in (note, start, end) or not 0 <= note < len(notes):
                dropped["evidence: the contact does not have the note"] += 1
            elif not 0 <= start < end <= len(notes[note].text):
                dropped["evidence: offsets outside the note"] += 1
            else:
                evidence.append(Evidence(code, note, start, end, mention))
        return tuple(evidence)

    def _rows(self, relation: str, split: str, dropped: collections.Counter[str]) -> Iterator[tuple[Any, ...]]:
        """Typed rows of a split, ordered by contact and within it; rows without an id are not among them."""
        kinds = COLUMNS[relation]
        typed, failed = [], []
        for place, (column, kind) in enumerate(kinds.items()):
            found = _quoted(self._columns[relation][column])
            typed.append(f"{_SQL[kind].format(found)} AS {_quoted(column)}")
            if kind in (_TIME, _NUMBER, _INTEGER, _PLACE):
                # One bit a column whose value is there but cannot be read as its type.
                empty = f"({found} IS NULL OR CAST({found} AS VARCHAR) = '')"
                failed.append(f"CASE WHEN {empty} OR {_SQL[kind].format(found)} IS NOT NULL THEN 0 ELSE {1 << place} END")
        names = ", ".join(f"typed.{_quoted(column)}" for column in kinds)
        ids = " AND ".join(f"typed.{column} IS NOT NULL" for column, kind in kinds.items() if kind == _ID)
        order = f", {_ORDER[relation]}, number" if relation in _ORDER else ""
        # The cursor is another connection to the same database: a connection has one open stream at a time.
        cursor = self._connection.cursor()
        raw = self.relations(cursor)[relation]  # noqa: F841 - DuckDB finds it by its name in the query
        query = f"""
            SELECT {names}, typed.failed FROM (
              SELECT {", ".join(typed)}, {" + ".join(failed) or "0"} AS failed, row_number() OVER () AS number FROM raw
            ) AS typed JOIN assignment USING (contact_id)
            WHERE assignment.split = '{split}' AND {ids} ORDER BY contact_id{order}"""
        columns = list(kinds)
        with self._reading(relation):
            for batch in cursor.sql(query).to_arrow_reader(_BATCH):
                for *row, bits in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if bits:
                        for place, column in enumerate(columns):
                            if bits >> place & 1:
                                dropped[f"{relation}.{column}: not a {kinds[column]} (emptied)"] += 1
                    yield tuple(row)

    @functools.cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """A database of its own in a temporary folder, with one table: the split of every contact."""
        folder = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="jaxcoder-"))
        connection = duckdb.connect(str(pathlib.Path(folder) / "work.duckdb"))
        self._exits.callback(connection.close)
        try:
            connection.execute("SET memory_limit = ?", [self._memory_limit])
        except duckdb.Error:
            raise UserError(f"memory_limit = {self._memory_limit!r}: expected a size such as 2GB") from None
        connection.execute("SET temp_directory = ?", [str(pathlib.Path(folder) / "spill")])
        self._assign(connection)
        return connection

    @functools.cached_property
    def _columns(self) -> dict[str, dict[str, str]]:
        """From a relation and the name a column should have to the name that it has."""
        columns = {}
        for relation, held in self.relations(self._header_connection).items():
            with self._reading(relation):
                found = list(held.columns)
            by_name: dict[str, str] = {}
            for column in found:
                key = column.strip().lower()
                if key in by_name:
                    raise UserError(f"{self.where(relation)}: columns {by_name[key]!r} and {column!r} are the same")
                by_name[key] = column
            for wanted in COLUMNS.get(relation, {}):
                if wanted not in by_name:
                    raise UserError(
                        f"{self.where(relation)}: column {wanted!r} is missing; found {', '.join(found)}; "
                        "rename it, or add an empty one unless it is an id"
                    )
            columns[relation] = by_name
        if "contacts" not in columns:
            raise UserError(f"{self.where('contacts')}: relation contacts is missing; it is compulsory")
        return columns

    @functools.cached_property
    def _header_connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        self._exits.callback(connection.close)
        return connection

    def _assign(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Makes the table `assignment` (contact_id, patient_id, split), and counts rows that no split has."""
        columns = self._columns
        dropped = self._dropped[""] = collections.Counter()
        ids = {
            key: _SQL[_ID].format(_quoted(columns["contacts"][key])) for key in ("contact_id", "patient_id")
        }
        raw = self.relations(connection)["contacts"]  # noqa: F841 - DuckDB finds it by its name
        with self._reading("contacts"):
            connection.execute(
                f"CREATE TABLE ids AS SELECT {ids['contact_id']} AS contact_id, {ids['patient_id']} AS patient_id FROM raw"
            )
        _count(
            dropped,
            "contacts: no contact_id or no patient_id",
            connection.execute("SELECT count(*) FROM ids WHERE contact_id IS NULL OR patient_id IS NULL"),
        )
        connection.execute("DELETE FROM ids WHERE contact_id IS NULL OR patient_id IS NULL")
        twice = connection.execute(
            "SELECT contact_id, count(*) FROM ids GROUP BY contact_id HAVING count(*) > 1 ORDER BY contact_id LIMIT 1"
        ).fetchone()
        if twice:
            raise UserError(
                f"{self.where('contacts')}: contact_id {twice[0]!r} stands in {twice[1]} rows; expected one a contact"
            )
        if "splits" in columns:
            self._published(connection)
        else:
            self._hashed(connection)
        _count(
            dropped,
            "contacts: not in the relation splits",
            connection.execute("SELECT count(*) FROM ids ANTI JOIN assignment USING (contact_id)"),
        )
        for relation in (name for name in COLUMNS if name != "contacts" and name in columns):
            raw = self.relations(connection)[relation]
            found = {
                key: _SQL[_ID].format(_quoted(columns[relation][key]))
                for key, kind in COLUMNS[relation].items()
                if kind == _ID
            }
            nulls = " OR ".join(f"{expression} IS NULL" for expression in found.values())
            with self._reading(relation):
                none, orphans = connection.execute(
                    f"SELECT count(*) FILTER (missing), count(*) FILTER (NOT missing AND ids.contact_id IS NULL) "
                    f"FROM (SELECT {found['contact_id']} AS contact_id, {nulls} AS missing FROM raw) AS held "
                    "LEFT JOIN ids USING (contact_id)"
                ).fetchone() or (0, 0)
            if none:
                dropped[f"{relation}: no {' or no '.join(found)}"] += none
            if orphans:
                dropped[f"{relation}: contact_id not in contacts"] += orphans
        connection.execute("DROP TABLE ids")

    def _hashed(self, connection: duckdb.DuckDBPyConnection) -> None:
        schema = pa.schema([("contact_id", pa.string()), ("split", pa.string())])

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in connection.cursor().sql("SELECT contact_id, patient_id FROM ids").to_arrow_reader(65_536):
                splits = [split_of(patient, self._seed, self._shares) for patient in batch.column(1).to_pylist()]
                yield pa.record_batch([batch.column(0), pa.array(splits, pa.string())], schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())  # noqa: F841 - DuckDB finds it by its name
        connection.execute("CREATE TABLE assignment AS SELECT * FROM reader")

    def _published(self, connection: duckdb.DuckDBPyConnection) -> None:
        columns, where = self._columns["splits"], self.where("splits")
        keys = [key for key in ("patient_id", "contact_id") if key in columns]
        if not keys or "split" not in columns:
            wanted = "split" if keys else "patient_id or contact_id"
            raise UserError(f"{where}: column {wanted} is missing; found {', '.join(columns.values())}")
        # A list with both ids is read by contact; that one patient has one split is checked below.
        key = keys[-1]
        raw = self.relations(connection)["splits"]  # noqa: F841 - DuckDB finds it by its name
        names = ", ".join(f"('{name}', '{split}')" for name, split in _SPLIT_NAMES.items())
        with self._reading("splits"):
            connection.execute(
                f"CREATE TABLE published AS SELECT DISTINCT {_SQL[_ID].format(_quoted(columns[key]))} AS id, "
                f"lower(trim(CAST({_quoted(columns['split'])} AS VARCHAR))) AS written FROM raw"
            )
        connection.execute(
            f"CREATE TABLE named AS SELECT DISTINCT id, written, names.split FROM published "
            f"LEFT JOIN (VALUES {names}) AS names(name, split) ON name = written WHERE id IS NOT NULL"
        )
        unknown = connection.execute("SELECT written FROM named WHERE split IS NULL ORDER BY ALL LIMIT 1").fetchone()
        if unknown:
            raise UserError(f"{where}: split {unknown[0]!r}; expected one of {', '.join(_SPLIT_NAMES)}")
        conflict = connection.execute(
            "SELECT id, string_agg(DISTINCT split, ' and ' ORDER BY split) FROM named GROUP BY id "
            "HAVING count(DISTINCT split) > 1 ORDER BY id LIMIT 1"
        ).fetchone()
        if conflict:
            raise UserError(f"{where}: {key} {conflict[0]!r} is in {conflict[1]}; expected one split")
        connection.execute(
            f"CREATE TABLE assignment AS SELECT DISTINCT contact_id, patient_id, split FROM ids "
            f"JOIN named ON named.id = ids.{key}"
        )
        torn = connection.execute(
            "SELECT patient_id, string_agg(DISTINCT split, ' and ' ORDER BY split) FROM assignment "
            "GROUP BY patient_id HAVING count(DISTINCT split) > 1 ORDER BY patient_id LIMIT 1"
        ).fetchone()
        if torn:
            raise UserError(
                f"{where}: contacts of patient_id {torn[0]!r} are in {torn[1]}; a split is by patient: give each one split"
            )

    @contextlib.contextmanager
    def _reading(self, relation: str) -> Iterator[None]:
        """Turns DuckDB's errors into the user's. Its messages quote rows, which may be notes: none of them is kept."""
        try:
            yield
        except duckdb.OutOfMemoryException:
            raise UserError(
                f"{self.where(relation)}: does not fit memory_limit = {self._memory_limit}, or the temporary folder is "
                "full; give --option memory_limit a larger size, or set TMPDIR to a larger disk"
            ) from None
        except (duckdb.Error, pa.ArrowException) as error:
            line = re.search(r"\bLine: (\d+)", str(error))
            place = f", line {line[1]}" if line else ""
            raise UserError(
                f"{self.where(relation)}{place}: cannot be read ({type(error).__name__}); expected Parquet, or CSV with a "
                "header, quoted by double quotes"
            ) from None


class _Groups:
    """Rows ordered by their first column, taken a group at a time by ids that rise."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._groups = itertools.groupby(rows, key=lambda row: row[0])
        self._next = next(self._groups, None)

    def take(self, contact_id: str) -> list[tuple[Any, ...]]:
        if self._next is None or self._next[0] != contact_id:
            return []
        rows = list(self._next[1])
        self._next = next(self._groups, None)
        return rows


def _flag(flag: str, dropped: collections.Counter[str]) -> str:
    if flag.upper() in ("L", "H", "A"):
        return flag.upper()
    dropped["labs.flag: not L, H or A (emptied)"] += 1
    return ""


@functools.lru_cache(maxsize=100_000)
def _normalised(written: str, system: str) -> tuple[str, str]:
    """The normalised code and system. The ValueError's message is safe to show: a code, never a sentence."""
    shown = written if re.fullmatch(r"[\w.+*†!-]{1,10}", written) else "(longer than any code)"
    try:
        system = icd.canonical_system(system)
    except ValueError:
        raise ValueError(f"unknown system {system[:20]!r}; expected {', '.join(icd.SYSTEMS)}") from None
    try:
        return icd.normalise(written, system), system
    except ValueError:
        raise ValueError(f"malformed {system} code {shown}") from None


def _match(written: str, systems: Mapping[str, str]) -> str | None:
    """The contact's code that a written code means, in whichever of the contact's systems."""
    if written in systems:
        return written
    for system in dict.fromkeys(systems.values()):
        try:
            code = _normalised(written, system)[0]
        except ValueError:
            continue
        if code in systems:
            return code
    return None


def _count(dropped: collections.Counter[str], reason: str, result: duckdb.DuckDBPyConnection) -> None:
    row = result.fetchone()
    if row and row[0]:
        dropped[reason] += row[0]


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
