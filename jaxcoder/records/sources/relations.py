"""Contacts from the five relations: columns checked, rows typed, ordered streams merged.

DuckDB sorts and joins what may be larger than memory, and spills to the temporary folder (TMPDIR);
the sorted streams are merged here, a contact at a time. DuckDB's `list(… ORDER BY …)` would nest
rows too, but does not spill: 20 million rows under a limit of 2 GB die.
"""

import abc
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
from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import SPLITS, Contact
from jaxcoder.records.sources import columns
from jaxcoder.records.sources.assignment import assign
from jaxcoder.records.sources.columns import COLUMNS, quoted, typed
from jaxcoder.records.sources.csv_files import refusal
from jaxcoder.records.sources.nest import Groups, nest
from jaxcoder.records.sources.survey import survey

_ORDER = {
    "notes": "time NULLS LAST",
    "medications": "time NULLS LAST",
    "labs": "time NULLS LAST",
    "codes": "rank NULLS LAST",
    "evidence": 'note, "start", "end"',
}
_BATCH = 2048
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
        self._dropped: dict[str, Findings] = {}
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
        dropped = self._dropped[split] = Findings()
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
        bounds = [columns.literal(start) for (start,) in starts]
        ranges = []
        for number, bound in enumerate(bounds):
            condition = f"ids.split = '{split}' AND ids.contact_id >= {bound}"
            if number + 1 < len(bounds):
                condition += f" AND ids.contact_id < {bounds[number + 1]}"
            ranges.append(condition)
        return ranges

    def _rows(self, relation: str, ids: str, dropped: Findings) -> Iterator[tuple[Any, ...]]:
        """Typed rows of the contacts that `ids` tells, ordered by contact and within it."""
        kinds, found = COLUMNS[relation], self._columns[relation]
        reads = [
            f"{typed(kind, found[name]) if name in found else 'NULL'} AS {quoted(name)}"
            for name, kind in kinds.items()
        ]
        failures = {
            f"{relation}.{name}: {columns.EMPTIED[kind]}": failed
            for name, kind in kinds.items()
            if name in found and (failed := columns.failed(kind, found[name]))
        }
        # One bit a column whose value is there but cannot be read as its kind.
        bits_sql = " + ".join(
            f"CASE WHEN {failed} THEN {1 << place} ELSE 0 END"
            for place, failed in enumerate(failures.values())
        )
        names = ", ".join(f"typed.{quoted(name)}" for name in kinds)
        there = " AND ".join(f"typed.{name} IS NOT NULL" for name in columns.required(relation))
        order = f", {_ORDER[relation]}, number" if relation in _ORDER else ""
        # The cursor is another connection to the same database: a connection has one open stream at
        # a time.
        cursor = self._connection.cursor()
        raw = self.relations(cursor)[relation]  # noqa: F841 - the query names it
        query = f"""
            SELECT {names}, typed.failed FROM (
              SELECT {", ".join(reads)}, {bits_sql or "0"} AS failed,
                row_number() OVER () AS number FROM raw
            ) AS typed JOIN ids USING (contact_id)
            WHERE {ids} AND {there} ORDER BY contact_id{order}"""
        with self._reading(relation):
            for batch in cursor.sql(query).to_arrow_reader(_BATCH):
                for *row, bits in zip(
                    *(column.to_pylist() for column in batch.columns), strict=True
                ):
                    if bits:
                        for place, reason in enumerate(failures):
                            if bits >> place & 1:
                                dropped.add(reason, row[0])
                    yield tuple(row)

    @functools.cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """A database in a temporary folder, with one table: the split of every contact."""
        folder = self._exits.enter_context(tempfile.TemporaryDirectory(prefix="jaxcoder-"))
        connection = duckdb.connect(str(pathlib.Path(folder) / "work.duckdb"))
        self._exits.callback(connection.close)
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # global: for its cursors too
        connection.execute("SET memory_limit = ?", [self._memory_limit])
        connection.execute("SET temp_directory = ?", [str(pathlib.Path(folder) / "spill")])
        self._assign(connection)
        return connection

    @functools.cached_property
    def _columns(self) -> dict[str, dict[str, str]]:
        """From a relation and the name a column should have to the name that it has."""
        found = {}
        for relation, held in self.relations(self._header_connection).items():
            with self._reading(relation):
                names = columns.by_name(held.columns, self.where(relation))
            for wanted in COLUMNS.get(relation, {}):
                if wanted not in names and (relation, wanted) not in columns.OPTIONAL:
                    raise columns.missing(wanted, relation, names, self.where(relation))
            found[relation] = names
        if "contacts" not in found:
            raise UserError(
                f"{self.where('contacts')}: relation contacts is missing; it is compulsory"
            )
        return found

    @functools.cached_property
    def _header_connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        self._exits.callback(connection.close)
        return connection

    def _assign(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Makes the table `ids`, and counts the rows that no split has."""
        found, held = self._columns, self.relations(connection)

        def as_text(relation: str, names: Iterable[str], *more: str) -> duckdb.DuckDBPyRelation:
            ids = (f"{typed(columns.ID, found[relation][name])} AS {name}" for name in names)
            return held[relation].project(", ".join((*ids, *more)))

        published = None
        if "splits" in found:
            keys = [key for key in ("patient_id", "contact_id") if key in found["splits"]]
            if not keys or "split" not in found["splits"]:
                lacking = "split" if keys else "patient_id or contact_id"
                raise columns.missing(lacking, "splits", found["splits"], self.where("splits"))
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
        for relation in (name for name in COLUMNS if name != "contacts" and name in found):
            texts = " + ".join(
                f"coalesce(strlen(CAST({quoted(column)} AS VARCHAR)), 0)"
                for column in found[relation].values()
            )
            rows = as_text(relation, columns.required(relation), f"{texts} AS length")
            with self._reading(relation):
                self._bytes += survey(connection, relation, rows, self.where, dropped)

    @contextlib.contextmanager
    def _reading(self, relation: str) -> Iterator[None]:
        """Turns DuckDB's errors into the user's, without the rows that they quote: notes, maybe."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException) as error:
            message = str(error)
            if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in message:
                raise UserError(
                    f"{self.where(relation)}: does not fit memory_limit = {self._memory_limit}, or "
                    "the temporary folder is full; raise option memory_limit, or set TMPDIR to "
                    "another disk"
                ) from None
            raise refusal(self.where(relation), message) from None


def size(text: str) -> int:
    """A size such as `2GB` in bytes.

    Raises:
      ValueError: not a size.
    """
    match = re.fullmatch(r"([0-9.]+) *([KMGT])i?B", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"memory_limit = {text!r}: expected a size such as 2GB")
    return int(float(match[1]) * 1000 ** ("KMGT".index(match[2].upper()) + 1))
