"""Relations read once: rows typed, and put into parts that can be sorted in memory one by one.

DuckDB spills a sort that does not fit, but slowly: 5.3 GB of notes under a limit of 0.5 GB were not
sorted after 280 s. Here every file is read once, and each part of the contacts has its rows in
files of its own, in a work folder. They are Arrow streams: the writer of a Parquet file remembers
every batch.

The contacts of a split are ordered by their patient's place and by their ids. The place is a hash:
the first eight bytes of the MD5 of patient_id, as a little-endian number. A part is a range of
places, so that the number of parts decides nothing.
"""

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Mapping

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath
from pyarrow import parquet

from jaxcoder.errors import UserError
from jaxcoder.records.findings import shown
from jaxcoder.records.schema import SPLITS
from jaxcoder.records.sources import columns
from jaxcoder.records.sources.columns import COLUMNS, literal, quoted, typed

_EMPTY, _STRAY, _LEFT_OUT = -1, -2, -3
"""Parts of rows that no contact will have: without an id, of an unknown one, of one left out."""
_ROWS, _ROWS_AT_A_TIME = 131_072, {"notes": 8192}
"""Rows that are put into parts at a time: of a hundred bytes each, and of a few thousand."""
MOST_PARTS = 256
"""So many files may be open at a time."""
_IDS = "ids.parquet"
_PACKED = pa.ipc.IpcWriteOptions(compression="lz4")
_ORDER = {
    "notes": ", rank NULLS FIRST, time NULLS LAST, slice, number",
    "medications": ", time NULLS LAST, slice, number",
    "labs": ", time NULLS LAST, slice, number",
    "codes": ", rank NULLS LAST, slice, number",
    "evidence": ', note, "start", "end", slice, number',
}

Counts = dict[str, tuple[int, str | None]]
"""From what became of rows to their number and the least of their contact_id; JSON values."""


def place(
    connection: duckdb.DuckDBPyConnection, folder: epath.Path, most: int
) -> dict[str, list[int]]:
    """Gives every contact a part, and leaves that in the work folder.

    Args:
      connection: with the table `ids`: contact_id, patient_id and split, null where it has none.
      folder: the work folder.
      most: about how many parts there are in all; each split has its share.

    Returns:
      From each split that has contacts to its parts.
    """
    counts = dict(connection.execute("SELECT split, count(*) FROM ids GROUP BY split").fetchall())
    total = sum(counts.get(split, 0) for split in SPLITS)
    parts: dict[str, list[int]] = {}
    for split in SPLITS:
        if split in counts:
            first = sum(map(len, parts.values()))
            parts[split] = list(range(first, first + max(1, round(most * counts[split] / total))))
    cases = " ".join(
        f"WHEN '{split}' THEN {mine[0]} + (((place >> 32) * {len(mine)}) >> 32)"
        for split, mine in parts.items()
    )
    part = f"CASE split {cases} ELSE {_LEFT_OUT} END" if parts else f"{_LEFT_OUT}"
    held = connection.sql(
        f"""SELECT contact_id, place, CAST({part} AS INTEGER) AS part
        FROM (SELECT *, md5_number_upper(patient_id) AS place FROM ids)"""
    ).to_arrow_reader(_ROWS)
    with (
        (folder / _IDS).open("wb") as file,
        parquet.ParquetWriter(file, held.schema) as writer,
    ):
        for batch in held:
            writer.write_batch(batch)
    return parts


def stage(
    connection: duckdb.DuckDBPyConnection,
    folder: epath.Path,
    relation: str,
    number: int,
    rows: duckdb.DuckDBPyRelation,
    names: Mapping[str, str],
) -> Counts:
    """Puts the rows of a relation, or of a slice of it, into the files of their parts.

    Args:
      connection: that of the rows; with one thread, for several give a stream in any order.
      folder: the work folder, with the contacts' parts.
      relation: its name.
      number: of the slice.
      rows: as the source has them, in their order.
      names: from the columns of the relation to those of the rows.

    Returns:
      How many rows no contact will have, and why; and how many some contact has (`kept`).
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
    rows.create_view("raw", replace=True)
    found = connection.sql(
        f"""
        SELECT read.*, ids.place, CASE WHEN {empty} THEN {_EMPTY}
          ELSE coalesce(ids.part, {_STRAY}) END AS part
        FROM (SELECT {", ".join(reads)}, {" + ".join(bits) or "0"} AS failed FROM raw) AS read
        LEFT JOIN read_parquet({literal(str(folder / _IDS))}) AS ids
          ON ids.contact_id = read.contact_id"""
    )
    batches = found.to_arrow_reader(_ROWS_AT_A_TIME.get(relation, _ROWS))
    return _write(batches, folder / relation, number)


def _write(batches: Iterable[pa.RecordBatch], folder: epath.Path, number: int) -> Counts:
    """Puts rows into the files of their parts, numbered as they come.

    DuckDB's own COPY with PARTITION_BY, like its row_number(), holds all rows first: of 120
    million, 25 GB went to the disk.
    """
    names = {_EMPTY: "no id", _STRAY: "unknown", _LEFT_OUT: "left out"}
    counts: dict[str, tuple[int, str | None]] = {}

    def count(key: str, many: int, example: str | None) -> None:
        before, least = counts.get(key, (0, None))
        examples = [each for each in (least, example) if each is not None]
        counts[key] = (before + many, min(examples, default=None))

    rows_before = 0
    unfinished: dict[epath.Path, epath.Path] = {}
    with contextlib.ExitStack() as files:
        writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        for batch in batches:
            parts = batch.column("part").to_numpy()
            rows = pa.Table.from_batches([batch.drop_columns(["part"])])
            numbers = pa.array(np.arange(rows_before, rows_before + len(rows)))
            slices = pa.array(np.full(len(rows), number, np.int32))
            rows = rows.append_column("number", numbers).append_column("slice", slices)
            rows_before += len(rows)
            order = np.argsort(parts, kind="stable")
            rows = rows.take(pa.array(order))
            there, first = np.unique(parts[order], return_index=True)
            ends = [*first[1:].tolist(), len(parts)]
            for part, start, end in zip(there.tolist(), first.tolist(), ends, strict=True):
                mine = rows.slice(start, end - start)
                if part < 0:
                    count(names[part], len(mine), pc.min(mine.column("contact_id")).as_py())
                    continue
                count("kept", len(mine), None)
                if part not in writers:
                    # Beam may give the same rows to a second worker while the first is at it.
                    final = folder / str(part) / f"{number:05d}.arrows"
                    path = final.with_suffix(f".{uuid.uuid4().hex[:12]}")
                    unfinished[path] = final
                    path.parent.mkdir(parents=True, exist_ok=True)
                    file = files.enter_context(path.open("wb"))
                    writer = pa.ipc.new_stream(file, mine.schema, options=_PACKED)
                    writers[part] = files.enter_context(writer)
                writers[part].write_table(mine)
    for path, final in unfinished.items():
        path.replace(final)
    return counts


def staged(folder: epath.Path, relation: str, part: int) -> pa.RecordBatchReader | None:
    """The rows of a part, in the order in which they came; None where it has none.

    Beside the columns of the relation they have `failed`, with a bit for each of `failable`, and
    what `in_order` sorts by.
    """
    files = sorted((folder / relation / str(part)).glob("*.arrows"), key=str)
    if not files:
        return None

    def batches() -> Iterator[pa.RecordBatch]:
        for path in files:
            with path.open("rb") as file, pa.ipc.open_stream(file) as stream:
                yield from stream

    with files[0].open("rb") as file, pa.ipc.open_stream(file) as stream:
        return pa.RecordBatchReader.from_batches(stream.schema, batches())


def in_order(relation: str, rows: str) -> str:
    """SQL of staged rows, ordered by contact and within it, with `failed` last.

    Args:
      relation: their relation.
      rows: the name they have in SQL.
    """
    names = ", ".join(quoted(name) for name in COLUMNS[relation])
    order = f"place, contact_id{_ORDER.get(relation, '')}"
    return f"SELECT {names}, failed FROM {rows} ORDER BY {order}"


def failable(relation: str, names: Iterable[str]) -> list[str]:
    """The columns of a relation with values that may not be of their kind, of those there are."""
    names = set(names)
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
