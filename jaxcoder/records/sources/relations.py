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
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from jaxcoder.errors import UserError
from jaxcoder.lock import lock
from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import SPLITS, Contact
from jaxcoder.records.sources import columns, csv_files
from jaxcoder.records.sources.assignment import assign
from jaxcoder.records.sources.columns import COLUMNS, typed
from jaxcoder.records.sources.nest import Groups, nest
from jaxcoder.records.sources.staging import LEFT_OUT, MOST_PARTS, Staging, failable

_BATCH = 2048
_TEMPORARY = "jaxcoder-"
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
        memory_limit: str = "1500MB",
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
        """The relations on a connection: contacts, and any of the others.

        Two are not of `COLUMNS`: `splits`, a published split, and `selected`, the contact_id of the
        contacts that are wanted, where not all are.
        """

    @functools.cached_property
    def splits(self) -> tuple[str, ...]:
        """The splits that have contacts."""
        rows = self._connection.execute("SELECT DISTINCT split FROM ids").fetchall()
        return tuple(split for split in SPLITS if (split,) in rows)

    def size_of_rows(self) -> int:
        """About how many bytes the rows of all relations take in memory; 0 where they are few."""
        return 0

    def where(self, relation: str) -> str:
        """What messages call a relation: its file, where it has one."""
        return relation

    def refusal(self, relation: str, message: str) -> UserError:
        """What a user is told of a relation that DuckDB cannot read; its message may quote rows."""
        return csv_files.refusal(self.where(relation), message)

    def dropped(self, split: str) -> Mapping[str, int]:
        """From a reason to a number of rows; the split `""` has those that belong to no split."""
        return self._dropped.get(split, {})

    def contacts(self, split: str) -> Iterator[Contact]:
        """Streams the contacts of a split in the order of their ids.

        Raises:
          UserError: a missing column, an unreadable file, ids or splits that contradict each other.
        """
        dropped = self._dropped[split] = Findings()
        connection = self._connection
        parts = connection.execute(
            "SELECT DISTINCT part FROM ids WHERE split = ? ORDER BY part", [split]
        ).fetchall()
        for (part,) in parts:
            children = {
                relation: Groups(self._rows(relation, part, dropped))
                for relation in COLUMNS
                if relation != "contacts" and relation in self._columns
            }
            for row in self._rows("contacts", part, dropped):
                taken = {relation: groups.take(row[0]) for relation, groups in children.items()}
                yield nest(row, taken, self._system, dropped)

    def _rows(self, relation: str, part: int, dropped: Findings) -> Iterator[tuple[Any, ...]]:
        """Typed rows of the contacts of a part, ordered by contact and within it."""
        query = self._staging.part(relation, part)
        if query is None:
            return
        kinds = COLUMNS[relation]
        reasons = [
            f"{relation}.{name}: {columns.EMPTIED[kinds[name]]}"
            for name in failable(relation, self._columns[relation])
        ]
        # The cursor is another connection to the same database: a connection has one open stream at
        # a time.
        cursor = self._connection.cursor()
        with self._reading(relation):
            for batch in cursor.sql(query).to_arrow_reader(_BATCH):
                for *row, bits in zip(
                    *(column.to_pylist() for column in batch.columns), strict=True
                ):
                    if bits:
                        for place, reason in enumerate(reasons):
                            if bits >> place & 1:
                                dropped.add(reason, row[0])
                    yield tuple(row)

    @functools.cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """A database in a temporary folder, with one table: split and part of every contact."""
        _remove_abandoned()
        folder = self._exits.enter_context(tempfile.TemporaryDirectory(prefix=_TEMPORARY))
        if held := lock(folder):
            self._exits.callback(held.close)
        connection = duckdb.connect(str(pathlib.Path(folder) / "work.duckdb"))
        self._exits.callback(connection.close)
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # global: for its cursors too
        connection.execute("SET memory_limit = ?", [self._memory_limit])
        connection.execute("SET temp_directory = ?", [str(pathlib.Path(folder) / "spill")])
        # Joins stand as they are written, the large side first: of a packed CSV DuckDB guesses that
        # it is small, and would hold all of it: 120 million rows went to the disk, 25 GB.
        connection.execute("SET GLOBAL disabled_optimizers = 'join_order,build_side_probe_side'")
        self._staging = Staging(connection, pathlib.Path(folder))
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
                    raise columns.missing(wanted, COLUMNS[relation], names, self.where(relation))
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
                wanted = ("patient_id", "contact_id", "split")
                raise columns.missing(lacking, wanted, found["splits"], self.where("splits"))
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
        if "selected" in held:
            with self._reading("codes"):
                as_text("selected", ["contact_id"]).distinct().create("selected")
            ids = "SELECT contact_id FROM selected WHERE contact_id IS NOT NULL"
            out = f"split IS NOT NULL AND contact_id NOT IN ({ids})"
            ((count, example),) = connection.execute(
                f"SELECT count(*), min(contact_id) FROM ids WHERE {out}"
            ).fetchall()
            dropped.add("contacts: no code of the kind that is asked for", example, count)
            connection.execute(f"UPDATE ids SET split = NULL WHERE {out}; DROP TABLE selected")
        self._place(connection)
        for relation in COLUMNS:
            if relation in found:
                counts = Findings() if relation == "contacts" else dropped  # counted by now
                with self._reading(relation):
                    names = found[relation]
                    self._staging.put(relation, held[relation], names, self.where, counts)

    def _place(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Gives every contact a part: neighbours by id, so few that their rows sort in memory."""
        share = math.ceil(self.size_of_rows() / (_SORTED_SHARE * self._memory))
        most = MOST_PARTS // len(SPLITS)
        parts = max(1, min(share, most))
        first = " ".join(
            f"WHEN '{split}' THEN {number * parts}" for number, split in enumerate(SPLITS)
        )
        connection.execute(
            f"""
            CREATE TABLE placed AS SELECT contact_id, patient_id, split,
              CASE WHEN split IS NULL THEN {LEFT_OUT} ELSE CASE split {first} END
                + ((row_number() OVER of_split - 1) * {parts}) // count(*) OVER (PARTITION BY split)
              END AS part
            FROM ids WINDOW of_split AS (PARTITION BY split ORDER BY contact_id);
            DROP TABLE ids; ALTER TABLE placed RENAME TO ids"""
        )

    @contextlib.contextmanager
    def _reading(self, relation: str) -> Iterator[None]:
        """Turns DuckDB's errors into the user's, without the rows that they quote: notes, maybe."""
        try:
            yield
        except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
            raise  # a mistake of ours, in which no row is quoted
        except (duckdb.Error, pa.ArrowException) as error:
            message = str(error)
            if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in message:
                raise UserError(
                    f"{self.where(relation)}: does not fit memory_limit = {self._memory_limit}, or "
                    "the temporary folder is full; raise option memory_limit, or set TMPDIR to "
                    "another disk"
                ) from None
            raise self.refusal(relation, message) from None


def _remove_abandoned() -> None:
    """Removes what killed processes have left in the temporary folder: it is patients' data."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(BlockingIOError):  # it is still at work
            if (folder / ".lock").exists() and (held := lock(folder)):
                shutil.rmtree(folder, ignore_errors=True)
                held.close()


def size(text: str) -> int:
    """A size such as `2GB` in bytes.

    Raises:
      ValueError: not a size.
    """
    match = re.fullmatch(r"([0-9.]+) *([KMGT])i?B", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"memory_limit = {text!r}: expected a size such as 2GB")
    return int(float(match[1]) * 1000 ** ("KMGT".index(match[2].upper()) + 1))
