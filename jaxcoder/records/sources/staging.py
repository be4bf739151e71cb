"""Relations read once: rows typed, and put into parts that can be sorted in memory one by one.

DuckDB spills a sort that does not fit, but slowly: 5.3 GB of notes under a limit of 0.5 GB were not
sorted after 280 s. Here every file is read once, and each part of the contacts has its rows in
Parquet files of its own, in the temporary folder.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterable, Mapping

import duckdb
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from jaxcoder.errors import UserError
from jaxcoder.records.findings import Findings, shown
from jaxcoder.records.sources import columns
from jaxcoder.records.sources.columns import COLUMNS, literal, quoted, typed

_EMPTY, _STRAY, LEFT_OUT = -1, -2, -3
"""Parts of rows that no contact will have: without an id, of an unknown one, of one left out."""
_ROWS, _ROWS_AT_A_TIME = 524_288, {"notes": 16_384}
"""Rows that are put into parts at a time: of a hundred bytes each, and of a few thousand."""
MOST_PARTS = 96
"""So many files may be open at a time."""
_ORDER = {
    "notes": "time NULLS LAST",
    "medications": "time NULLS LAST",
    "labs": "time NULLS LAST",
    "codes": "rank NULLS LAST",
    "evidence": 'note, "start", "end"',
}


class Staging:
    """The rows of relations, by part."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: pathlib.Path) -> None:
        """Reads nothing.

        Args:
          connection: with the table `ids`: contact_id and part, `LEFT_OUT` or from 0.
          folder: where the parts go.
        """
        self._connection, self._folder = connection, folder

    def put(
        self,
        relation: str,
        rows: duckdb.DuckDBPyRelation,
        names: Mapping[str, str],
        where: Callable[[str], str],
        dropped: Findings,
    ) -> None:
        """Reads a relation.

        Args:
          relation: its name.
          rows: as the source has them, in their order.
          names: from the columns of the relation to those of the rows.
          where: gives the file of a relation, for messages.
          dropped: where the rows are counted that no contact will have.

        Raises:
          UserError: there are contacts and rows, and no row is of a contact.
        """
        kinds = COLUMNS[relation]
        reads = [
            f"{typed(kind, names[name]) if name in names else 'NULL'} AS {quoted(name)}"
            for name, kind in kinds.items()
        ]
        # One bit a column whose value is there but cannot be read as its kind.
        bits = [
            f"CASE WHEN {columns.failed(kinds[name], names[name])} THEN {1 << place} ELSE 0 END"
            for place, name in enumerate(failable(relation, names))
        ]
        empty = " OR ".join(f"read.{quoted(name)} IS NULL" for name in columns.required(relation))
        kept = [
            quoted(name)
            if name == "contact_id"
            else f"CASE WHEN part >= 0 THEN {quoted(name)} END AS {quoted(name)}"
            for name in kinds
        ]
        rows.create_view("raw", replace=True)
        self._connection.execute("SET threads = 1")  # several give a stream in any order
        found = self._connection.sql(
            f"""
            SELECT {", ".join(kept)}, failed, part FROM (
              SELECT read.*, CASE WHEN {empty} THEN {_EMPTY}
                ELSE coalesce(ids.part, {_STRAY}) END AS part
              FROM (SELECT {", ".join(reads)}, {" + ".join(bits) or "0"} AS failed FROM raw) AS read
              LEFT JOIN ids ON ids.contact_id = read.contact_id
            )"""
        )
        self._write(found.to_arrow_reader(_ROWS_AT_A_TIME.get(relation, _ROWS)), relation)
        self._connection.execute("RESET threads")
        self._count(relation, where, dropped)

    def _write(self, batches: Iterable[pa.RecordBatch], relation: str) -> None:
        """Puts rows into the files of their parts, numbered as they come.

        DuckDB's own COPY with PARTITION_BY, like its row_number(), holds all rows first: of 120
        million, 25 GB went to the disk.
        """
        number = 0
        with contextlib.ExitStack() as files:
            writers: dict[int, parquet.ParquetWriter] = {}
            for batch in batches:
                numbers = pa.array(np.arange(number, number + len(batch)))
                number += len(batch)
                parts = batch.column("part").to_numpy()
                rows = pa.Table.from_batches([batch.drop_columns(["part"])])
                rows = rows.append_column("number", numbers)
                order = np.argsort(parts, kind="stable")
                rows = rows.take(pa.array(order))
                there, first = np.unique(parts[order], return_index=True)
                ends = [*first[1:].tolist(), len(parts)]
                for part, start, end in zip(there.tolist(), first.tolist(), ends, strict=True):
                    if part not in writers:
                        path = self._path(relation, part)
                        path.parent.mkdir(exist_ok=True)
                        writer = parquet.ParquetWriter(path, rows.schema)
                        writers[part] = files.enter_context(writer)
                    writers[part].write_table(rows.slice(start, end - start))

    def _count(self, relation: str, where: Callable[[str], str], dropped: Findings) -> None:
        found: dict[int, tuple[int, str | None]] = {
            part: (count, example)
            for part in (_EMPTY, _STRAY, LEFT_OUT)
            if (query := self._files(relation, part))
            for count, example in self._connection.execute(
                f"SELECT count(*), min(contact_id) FROM {query}"
            ).fetchall()
        }
        known = self._connection.execute("SELECT min(contact_id) FROM ids").fetchall()[0][0]
        if _STRAY in found and known is not None:
            paths = set((self._folder / relation).iterdir())
            if not paths - {self._path(relation, _EMPTY), self._path(relation, _STRAY)}:
                stray = found[_STRAY][1] or ""
                raise unlike(where(relation), "contact_id", stray, where("contacts"), known)
        missing = " or no ".join(columns.required(relation))
        for part, reason in (
            (_EMPTY, f"no {missing}"),
            (_STRAY, "contact_id not in contacts"),
            (LEFT_OUT, "of contacts that are left out"),
        ):
            count, example = found.get(part, (0, None))
            dropped.add(f"{relation}: {reason}", example, count)

    def part(self, relation: str, part: int) -> str | None:
        """SQL of the rows of a part, ordered by contact and within it; None where it has none.

        Its columns are those of the relation, and `failed`, with a bit for each of `failable`.
        """
        files = self._files(relation, part)
        if files is None:
            return None
        names = ", ".join(quoted(name) for name in COLUMNS[relation])
        order = f", {_ORDER[relation]}, number" if relation in _ORDER else ""
        return f"SELECT {names}, failed FROM {files} ORDER BY contact_id{order}"

    def _files(self, relation: str, part: int) -> str | None:
        path = self._path(relation, part)
        return f"read_parquet({literal(str(path))})" if path.exists() else None

    def _path(self, relation: str, part: int) -> pathlib.Path:
        return self._folder / relation / f"{part}.parquet"


def failable(relation: str, names: Mapping[str, str]) -> list[str]:
    """The columns of a relation with values that may not be of their kind, of those there are."""
    return [
        name
        for name, kind in COLUMNS[relation].items()
        if name in names and columns.failed(kind, name) is not None
    ]


def unlike(here: str, key: str, id_here: str, there: str, id_there: str) -> UserError:
    """The refusal of a file none of whose ids stands in another."""
    return UserError(
        f"{here}: no {key} stands in {there}: {shown(id_here)} here, {shown(id_there)} there, for "
        "example; expected them written alike; cast both to integers or to text (pandas makes "
        'floats of integers with gaps: .astype("Int64"))'
    )
