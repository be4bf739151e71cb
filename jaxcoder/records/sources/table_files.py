"""Tables of a folder, found by name: Parquet, CSV, or folders of Parquet parts."""

import abc
import contextlib
import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from etils import epath
from pyarrow import parquet

from jaxcoder.errors import UserError
from jaxcoder.records.sources import columns, csv_files, fingerprint

_MOST_SLICES = 64
_LEAST_ROW = 100
"""Bytes of a row, however well its file is packed."""
ENDINGS = (".parquet", *csv_files.ENDINGS)


class SourceTables(abc.ABC):
    """Some tables by name, wherever they are; `name in tables` says whether one is there."""

    @abc.abstractmethod
    def __contains__(self, name: str) -> bool: ...

    @property
    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """What changes when the tables do, as JSON values: a source's identity has it."""

    @abc.abstractmethod
    def where(self, name: str) -> str:
        """What messages call a table."""

    @abc.abstractmethod
    def size_of_rows(self) -> int:
        """About how many bytes the rows take in memory, unpacked: rather too many than too few."""

    @abc.abstractmethod
    def query(self, name: str) -> str:
        """SQL that reads a table as it is.

        Raises:
          UserError: it cannot be read.
        """

    def slices(self, name: str) -> Sequence["SourceTables"]:
        """The same tables, each time with some rows of one of them, which are all of it in order.

        Args:
          name: of that table.
        """
        del name
        return [self]

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:  # noqa: B027
        """Makes a connection able to run the queries; of files, every one is."""

    def refusal(self, where: str, message: str) -> UserError:
        """What a user is told of a table that DuckDB cannot read.

        Args:
          where: what messages call it.
          message: DuckDB's, which may quote a row.
        """
        return csv_files.refusal(where, message)

    def typed(
        self, connection: duckdb.DuckDBPyConnection, name: str, kinds: Mapping[str, str]
    ) -> str:
        """SQL that reads some columns of a table, ids and codes as text whatever the table holds.

        Args:
          connection: reads the header.
          name: of the table.
          kinds: from a column to what it holds, as in `columns`; other columns are left out. Case
            does not matter.

        Raises:
          UserError: a column is missing.
        """
        query = self.query(name)
        self.attach(connection)
        found = columns.by_name(connection.sql(query).columns, self.where(name))
        for wanted in kinds:
            if wanted not in found:
                raise columns.missing(wanted, kinds, found, self.where(name))
        reads = ", ".join(
            f"{columns.typed(kind, found[column])} AS {columns.quoted(column)}"
            if kind in (columns.ID, columns.CODE, columns.TEXT)
            else f"{columns.quoted(found[column])} AS {columns.quoted(column)}"
            for column, kind in kinds.items()
        )
        return f"(SELECT {reads} FROM ({query}))"


class TableFiles(SourceTables):
    """The files of some tables.

    Attributes:
      folder: where they lie.
      files: from the name of a table that is there to its file, or its parts in order.
    """

    def __init__(
        self,
        folder: epath.Path,
        names: Iterable[str],
        compulsory: Iterable[str] = (),
        unquoted: Iterable[str] = (),
    ) -> None:
        """Finds the files; reads none.

        Args:
          folder: where they lie.
          names: of the tables, with a folder below this one where they lie there (`hosp/patients`).
            A file's name is in lower or in upper case, its ending in lower.
          compulsory: those that must be there.
          unquoted: those in which a quote is a character like others where tabs part the columns.

        Raises:
          UserError: two files of one table, a folder without parts, or a table that is missing.
        """
        self.folder = folder
        self._queries: dict[str, str] = {}
        self._unquoted = set(unquoted)
        self.files: dict[str, list[epath.Path]] = {}
        listed: dict[epath.Path, dict[str, epath.Path]] = {}
        for name in names:
            parent = (folder / name).parent
            if parent not in listed:
                there = parent.iterdir() if parent.is_dir() else ()
                listed[parent] = {path.name: path for path in there}
            found = _found(parent, listed[parent], (folder / name).name)
            if found:
                self.files[name] = found
        for name in compulsory:
            if name not in self.files:
                raise UserError(
                    f"{folder}: no {name}.parquet or {name}.csv; it is compulsory; add it, or name "
                    "the folder that holds it"
                )

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def where(self, name: str) -> str:
        """The file of a table, or the folder of its parts, for messages."""
        files = self.files.get(name, [self.folder / name])
        return str(files[0] if len(files) == 1 else files[0].parent)

    @property
    def state(self) -> dict[str, Any]:
        """A fingerprint of the files."""
        return {"files": fingerprint(self.folder, self.paths())}

    def paths(self) -> list[epath.Path]:
        """All files."""
        return [path for files in self.files.values() for path in files]

    def slices(self, name: str) -> Sequence["TableFiles"]:
        """By files."""
        files = self.files[name]
        size = math.ceil(len(files) / _MOST_SLICES)
        found = []
        for start in range(0, len(files), size):
            found.append(copy.copy(self))
            found[-1].files = {**self.files, name: files[start : start + size]}
            found[-1]._queries = {key: each for key, each in self._queries.items() if key != name}
        return found

    def size_of_rows(self) -> int:
        """By the sizes of the files."""
        grown = {".csv": 2, ".parquet": 12}  # the least and the most packed; others lie between
        total = 0
        for path in self.paths():
            rows = 0
            if path.suffix == ".parquet":
                # One that cannot be read is told when it is.
                with path.open("rb") as file, contextlib.suppress(OSError, pa.ArrowException):
                    rows = parquet.read_metadata(file).num_rows
            total += max(grown.get(path.suffix, 10) * path.stat().length, rows * _LEAST_ROW)
        return total

    def query(self, name: str) -> str:
        """SQL that reads a table as it is; CSV as text, so that codes keep their leading zeros.

        Raises:
          UserError: a CSV file that cannot be read or has no header.
        """
        if name not in self._queries:
            files = self.files[name]
            if files[0].name.endswith(csv_files.ENDINGS):
                self._queries[name] = csv_files.query(files[0], name not in self._unquoted)
            else:
                paths = ", ".join(columns.literal(str(path)) for path in files)
                # Some write text as bytes, which DuckDB would show as \\xC3\\xB8.
                self._queries[name] = (
                    f"SELECT * FROM read_parquet([{paths}], binary_as_string = true)"
                )
        return self._queries[name]


def open_tables(
    source_dir: epath.Path | str,
    names: Iterable[str],
    compulsory: Iterable[str] = (),
    unquoted: Iterable[str] = (),
) -> SourceTables:
    """Some tables of a folder, or of a PostgreSQL database.

    Args:
      source_dir: the folder, or as text the database's URI.
      names: of the tables; from each to the columns that are wanted, where not all are.
      compulsory: those that must be there.
      unquoted: as `TableFiles` has it.

    Raises:
      UserError: as `TableFiles` and `PostgresTables` do.
    """
    if not isinstance(source_dir, str):
        return TableFiles(source_dir, names, compulsory, unquoted)
    from jaxcoder.records.sources.postgres import PostgresTables  # no dependency of a folder's

    return PostgresTables(source_dir, names, compulsory)


def _found(folder: epath.Path, listed: Mapping[str, epath.Path], name: str) -> list[epath.Path]:
    """The file of a table, or its parts; empty where there is none."""
    spellings = [name, name.upper()]
    found = [listed[key] for each in spellings for key in _keys(each) if key in listed]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{folder}: {names}: expected one file for {name}; remove the others")
    if not found or not found[0].is_dir():
        return found
    parts = sorted(found[0].glob("*.parquet"), key=str)
    if not parts:
        raise UserError(f"{found[0]}: no .parquet file in it; expected parts of {name}")
    return parts


def _keys(name: str) -> list[str]:
    return [name, *(f"{name}{ending}" for ending in ENDINGS)]
