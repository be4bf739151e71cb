"""Parquet files that are written row by row, in constant memory, and appear whole or not at all."""

import contextlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcoder.whole_file import whole_file

ROW_GROUP = 4096  # rows written at a time


class ParquetRows:
    """A file to be; use as a context manager."""

    def __init__(self, path: epath.PathLike, schema: pa.Schema) -> None:
        """Opens it.

        Args:
          path: the file.
          schema: of its columns.
        """
        self._schema = schema
        self._rows: list[Mapping[str, Any]] = []
        self._exits = contextlib.ExitStack()
        file = self._exits.enter_context(whole_file(path, "wb"))
        self._parquet = self._exits.enter_context(pq.ParquetWriter(file, schema))

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row."""
        self._rows.append(row)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def __enter__(self) -> "ParquetRows":
        return self

    def __exit__(self, *raised: Any) -> None:
        if any(raised):
            self._exits.__exit__(*raised)
            return
        with self._exits:
            self._flush()
