"""A user's own extract: the five relations as Parquet or CSV files in one folder."""

import dataclasses
import difflib
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import duckdb
from etils import epath

from jaxcoder import settings
from jaxcoder.errors import UserError
from jaxcoder.records import code_systems
from jaxcoder.records.sources import csv_files, fingerprint, parse_options
from jaxcoder.records.sources.columns import COLUMNS
from jaxcoder.records.sources.relations import RelationalSource, size
from jaxcoder.records.split import split_of

_RELATIONS = (*COLUMNS, "splits")
_ENDINGS = (".parquet", *csv_files.ENDINGS)
_TABLE = re.compile(r"(parquet|pq|csv|tsv|xlsx?)(\.(gz|zstd?|bz2|xz|zip))?", re.IGNORECASE)
"""Endings of a table, such as a user may think is read."""


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
        code_systems.canonical_system(self.system)
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
        self._files = _files(source_dir)

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
            with self._reading(relation):
                if relation in self._queries:
                    held[relation] = connection.sql(self._queries[relation])
                else:
                    held[relation] = connection.read_parquet([str(path) for path in files])
        return held

    @functools.cached_property
    def _queries(self) -> dict[str, str]:
        return {
            relation: csv_files.query(files[0])
            for relation, files in self._files.items()
            if files[0].name.endswith(csv_files.ENDINGS)
        }


def _files(folder: epath.Path) -> dict[str, list[epath.Path]]:
    """The files of each relation that is there."""
    for path in sorted(folder.iterdir(), key=str):
        _refuse_misnamed(path)
    files = {}
    for relation in _RELATIONS:
        found = [folder / f"{relation}{ending}" for ending in _ENDINGS]
        found = [path for path in found if path.exists()]
        parts = folder / relation
        if len(found) + parts.is_dir() > 1:
            names = ", ".join(path.name for path in (*found, *([parts] if parts.is_dir() else [])))
            raise UserError(
                f"{folder}: {names}: expected one file for relation {relation}; remove the others"
            )
        if parts.is_dir():
            found = sorted(parts.glob("*.parquet"), key=str)
            if not found:
                raise UserError(
                    f"{parts}: no .parquet file in it; expected parts of relation {relation}"
                )
        if found:
            files[relation] = found
    if "contacts" not in files:
        raise UserError(f"{folder}: no contacts.parquet or contacts.csv; it is compulsory")
    return files


def _refuse_misnamed(path: epath.Path) -> None:
    """Refuses a table or folder of parts that is ignored for a name that is nearly a relation's."""
    stem, dot, rest = path.name.partition(".")
    ending = dot + rest
    near = difflib.get_close_matches(stem.lower(), _RELATIONS, n=1, cutoff=0.85)
    if not near or (stem in _RELATIONS and ending in ("", *_ENDINGS)):
        return
    if _TABLE.fullmatch(rest) or any(path.glob("*.parquet")):
        endings = [ending.lower()] if ending.lower() in ("", *_ENDINGS) else [".parquet", ".csv"]
        expected = " or ".join(f"{near[0]}{each}" for each in endings)
        raise UserError(
            f"{path}: would be ignored: its name is not quite a relation's; expected "
            f"{expected}; rename it, or move it to another folder"
        )
