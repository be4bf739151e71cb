"""CSV files: their dialect, and what is wrong with one that DuckDB cannot read, in plain words."""

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator
from typing import IO

import pyarrow as pa
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.sources.columns import by_name, literal

ENDINGS = (".csv", ".csv.gz", ".csv.zst")

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_HEADER_BYTES, _CHUNK_BYTES, _ROW_MEGABYTES = 100_000, 1 << 20, 16
_NOT_UTF8 = (
    "is not UTF-8; expected that; convert the file: `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`, "
    "where it is in Latin-1"
)
_UTF16 = "is UTF-16; expected UTF-8; convert the file: `iconv -f UTF-16 -t UTF-8 FILE > NEW`"
_WRONG = {
    r"Expected Number of Columns: (\d+) Found: (\d+)": "has {1} cells; expected {0}, as in the "
    "header; quote cells that hold a delimiter or a line break, and part all as the header is",
    r"unterminated quote": "has a quote that is not closed, or text after one that is; expected "
    'cells "quoted", and quotes within them doubled: ""',
    r"Invalid unicode": _NOT_UTF8,
    r"Maximum line size": f"is longer than {_ROW_MEGABYTES} MB, or a quote before it is not "
    "closed; expected a contact's note a row; shorten it, or write Parquet",
}
"""From what DuckDB says of a row to what we say. It quotes the row too, which may be a note."""
_FILE = (r"^  file = (.+)$", r"GZIP stream: (.+)$", r"[Ff]ile ['\"](.+?\.parquet)['\"]")


def query(path: epath.Path, quoted: bool = True) -> str:
    """A query of a CSV file, every column as text.

    Nothing but the delimiter is guessed, and that from the header: DuckDB guesses from rows, and
    commas and quotes in notes mislead it.

    Args:
      path: the file.
      quoted: whether quotes are what they are in CSV, in a file whose columns tabs part, too.

    Raises:
      UserError: a file that cannot be read, is cut, or has no header or a name in it twice.
    """
    try:
        with _open(path) as file:
            raw = file.readline(_HEADER_BYTES)
            # DuckDB takes the end of a cut file for the end of its rows.
            while path.suffix == ".zst" and file.read(_CHUNK_BYTES):
                pass
        line = raw.split(b"\r")[0].decode("utf-8-sig").rstrip("\n")
    except UnicodeDecodeError:
        if raw[:2] == b"\x1f\x8b":
            raise UserError(f"{path}: is gzip; expected text; name it {path.name}.gz") from None
        wrong = _UTF16 if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else _NOT_UTF8
        raise UserError(f"{path}, row 1: {wrong}") from None
    except OSError:
        raise _unreadable(str(path)) from None
    delimiter = max(",;\t|", key=line.count)
    header = next(csv.reader([line], delimiter=delimiter), [])
    if not header:
        raise UserError(f"{path}: no header; expected a line of column names")
    # pandas writes its index as a column without a name.
    names = [name.strip() or f"column {place}" for place, name in enumerate(header, start=1)]
    columns = ", ".join(
        f"{literal(name)}: 'VARCHAR'" for name in by_name(names, str(path)).values()
    )
    plain = delimiter == "\t" and not quoted
    quotes = "quote = '', escape = ''" if plain else "quote = '\"', escape = '\"'"
    return (
        f"SELECT * FROM read_csv({literal(str(path))}, auto_detect = false, header = true, "
        f"delim = {literal(delimiter)}, {quotes}, columns = {{{columns}}}, "
        # The buffer that DuckDB would take for such rows has 244 MB, and each process several.
        f"max_line_size = {_ROW_MEGABYTES}000000, buffer_size = {2 * _ROW_MEGABYTES + 1}000000)"
    )


def refusal(where: str, message: str) -> UserError:
    """What a user is told of a file that DuckDB cannot read: what, where, expectation, remedy.

    Args:
      where: the file, or the main one of several that are joined, or the folder of its parts.
      message: DuckDB's; of it, numbers and the file that it names are shown.
    """
    where = _named(message) or where
    if not where.endswith(ENDINGS):
        if "Invalid string encoding found in Parquet file" in message:
            return UserError(
                f"{where}: a column of text is not UTF-8; expected that; decode it before it is "
                "written (pandas: `.str.decode('windows-1252')`, where it is bytes in Latin-1)"
            )
        return UserError(f"{where}: cannot be read; expected Parquet; write it again")
    if "state machine reached an invalid state" in message:
        return _mixed_endings(epath.Path(where))
    row = re.search(r"CSV Error on Line: (\d+)", message)
    for pattern, words in _WRONG.items():
        found = re.search(pattern, message)
        if row and found:
            return UserError(
                f"{where}, row {row[1]} (the header is row 1): {words.format(*found.groups())}"
            )
    return _unreadable(where)


def _named(message: str) -> str | None:
    """The file that DuckDB names, if there is such a file; it may quote a row before it."""
    for pattern in _FILE:
        for name in reversed(re.findall(pattern, message, re.MULTILINE)):
            if name.endswith((".parquet", *ENDINGS)) and epath.Path(name).exists():
                return name
    return None


def _unreadable(where: str) -> UserError:
    whole = "" if where.endswith(".csv") else ", compressed as its name says and whole"
    return UserError(
        f"{where}: cannot be read; expected CSV{whole}, with a header, quoted by double quotes; "
        "write it again, or as Parquet"
    )


def _mixed_endings(path: epath.Path) -> UserError:
    """Names the first line that ends unlike the header; those within quotes may end as they like.

    DuckDB reads such files without its strict mode alone, where it also loses cells and joins rows.
    """
    place, first, inside = "", b"", False
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            inside ^= line.count(b'"') % 2 == 1
            ending = line[len(line.rstrip(b"\r\n")) :]
            first = first or ending
            if not inside and ending not in (b"", first):
                place = f", as in line {number}"
                break
    return UserError(
        f"{path}: lines end in more than one way (LF, CR LF or CR){place}; expected one; make it "
        r"LF: `sed 's/\r$//' FILE > NEW`"
    )


@contextlib.contextmanager
def _open(path: epath.Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked."""
    with path.open("rb") as file:
        if path.suffix not in _CODECS:
            yield file
            return
        with pa.CompressedInputStream(file, _CODECS[path.suffix]) as stream:
            yield io.BufferedReader(stream)
