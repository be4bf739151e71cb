"""A source that is a folder of tables, which SQL turns into the relations."""

import abc
import contextlib
import copy
import dataclasses
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb

from jaxcoder.errors import UserError
from jaxcoder.records import code_systems
from jaxcoder.records.findings import Findings
from jaxcoder.records.runner import Runner
from jaxcoder.records.sources import Part
from jaxcoder.records.sources.engine import reading, size
from jaxcoder.records.sources.published import read_splits
from jaxcoder.records.sources.relations import RelationalSource
from jaxcoder.records.sources.table_files import SourceTables
from jaxcoder.records.split import parse_shares, split_of


@dataclasses.dataclass(frozen=True)
class FolderOptions:
    """Options of every such source.

    Attributes:
      name: of the data set; letters, digits and `_`.
      splits: a published split: a feather or CSV file with an id of the contact (`contact_id`,
        `hadm_id`, `visit_occurrence_id` or `_id`) and `split`; or a name with `{}`, for which
        train, dev and test are put, of lists of ids without a header
        (`caml_{}_full_hadm_ids.csv`). Empty splits patients by hash.
      seed: of the split by hash.
      shares: of patients in train, validation and test then.
      memory_limit: of DuckDB in all processes, though of none below 200 MB; what is larger goes
        through the temporary folder (TMPDIR).
    """

    name: str = "folder"
    splits: str = ""
    seed: int = 0
    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    memory_limit: str = "1500MB"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII):
            raise ValueError(f"name = {self.name!r}: expected letters, digits and _")
        split_of("", self.seed, self.shares)
        size(self.memory_limit)


KINDS: dict[str, Callable[[str], Any]] = {
    "seed": int,
    "shares": parse_shares,
}
"""How the text of `--option key=value` is read."""


class FolderSource(RelationalSource):
    """Subclasses say which tables there are, and turn them into relations by SQL.

    Attributes:
      columns: from each table to the columns that are read of it, and what they hold.
      files: from each relation to the table that messages name for it.
      by_file: the relations whose SQL reads that table once, row by row, so that each of its files
        can be read apart.
      of_files: what is remembered of the source that names its files.
    """

    columns: Mapping[str, Mapping[str, str]]
    files: Mapping[str, str]
    by_file: frozenset[str] = frozenset()
    of_files: tuple[str, ...] = ("_queries",)

    def __init__(
        self, source: str, options: FolderOptions, tables: SourceTables, system: str = "icd10"
    ) -> None:
        """Joins options and files.

        Args:
          source: its name.
          options: of it.
          tables: the files, or the tables of a database.
          system: code system of codes that name none.
        """
        super().__init__(
            seed=options.seed,
            shares=options.shares,
            memory_limit=options.memory_limit,
            system=system,
        )
        self.name = options.name
        self._source, self._options, self._tables = source, options, tables
        self._published = read_splits(options.splits) if options.splits else None

    def titles(self, read: Callable[[str], str]) -> dict[str, str]:
        """From a table that has titles of codes to SQL of them: columns code, system, title.

        Where a code has several, the first in the order of the tables wins, then of the alphabet.

        Args:
          read: from the name of a table that is there to SQL that reads it.
        """
        del read
        return {}

    @abc.abstractmethod
    def queries(self, read: Callable[[str], str]) -> dict[str, str]:
        """SQL of the relations.

        Args:
          read: from the name of a table that is there to SQL that reads it.
        """

    @property
    def identity(self) -> Mapping[str, Any]:
        """Source, options that decide content, the published split, and the state of the tables."""
        options = dataclasses.asdict(self._options)
        del options["memory_limit"]
        content: dict[str, Any] = {"source": self._source, "options": options}
        if self._published is not None:
            pairs = zip(*self._published.to_pydict().values(), strict=True)
            rows = "".join(f"{contact_id}\t{split}\n" for contact_id, split in pairs)
            content["published"] = hashlib.blake2b(rows.encode(), digest_size=8).hexdigest()
        return content | self._tables.state

    def size_of_rows(self) -> int:
        """By the sizes of the tables."""
        return self._tables.size_of_rows()

    def slices(self, relation: str) -> Sequence[RelationalSource]:
        """By the files of its table."""
        if relation not in self.by_file:
            return [self]
        found = []
        for tables in self._tables.slices(self.files[relation]):
            found.append(copy.copy(self))
            found[-1]._tables = tables
            for name in self.of_files:
                found[-1].__dict__.pop(name, None)
        return found

    def where(self, relation: str) -> str:
        """The main table of a relation."""
        if relation == "splits":
            return self._options.splits
        return self._tables.where(self.files.get(relation, relation))

    def refusal(self, where: str, message: str) -> UserError:
        """As files or database have it."""
        return self._tables.refusal(where, message)

    def relations(
        self, connection: duckdb.DuckDBPyConnection
    ) -> dict[str, duckdb.DuckDBPyRelation]:
        """The relations that the options ask for."""
        held = {}
        self._tables.attach(connection)
        for relation, query in self._queries.items():
            with self.reading(relation):
                held[relation] = connection.sql(query)
        if self._published is not None:
            held["splits"] = connection.from_arrow(self._published)
        return held

    def parts(self, runner: Runner) -> tuple[Mapping[str, Sequence[Part]], Findings]:
        """Reads every relation once; a table of titles that cannot be read is told before."""
        _ = self.descriptions
        return super().parts(runner)

    @functools.cached_property
    def descriptions(self) -> Mapping[str, str]:
        """From codes, normalised, to their titles; of the kinds of codes that are asked for."""
        found: dict[str, str] = {}
        for table, query in self.titles(self._read).items():
            with reading(self._tables.where(table), self.refusal):
                rows = self._header_connection.execute(
                    f"SELECT code, system, title FROM ({query}) WHERE code <> '' AND title <> '' "
                    "ORDER BY ALL"
                ).fetchall()
            for code, system, title in rows:
                # No contact has a malformed code: those are counted when contacts are made.
                with contextlib.suppress(ValueError):
                    found.setdefault(code_systems.normalise(code, system), title)
        return found

    @functools.cached_property
    def _queries(self) -> dict[str, str]:
        return self.queries(self._read)

    def _read(self, name: str) -> str:
        with reading(self._tables.where(name), self.refusal):
            return self._tables.typed(self._header_connection, name, self.columns[name])
