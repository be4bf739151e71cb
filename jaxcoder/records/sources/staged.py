"""Contacts of a part: its rows, sorted, merged and nested, a contact at a time.

DuckDB's `list(… ORDER BY …)` would nest rows too, but does not spill: 20 million rows under a limit
of 2 GB die.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
from etils import epath

from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import Contact
from jaxcoder.records.sources.columns import COLUMNS, EMPTIED
from jaxcoder.records.sources.engine import connected, reading
from jaxcoder.records.sources.nest import Groups, nest
from jaxcoder.records.sources.staging import failable, in_order, staged

_BATCH = 2048


@dataclasses.dataclass(frozen=True)
class StagedPart:
    """A part of a split: called with findings, it streams its contacts.

    Attributes:
      folder: the work folder.
      part: its number.
      columns: from each relation that is there to the columns that it has.
      system: code system of codes that name none.
      memory: bytes that DuckDB may take.
      threads: of DuckDB; 0 for all cores.
    """

    folder: epath.Path
    part: int
    columns: Mapping[str, tuple[str, ...]]
    system: str
    memory: int
    threads: int

    def __call__(self, dropped: Findings) -> Iterator[Contact]:
        """Streams contacts; raises UserError where the temporary folder is full."""
        with connected(self.memory, self.threads) as connection:
            children = {
                relation: Groups(self._rows(connection, relation, dropped))
                for relation in COLUMNS
                if relation != "contacts" and relation in self.columns
            }
            for row in self._rows(connection, "contacts", dropped):
                taken = {relation: groups.take(row[0]) for relation, groups in children.items()}
                yield nest(row, taken, self.system, dropped)

    def _rows(
        self, connection: duckdb.DuckDBPyConnection, relation: str, dropped: Findings
    ) -> Iterator[tuple[Any, ...]]:
        """Typed rows of a relation, ordered by contact and within it."""
        rows = staged(self.folder, relation, self.part)
        if rows is None:
            return
        kinds = COLUMNS[relation]
        reasons = [
            f"{relation}.{name}: {EMPTIED[kinds[name]]}"
            for name in failable(relation, self.columns[relation])
        ]
        # The cursor is another connection to the same database: a connection has one open stream at
        # a time.
        with reading(relation), connection.cursor() as cursor:
            cursor.register("staged", rows)
            for batch in cursor.sql(in_order(relation, "staged")).to_arrow_reader(_BATCH):
                for *row, bits in zip(
                    *(column.to_pylist() for column in batch.columns), strict=True
                ):
                    if bits:
                        for place, reason in enumerate(reasons):
                            if bits >> place & 1:
                                dropped.add(reason, row[0])
                    yield tuple(row)
