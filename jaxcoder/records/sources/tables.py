"""A user's own extract: the five relations as Parquet or CSV files in one folder."""

import csv
import dataclasses
import gzip
import re
from collections.abc import Callable, Mapping
from typing import Any

import duckdb
from etils import epath

from jaxcoder import settings
from jaxcoder.errors import UserError
from jaxcoder.records import codes as icd
from jaxcoder.records.sources import fingerprint, parse_options
from jaxcoder.records.sources.relations import COLUMNS, RelationalSource, size
from jaxcoder.records.split import split_of

_ENDINGS = (".parquet", ".csv", ".csv.gz")


def _shares(text: str) -> tuple[float, ...]:
    return tuple(float(share) for share in text.split(","))


@dataclasses.dataclass(frozen=True)
class TablesOptions:
    """Options of the source.

    Attributes:
      name: of the data set; letters, digits and `_`.
      seed: of the split by patient, where there is no relation `splits`.
      shares: of patients in train, validation and test; from a command line as `0.8,0.1,0.1`.
      system: code system of codes whose column `system` is empty.
      memory_limit: of DuckDB; what is larger goes through the temporary folder (TMPDIR).
    """

    name: str = "tables"
    seed: int = 0
    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    system: str = "icd10"
    memory_limit: str = "2GB"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII):
            raise ValueError(f"name = {self.name!r}: expected letters, digits and _")
        split_of("", self.seed, self.shares)
        icd.canonical_system(self.system)
        size(self.memory_limit)


class Tables(RelationalSource):
    """A folder of relations.

    Files `contacts`, `notes`, `medications`, `labs`, `codes`, `evidence`, `splits`: each
    `.parquet`, `.csv`, `.csv.gz`, `.csv.zst` or a folder of `.parquet` parts. Only contacts and
    codes are compulsory; without codes the records serve for prediction alone.
    """

    def __init__(self, source_dir: epath.Path, options: Mapping[str, Any]) -> None:
        kinds: dict[str, Callable[[str], Any]] = {"seed": int, "shares": _shares}
        self._options = settings.build(TablesOptions, parse_options(options, kinds), "tables")
        super().__init__(
            seed=self._options.seed,
            shares=self._options.shares,
            system=self._options.system,
            memory_limit=self._options.memory_limit,
        )
        self._folder = source_dir
        self.name = self._options.name
        self._files: dict[str, list[epath.Path]] = {}
        for relation in (*COLUMNS, "splits"):
            found = [source_dir / f"{relation}{ending}" for ending in _ENDINGS]
            found = [path for path in found if path.exists()]
            parts = source_dir / relation
            if len(found) + parts.is_dir() > 1:
                names = ", ".join(
                    path.name for path in (*found, *([parts] if parts.is_dir() else []))
                )
                raise UserError(
                    f"{source_dir}: {names}: expected one file for relation {relation}; "
                    "remove the others"
                )
            if parts.is_dir():
                found = sorted(parts.glob("*.parquet"), key=str)
                if not found:
                    raise UserError(
                        f"{parts}: no .parquet file in it; expected parts of relation {relation}"
                    )
            if found:
                self._files[relation] = found
        if "contacts" not in self._files:
            raise UserError(f"{source_dir}: no contacts.parquet or contacts.csv; it is compulsory")

    @property
    def identity(self) -> Mapping[str, Any]:
        """Source, options that decide content, and the state of every file."""
        options = dataclasses.asdict(self._options)
        del options["memory_limit"]
        paths = [path for files in self._files.values() for path in files]
        return {"source": "tables", "options": options, "files": fingerprint(self._folder, paths)}

    def where(self, relation: str) -> str:
        """The file of a relation."""
        files = self._files.get(relation, [self._folder / relation])
        return str(files[0] if len(files) == 1 else files[0].parent)

    def relations(
        self, connection: duckdb.DuckDBPyConnection
    ) -> dict[str, duckdb.DuckDBPyRelation]:
        """The files as they are; CSV as text, so that codes and ids keep their leading zeros."""
        held = {}
        for relation, files in self._files.items():
            paths = [str(path) for path in files]
            with self._reading(relation):
                if paths[0].endswith(".parquet"):
                    held[relation] = connection.read_parquet(paths)
                else:
                    held[relation] = connection.sql(_csv(files[0]))
        return held


def _csv(path: epath.Path) -> str:
    """A query of a CSV file, every column as text.

    Nothing but the delimiter is guessed, and that from the header: DuckDB guesses from rows, and
    commas and quotes in notes mislead it.
    """
    try:
        with path.open("rb") as file:
            zipped = path.name.endswith(".gz")
            raw = (gzip.GzipFile(fileobj=file) if zipped else file).readline()
        line = raw.decode("utf-8-sig").strip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); expected CSV") from None
    delimiter = max(",;\t|", key=line.count)
    header = next(csv.reader([line], delimiter=delimiter), [])
    if not header:
        raise UserError(f"{path}: no header; expected a line of column names")
    columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in header)
    return (
        f"SELECT * FROM read_csv({_literal(str(path))}, auto_detect = false, header = true, "
        f"delim = {_literal(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}}, "
        "max_line_size = 16000000)"
    )


def _literal(text: str) -> str:
    """A text as SQL writes it."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
