"""Tables of a PostgreSQL database in the place of files: streamed, not exported."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb
import pyarrow as pa

from jaxcoder.errors import UserError
from jaxcoder.records.sources.columns import literal, quoted
from jaxcoder.records.sources.database import Database, split_uri
from jaxcoder.records.sources.table_files import SourceTables

_GROWTH = 4
"""Bytes of rows in memory for one on the server's disk, where long texts are compressed."""

_ATTACHED = "postgres_"
"""Before the name of a table, in DuckDB."""

_FOUND = """
    SELECT lower(relname), relname, nspname, pg_class.oid::bigint, attname,
      has_schema_privilege(pg_namespace.oid, 'USAGE')
        AND has_column_privilege(pg_class.oid, attnum, 'SELECT')
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
      JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND lower(relname) IN ({names})
      AND nspname IN ({schemas})
    ORDER BY nspname, relname, attnum"""

_READ = """
    WITH RECURSIVE read(root, id) AS (
      SELECT oid, oid FROM pg_class WHERE oid IN ({ids})
      UNION
      SELECT root, below FROM read JOIN (
        SELECT inhparent AS above, inhrelid AS below FROM pg_inherits
        UNION ALL
        SELECT ev_class, refobjid FROM pg_rewrite JOIN pg_class ON pg_class.oid = ev_class
          JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
            AND refclassid = 'pg_class'::regclass
        WHERE relkind = 'v'
      ) AS next ON above = id
    )
    SELECT root::bigint, id::bigint, relkind::text, pg_relation_filenode(id)::bigint,
      coalesce(pg_relation_size(id), 0) + coalesce(pg_relation_size(nullif(reltoastrelid, 0)), 0),
      pg_stat_get_tuples_inserted(id) + pg_stat_get_tuples_updated(id)
        + pg_stat_get_tuples_deleted(id),
      CASE relkind WHEN 'v' THEN pg_get_viewdef(id) END
    FROM read JOIN pg_class ON oid = id ORDER BY root, id"""
"""All that is read of some tables: views' tables, and partitions."""


@dataclasses.dataclass(frozen=True)
class _Table:
    schema: str
    name: str
    id: int
    names: list[str]
    readable: set[str]


class PostgresTables(SourceTables):
    """Tables, views and foreign tables of one or more schemas; every value comes as text.

    An empty text is null, as in a CSV file.

    Its state, which makes records those of another content, is taken over the storage, sizes and
    counted changes of every table that is read, also below views. Reading nothing, it may see a
    change where there is none: statistics were reset, the database was restored. On a standby it
    sees changes of size alone. `snapshot=NAME` in the URI is the state instead, in the user's word;
    then contact records that are there are used without asking the database.
    """

    def __init__(self, uri: str, names: Iterable[str], compulsory: Iterable[str] = ()) -> None:
        """Connects to nothing yet.

        Args:
          uri: as libpq takes it, with no password, but `schema` among its parameters (one, or
            several by commas, of which the first that has a table counts), and maybe `snapshot`.
          names: of the tables; from each to the columns that are wanted, where not all are.
          compulsory: those that must be there.

        Raises:
          UserError: a password in the URI.
        """
        base, parameters = split_uri(uri)
        self._schemas = parameters.pop("schema", "public").split(",")
        self._snapshot = parameters.pop("snapshot", "")
        self._database = Database(base, parameters)
        self._names, self._compulsory = names, tuple(compulsory)

    def __contains__(self, name: str) -> bool:
        return name in self._tables

    @property
    def state(self) -> dict[str, Any]:
        """What the user named, or what the server knows of every table that is read.

        Raises:
          UserError: a foreign table, of which the server knows nothing.
        """
        content: list[Any] = [self._database.name.rpartition("/")[2], self._schemas, self._snapshot]
        if not self._snapshot:
            names = {table.id: name for name, table in self._tables.items()}
            for root, _, kind, *_ in self._read:
                if kind == "f":
                    raise UserError(
                        f"{self.where(names[root])}: is, or reads, a foreign table, whose changes "
                        "PostgreSQL does not count; expected a name for the state of the data; add "
                        "it to the URI: snapshot=2024-05-01"
                    )
            content += [[names[root], *row] for root, *row in self._read]
        digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
        return {"database": digest}

    def where(self, name: str) -> str:
        """The table, behind its database."""
        table = self._tables.get(name)
        return (
            f"{self._database.name} {table.schema}.{table.name}"
            if table
            else f"{self._database.name} {name}"
        )

    def size_of_rows(self) -> int:
        """By the sizes on the server's disk."""
        return _GROWTH * sum(row[4] for row in self._read)

    def query(self, name: str) -> str:
        """SQL that reads a table where it is attached.

        Raises:
          UserError: a column that is wanted may not be read.
        """
        table, names = self._tables[name], self._wanted(name)
        for column in names:
            if column not in table.readable:
                raise UserError(
                    f"{self.where(name)}: no permission to read column {column}; expected SELECT "
                    "on the table and USAGE on its schema; ask the database's owner to GRANT them"
                )
        # By name: a view in a database file, as the rows are read through, may hold no stream.
        return f"SELECT * FROM query_table({literal(f'{_ATTACHED}{name}')})"

    def attach(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Gives a connection a view of each table."""
        for name, table in self._tables.items():
            wanted = self._wanted(name)
            texts = (f"nullif({quoted(each)}::text, '') AS {quoted(each)}" for each in wanted)
            query = f"SELECT {', '.join(texts)} FROM {quoted(table.schema)}.{quoted(table.name)}"
            stream = _Stream(self._database, query, wanted, self.where(name))
            connection.register(f"{_ATTACHED}{name}", stream)

    def refusal(self, where: str, message: str) -> UserError:
        """What stopped the reading, if it was the database."""
        failure = self._database.failure
        return UserError(failure) if failure else super().refusal(where, message)

    def _wanted(self, name: str) -> list[str]:
        """The columns of a table that are read, as they are spelt."""
        names = self._tables[name].names
        if not isinstance(self._names, Mapping):
            return names
        return [each for each in names if each.lower() in self._names[name]]

    @functools.cached_property
    def _tables(self) -> dict[str, _Table]:
        names = [*self._names]
        rows = self._database.ask(_FOUND.format(names=_list(names), schemas=_list(self._schemas)))
        tables: dict[str, _Table] = {}
        # Those of the first schema last, so that they stand.
        for key, name, schema, number, column, readable in sorted(
            rows, key=lambda row: -self._schemas.index(row[2])
        ):
            if key not in tables or tables[key].schema != schema:
                tables[key] = _Table(schema, name, number, [], set())
            table = tables[key]
            if table.name != name:
                raise UserError(
                    f"{self._database.name}: tables {table.name} and {name} in schema {schema}; "
                    "expected one; rename the other"
                )
            table.names.append(column)
            if readable:
                table.readable.add(column)
        for name in self._compulsory:
            if name not in tables:
                raise self._absent(name)
        return {name: tables[name] for name in names if name in tables}

    def _absent(self, name: str) -> UserError:
        schemas = self._database.ask(
            "SELECT DISTINCT nspname FROM pg_class JOIN pg_namespace "
            f"ON pg_namespace.oid = relnamespace WHERE lower(relname) = {literal(name)}"
        )
        there = ", ".join(sorted(schema for (schema,) in schemas)) or "none"
        return UserError(
            f"{self._database.name}: no table {name} in schema {', '.join(self._schemas)}; it is "
            f"compulsory; schemas that have it: {there}; name one in the URI: ?schema=SCHEMA"
        )

    @functools.cached_property
    def _read(self) -> list[tuple[Any, ...]]:
        ids = ", ".join(str(table.id) for table in self._tables.values())
        return self._database.ask(_READ.format(ids=ids))


class _Stream:
    """Rows that DuckDB may scan more than once: each time they are asked for anew."""

    def __init__(self, database: Database, query: str, names: list[str], where: str) -> None:
        self._schema = pa.schema([(name, pa.string()) for name in names])
        self._database, self._query, self._where = database, query, where

    def __arrow_c_schema__(self) -> object:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        batches = self._database.stream(self._query, self._where)
        reader = pa.RecordBatchReader.from_batches(self._schema, batches)
        return reader.__arrow_c_stream__(requested_schema)


def _list(texts: Iterable[str]) -> str:
    return ", ".join(literal(text) for text in texts)
