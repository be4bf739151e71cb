"""A user's own extract: the five relations as Parquet or CSV files in one folder, or as views."""

import copy
import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
from etils import epath

from jaxcoder import settings
from jaxcoder.errors import UserError
from jaxcoder.records import code_systems
from jaxcoder.records.sources import parse_options
from jaxcoder.records.sources.columns import COLUMNS
from jaxcoder.records.sources.engine import size
from jaxcoder.records.sources.relations import RelationalSource
from jaxcoder.records.sources.table_files import ENDINGS, open_tables
from jaxcoder.records.split import parse_shares, split_of

_RELATIONS = (*COLUMNS, "splits")
_TABLE = re.compile(r"(parquet|pq|csv|tsv|xlsx?)(\.(gz|zstd?|bz2|xz|zip))?", re.IGNORECASE)
"""Endings of a table, such as a user may think is read."""


@dataclasses.dataclass(frozen=True)
class TablesOptions:
    """Options of the source.

    Attributes:
      name: of the data set; letters, digits and `_`.
      seed: of the split by patient, where there is no relation `splits`.
      shares: of patients in train, validation and test; from a command line as `0.8,0.1,0.1`.
      system: code system of codes whose column `system` is empty.
      memory_limit: of DuckDB in all processes, though of none below 200 MB; what is larger goes
        through the temporary folder (TMPDIR).
    """

    name: str = "tables"
    seed: int = 0
    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    system: str = "icd10"
    memory_limit: str = "1500MB"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII):
            raise ValueError(f"name = {self.name!r}: expected letters, digits and _")
        split_of("", self.seed, self.shares)
        try:
            code_systems.canonical_system(self.system)
        except ValueError as error:
            raise ValueError(f"system: {error}") from None
        size(self.memory_limit)


class Tables(RelationalSource):
    """A folder of relations, or a schema of tables or views with their names.

    Files `contacts`, `notes`, `medications`, `labs`, `codes`, `evidence`, `splits`: each
    `.parquet`, `.csv`, `.csv.gz`, `.csv.zst` or a folder of `.parquet` parts. Only contacts and
    codes are compulsory; without codes the records serve for prediction alone.
    """

    def __init__(self, source_dir: epath.Path | str, options: Mapping[str, Any]) -> None:
        kinds: dict[str, Callable[[str], Any]] = {"seed": int, "shares": parse_shares}
        self._options = settings.build(TablesOptions, parse_options(options, kinds), "tables")
        super().__init__(
            seed=self._options.seed,
            shares=self._options.shares,
            system=self._options.system,
            memory_limit=self._options.memory_limit,
        )
        self.name = self._options.name
        if not isinstance(source_dir, str):
            for path in sorted(source_dir.iterdir(), key=str):
                _refuse_misnamed(path)
        self._tables = open_tables(source_dir, _RELATIONS, ["contacts"])

    @property
    def identity(self) -> Mapping[str, Any]:
        """Source, options that decide content, and the state of every table."""
        options = dataclasses.asdict(self._options)
        del options["memory_limit"]
        return {"source": "tables", "options": options} | self._tables.state

    def size_of_rows(self) -> int:
        """By the sizes of the tables."""
        return self._tables.size_of_rows()

    def slices(self, relation: str) -> Sequence["Tables"]:
        """By files."""
        found = []
        for tables in self._tables.slices(relation):
            found.append(copy.copy(self))
            found[-1]._tables = tables
        return found

    def where(self, relation: str) -> str:
        """The table of a relation."""
        return self._tables.where(relation)

    def refusal(self, where: str, message: str) -> UserError:
        """As files or database have it."""
        return self._tables.refusal(where, message)

    def relations(
        self, connection: duckdb.DuckDBPyConnection
    ) -> dict[str, duckdb.DuckDBPyRelation]:
        """The tables as they are."""
        held = {}
        self._tables.attach(connection)
        for relation in _RELATIONS:
            if relation in self._tables:
                with self.reading(relation):
                    held[relation] = connection.sql(self._tables.query(relation))
        return held


def _refuse_misnamed(path: epath.Path) -> None:
    """Refuses a table or folder of parts that is ignored for a name that is nearly a relation's."""
    stem, dot, rest = path.name.partition(".")
    ending = dot + rest
    near = difflib.get_close_matches(stem.lower(), _RELATIONS, n=1, cutoff=0.85)
    if not near or (stem in (near[0], near[0].upper()) and ending in ("", *ENDINGS)):
        return
    if _TABLE.fullmatch(rest) or any(path.glob("*.parquet")):
        endings = [ending.lower()] if ending.lower() in ("", *ENDINGS) else [".parquet", ".csv"]
        expected = " or ".join(f"{near[0]}{each}" for each in endings)
        raise UserError(
            f"{path}: would be ignored: its name is not quite a relation's; expected "
            f"{expected}; rename it, or move it to another folder"
        )
