"""What codes stand for, where a folder has a table of their titles."""

import abc
import contextlib
import functools
from collections.abc import Callable, Mapping

import duckdb

from jaxcoder.records import code_systems
from jaxcoder.records.sources.folder_source import FolderSource


class DescribedSource(FolderSource):
    """A source that is a folder of tables, one or more of which have titles of codes."""

    @abc.abstractmethod
    def titles(self, read: Callable[[str], str]) -> dict[str, str]:
        """From a table to SQL of the titles it has: columns code, system, title.

        Where a code has several, the first in the order of the tables wins, then of the alphabet.

        Args:
          read: from the name of a table that is there to SQL that reads it.
        """

    @functools.cached_property
    def descriptions(self) -> Mapping[str, str]:  # type: ignore[override]
        """From codes, normalised, to their titles; of the kinds of codes that are asked for."""

        def read(name: str) -> str:
            with self._reading(name):
                return self._tables.typed(self._header_connection, name, self.columns[name])

        found: dict[str, str] = {}
        for table, query in self.titles(read).items():
            with self._reading(table):
                rows = self._header_connection.execute(
                    f"SELECT code, system, title FROM ({query}) WHERE code <> '' AND title <> '' "
                    "ORDER BY ALL"
                ).fetchall()
            for code, system, title in rows:
                # No contact has a malformed code: those are counted when contacts are made.
                with contextlib.suppress(ValueError):
                    found.setdefault(code_systems.normalise(code, system), title)
        return found

    def relations(
        self, connection: duckdb.DuckDBPyConnection
    ) -> dict[str, duckdb.DuckDBPyRelation]:
        """The relations; a table of titles that cannot be read is told before they are."""
        _ = self.descriptions
        return super().relations(connection)
