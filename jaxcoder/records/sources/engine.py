"""DuckDB as every source uses it: limited in memory, in UTC, with the user's errors."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator

import duckdb
import pyarrow as pa

from jaxcoder.errors import UserError
from jaxcoder.records.sources.csv_files import refusal
from jaxcoder.records.work_folder import work_folder

_LEAST = 200 * 10**6
"""Bytes without which DuckDB does not sort."""


@contextlib.contextmanager
def connected(memory: int, threads: int = 0) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database.

    Args:
      memory: bytes that it may take, at least 200 MB; what is larger goes through the temporary
        folder (TMPDIR).
      threads: how many; 0 for all cores.
    """
    with work_folder() as folder, duckdb.connect(str(folder / "work.duckdb")) as connection:
        connection.execute("SET GLOBAL TimeZone = 'UTC'")  # global: for its cursors too
        connection.execute("SET memory_limit = ?", [f"{max(memory, _LEAST) // 1000}kB"])
        connection.execute("SET temp_directory = ?", [str(folder / "spill")])
        connection.execute("SET enable_progress_bar = false")  # it goes into pipes and files, too
        connection.execute("SET threads = ?", [threads or len(os.sched_getaffinity(0))])
        # Joins stand as they are written, the large side first: of a packed CSV DuckDB guesses that
        # it is small, and would hold all of it: 120 million rows went to the disk, 25 GB.
        connection.execute("SET GLOBAL disabled_optimizers = 'join_order,build_side_probe_side'")
        yield connection


@contextlib.contextmanager
def reading(where: str, refuse: Callable[[str, str], UserError] = refusal) -> Iterator[None]:
    """Turns DuckDB's errors into the user's, without the rows that they quote: notes, maybe.

    Args:
      where: what is read: its file.
      refuse: from that and DuckDB's message to what the user is told.
    """
    try:
        yield
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
        raise  # a mistake of ours, in which no row is quoted
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # pyarrow has OSErrors, too
        message = str(error)
        if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in message:
            raise UserError(
                f"{where}: does not fit memory_limit, or the temporary folder is full; raise "
                "option memory_limit, or set TMPDIR to another disk"
            ) from None
        raise refuse(where, message) from None


def size(text: str) -> int:
    """A size such as `2GB` in bytes.

    Raises:
      ValueError: not a size.
    """
    match = re.fullmatch(r"([0-9.]+) *([KMGT])i?B", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"memory_limit = {text!r}: expected a size such as 2GB")
    return int(float(match[1]) * 1000 ** ("KMGT".index(match[2].upper()) + 1))
