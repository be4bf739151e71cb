"""A PostgreSQL database, seen in one snapshot and only read.

The driver is ADBC's (https://arrow.apache.org/adbc), a wheel with libpq in it: rows come as Arrow
batches of 16 MB through binary COPY. DuckDB's own extension for PostgreSQL is downloaded when it is
first used, past a hospital's firewall, and must be built for the very version of DuckDB.
"""

import contextlib
import functools
import re
import urllib.parse
import weakref
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from jaxcoder.errors import UserError
from jaxcoder.records.sources.columns import literal

_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "client_encoding": "UTF8",
    # Rows come in the order in which they lie, as those of a file do.
    "synchronize_seqscans": "off",
    "max_parallel_workers_per_gather": "0",
    # Large tables take hours, and the snapshot's own transaction waits for them.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "application_name": "jaxcoder",
}


class Database:
    """Queries of a database, all in the snapshot of the first one.

    For that, a transaction stays open as long as this object does. Every transaction is read-only.

    Attributes:
      name: what messages call it: the URI without its parameters.
      failure: what a user is told of the last query that failed; DuckDB hides it in its own words.
        It is no exception: that would hold the frames that hold this object, and its transaction.
    """

    def __init__(self, uri: str, parameters: dict[str, str]) -> None:
        """Connects to nothing yet.

        Args:
          uri: as libpq takes it, without parameters.
          parameters: of the URI, for libpq.
        """
        self.name = uri
        query = urllib.parse.urlencode(parameters, quote_via=urllib.parse.quote)
        self._uri = f"{uri}?{query}" if query else uri
        self.failure = ""

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query, when they are few.

        Raises:
          UserError: no driver, no connection, or a query that fails.
        """
        with self._refusing(self.name), self._first[0].cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def stream(self, query: str, where: str) -> Iterator[pa.RecordBatch]:
        """The rows of a query, over a connection of their own.

        Args:
          query: in SQL.
          where: what messages call its table.

        Raises:
          UserError: no connection, or a query that fails.
        """
        with (
            self._refusing(where),
            self._connect(self._snapshot) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(query)
            yield from cursor.fetch_record_batch()

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to see the same snapshot, as long as this object is there."""
        there = {"name": self.name, "failure": "", "_uri": self._uri}
        return {**there, "_snapshot": self._snapshot}

    @functools.cached_property
    def _snapshot(self) -> str:
        return self._first[1]

    @functools.cached_property
    def _first(self) -> tuple[Any, str]:
        """The connection that keeps the snapshot of all others, and the snapshot's name."""
        connection = self._connect()
        weakref.finalize(self, connection.close)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_export_snapshot()")
            return connection, cursor.fetchone()[0]

    @functools.cached_property
    def _driver(self) -> Any:
        try:
            from adbc_driver_postgresql import dbapi
        except ImportError:
            raise UserError(
                f"{self.name}: the driver of PostgreSQL is not installed; install it with "
                "`pip install -e '.[postgres]'`"
            ) from None
        return dbapi

    def _connect(self, snapshot: str = "") -> Any:
        try:
            connection = self._driver.connect(self._uri, autocommit=True)
        except self._driver.Error as error:
            _, _, reason = str(error).partition("Failed to connect: ")
            self.failure = (
                f"{self.name}: no connection ({' '.join(reason.split())}); expected server, "
                "database and user as `psql URI` takes them, and the password in PGPASSWORD, "
                "~/.pgpass or a service file"
            )
            raise UserError(self.failure) from None
        with contextlib.ExitStack() as unfinished, self._refusing(self.name):
            unfinished.callback(connection.close)
            with connection.cursor() as cursor:
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                if snapshot:
                    cursor.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
                for name, value in _SETTINGS.items():
                    cursor.execute(f"SET LOCAL {name} = {literal(value)}")
            unfinished.pop_all()
        return connection

    @contextlib.contextmanager
    def _refusing(self, where: str) -> Iterator[None]:
        """Turns the driver's errors into the user's, without what they quote: values, maybe."""
        try:
            yield
        except (self._driver.Error, pa.ArrowException, OSError) as error:
            state = getattr(error, "sqlstate", None)
            reason = f" (SQLSTATE {state})" if state else ""
            self.failure = (
                f"{where}: PostgreSQL broke off{reason}; expected all rows; its log says why; mend "
                "that, and run the command again"
            )
            raise UserError(self.failure) from None


def split_uri(uri: str) -> tuple[str, dict[str, str]]:
    """A URI without its parameters, and these.

    Raises:
      UserError: a password in it.
    """
    base, _, query = uri.partition("?")
    parameters = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    # libpq knows more forms than urllib: whatever may be a password is taken for one. Keys may be
    # written as `pass%77ord`; passfile is the name of a file.
    secret = any(
        re.search("pass|secret", key, re.IGNORECASE) for key in parameters if key != "passfile"
    )
    if secret or re.search(r"//[^@]*:.*@|(password|secret)=", uri, re.IGNORECASE):
        raise UserError(
            "--source_dir postgresql://…: holds a password, which would stay in the shell's "
            "history and in reports; expected none; put it in PGPASSWORD, ~/.pgpass or a service "
            "file"
        )
    return base, parameters
