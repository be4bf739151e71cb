"""Contacts from the five relations: columns checked, rows typed, ordered streams merged.

DuckDB sorts and joins what may be larger than memory, and spills to the temporary folder (TMPDIR);
the sorted streams are merged here, a contact at a time. DuckDB's `list(… ORDER BY …)` would nest
rows too, but does not spill: 20 million rows under a limit of 2 GB die.
"""

import abc
import collections
import contextlib
import functools
import math
import pathlib
import re
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from jaxcoder.errors import UserError
from jaxcoder.records.schema import SPLITS, Contact
from jaxcoder.records.sources.assignment import assign
from jaxcoder.records.sources.nest import Groups, nest

# What a column holds: an id may not be null; a place is an integer that a row of evidence cannot do
# without.
_ID, _TEXT, _TIME, _NUMBER, _INTEGER, _PLACE = (
    "id",
    "text",
    "timestamp",
    "number",
    "integer",
    "place",
)
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
_BATCH = 2048
_ROW_BYTES = 64
"""What a row takes in a sort, beside its texts."""
_SORTED_SHARE = 0.3
"""Share of the memory limit that the rows of a range may take; a sort takes twice its rows."""


class RelationalSource(abc.ABC):
    """A source that is its relations; subclasses have `name`, `identity` and `relations`."""

    name: str
    descriptions: Mapping[str, str] = {}

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
        self._seed, self._shares = seed, shares
        self._system, self._memory_limit = system, memory_limit
        self._memory = size(memory_limit)
        self._bytes = 0
        self._dropped: dict[str, collections.Counter[str]] = {}
        self._exits = contextlib.ExitStack()
        weakref.finalize(self, self._exits.close)

    @property
    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides every record, as JSON values."""

    @abc.abstractmethod
    def relations(
        self, connection: duckdb.DuckDBPyConnection
    ) -> dict[str, duckdb.DuckDBPyRelation]:
        """The relations on a connection: contacts, and any of the others, `splits` included."""

    @functools.cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that have contacts."""
        rows = self._connection.execute("SELECT DISTINCT split FROM ids").fetchall()
        return tuple(split for split in SPLITS if (split,) in rows)

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
        for ids in self._ranges(split):
            children = {
                relation: Groups(self._rows(relation, ids, dropped))
                for relation in COLUMNS
                if relation != "contacts" and relation in self._columns
            }
            for row in self._rows("contacts", ids, dropped):
                taken = {relation: groups.take(row[0]) for relation, groups in children.items()}
                yield nest(row, taken, self._system, dropped)

    def _ranges(self, split: str) -> list[str]:
        """Conditions on `ids` that cut a split into ranges of contacts whose sorts fit in memory.

        DuckDB spills a sort that does not fit, but slowly: 5.3 GB of notes under a limit of 0.5 GB
        were not sorted after 280 s, on two busy cores; in 31 ranges, each another scan of the file,
        they took 115 s and 0.5 GB in all. What fits is one range.
        """
        connection = self._connection
        count, share = connection.execute(
            "SELECT count(*) FILTER (split = ?), count(*) FILTER (split = ?) / count(*) FROM ids",
            [split, split],
        ).fetchone() or (0, 0.0)
        pieces = math.ceil(self._bytes * share / (_SORTED_SHARE * self._memory))
        each = max(1, math.ceil(count / max(1, pieces)))
        starts = connection.execute(
            "SELECT contact_id FROM (SELECT contact_id, row_number() OVER (ORDER BY contact_id) AS "
            "place FROM ids WHERE split = ?) WHERE (place - 1) % ? = 0 ORDER BY contact_id",
            [split, each],
        ).fetchall()
        bounds = [_literal(start) for (start,) in starts]
        ranges = []
        for number, bound in enumerate(bounds):
            condition = f"ids.split = '{split}' AND ids.contact_id >= {bound}"
            if number + 1 < len(bounds):
                condition += f" AND ids.contact_id < {bounds[number + 1]}"
            ranges.append(condition)
        return ranges

    def _rows(
        self, relation: str, ids: str, dropped: collections.Counter[str]
    ) -> Iterator[tuple[Any, ...]]:
        """Typed rows of the contacts that `ids` tells, ordered by contact and within it."""
        kinds = COLUMNS[relation]
        typed, failed = [], []
        for place, (column, kind) in enumerate(kinds.items()):
            found = _quoted(self._columns[relation][column])
            typed.append(f"{_SQL[kind].format(found)} AS {_quoted(column)}")
            if kind in (_TIME, _NUMBER, _INTEGER, _PLACE):
                # One bit a column whose value is there but cannot be read as its type.
                empty = f"({found} IS NULL OR CAST({found} AS VARCHAR) = '')"
                failed.append(
                    f"CASE WHEN {empty} OR {_SQL[kind].format(found)} IS NOT NULL THEN 0 "
                    f"ELSE {1 << place} END"
                )
        names = ", ".join(f"typed.{_quoted(column)}" for column in kinds)
        there = " AND ".join(
            f"typed.{column} IS NOT NULL" for column, kind in kinds.items() if kind == _ID
        )
        order = f", {_ORDER[relation]}, number" if relation in _ORDER else ""
        # The cursor is another connection to the same database: a connection has one open stream at
        # a time.
        cursor = self._connection.cursor()
        raw = self.relations(cursor)[relation]  # noqa: F841 - the query names it
        query = f"""
            SELECT {names}, typed.failed FROM (
              SELECT {", ".join(typed)}, {" + ".join(failed) or "0"} AS failed,
                row_number() OVER () AS number FROM raw
            ) AS typed JOIN ids USING (contact_id)
            WHERE {ids} AND {there} ORDER BY contact_id{order}"""
        columns = list(kinds)
        with self._reading(relation):
            for batch in cursor.sql(query).to_arrow_reader(_BATCH):
                for *row, bits in zip(
                    *(column.to_pylist() for column in batch.columns), strict=True
                ):
                    if bits:
                        for place, column in enumerate(columns):
                            if bits >> place & 1:
                                dropped[
                                    f"{relation}.{column}: not of type {kinds[column]} (emptied)"
                                ] += 1
                    yield tuple(row)

    @functools.cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """A database in a temporary folder, with one table: the split of every contact."""
        folder = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="jaxcoder-"))
        connection = duckdb.connect(str(pathlib.Path(folder) / "work.duckdb"))
        self._exits.callback(connection.close)
        connection.execute("SET memory_limit = ?", [self._memory_limit])
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
                    raise UserError(
                        f"{self.where(relation)}: columns {by_name[key]!r} and {column!r} have the "
                        "same name; rename one"
                    )
                by_name[key] = column
            for wanted in COLUMNS.get(relation, {}):
                if wanted not in by_name:
                    raise UserError(
                        f"{self.where(relation)}: column {wanted!r} is missing; found "
                        f"{', '.join(found)}; rename one, or add it (empty, unless it is an id)"
                    )
            columns[relation] = by_name
        if "contacts" not in columns:
            raise UserError(
                f"{self.where('contacts')}: relation contacts is missing; it is compulsory"
            )
        return columns

    @functools.cached_property
    def _header_connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        self._exits.callback(connection.close)
        return connection

    def _assign(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Makes the table `ids`, and counts the rows that no split has."""
        columns, held = self._columns, self.relations(connection)

        def as_text(relation: str, names: Iterable[str], *more: str) -> duckdb.DuckDBPyRelation:
            found = columns[relation]
            ids = (f"{_SQL[_ID].format(_quoted(found[name]))} AS {name}" for name in names)
            return held[relation].project(", ".join((*ids, *more)))

        published = None
        if "splits" in columns:
            keys = [key for key in ("patient_id", "contact_id") if key in columns["splits"]]
            if not keys or "split" not in columns["splits"]:
                raise UserError(
                    f"{self.where('splits')}: column "
                    f"{'split' if keys else 'patient_id or contact_id'} is missing; "
                    f"found {', '.join(columns['splits'].values())}"
                )
            published = as_text("splits", (*keys, "split"))
        with self._reading("splits" if published is not None else "contacts"):
            dropped = self._dropped[""] = assign(
                connection,
                as_text("contacts", ("contact_id", "patient_id")),
                published,
                self.where,
                self._seed,
                self._shares,
            )
        for relation in (name for name in COLUMNS if name != "contacts" and name in columns):
            wanted = [key for key, kind in COLUMNS[relation].items() if kind == _ID]
            missing = " OR ".join(f"rows.{key} IS NULL" for key in wanted)
            texts = " + ".join(
                f"coalesce(strlen(CAST({_quoted(column)} AS VARCHAR)), 0)"
                for column in columns[relation].values()
            )
            rows = as_text(relation, wanted, f"{texts} AS length").set_alias("rows")
            known = connection.table("ids").set_alias("ids")
            with self._reading(relation):
                counts = (
                    rows.join(known, "rows.contact_id = ids.contact_id", "left")
                    .aggregate(
                        f"count(*) FILTER ({missing}), "
                        f"count(*) FILTER (NOT ({missing}) AND ids.contact_id IS NULL), "
                        f"coalesce(sum(length), 0) + {_ROW_BYTES} * count(*)"
                    )
                    .fetchall()[0]
                )
            *missed, length = counts
            self._bytes += int(length)
            reasons = (f"no {' or no '.join(wanted)}", "contact_id not in contacts")
            for reason, count in zip(reasons, missed, strict=True):
                if count:
                    dropped[f"{relation}: {reason}"] += count

    @contextlib.contextmanager
    def _reading(self, relation: str) -> Iterator[None]:
        """Turns DuckDB's errors into the user's, without the rows that they quote: notes, maybe."""
        try:
            yield
        except duckdb.OutOfMemoryException:
            raise UserError(
                f"{self.where(relation)}: does not fit memory_limit = {self._memory_limit}, or the "
                "temporary folder is full; raise option memory_limit, or set TMPDIR to another disk"
            ) from None
        except (duckdb.Error, pa.ArrowException) as error:
            line = re.search(r"\bLine: (\d+)", str(error))
            place = f", line {line[1]}" if line else ""
            raise UserError(
                f"{self.where(relation)}{place}: cannot be read ({type(error).__name__}); expected "
                "Parquet, or CSV with a header, quoted by double quotes"
            ) from None


def size(text: str) -> int:
    """A size such as `2GB` in bytes.

    Raises:
      ValueError: not a size.
    """
    match = re.fullmatch(r"([0-9.]+) *([KMGT])i?B", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"memory_limit = {text!r}: expected a size such as 2GB")
    return int(float(match[1]) * 1000 ** ("KMGT".index(match[2].upper()) + 1))


def _literal(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
