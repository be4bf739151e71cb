"""The files of a MEDS data set: events in Parquet files anywhere below `data/`, and metadata."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
from etils import epath
from pyarrow import parquet

from jaxcoder.errors import UserError
from jaxcoder.records.sources import columns
from jaxcoder.records.sources.columns import CODE, ID, TIME, literal
from jaxcoder.records.sources.csv_files import refusal
from jaxcoder.records.sources.table_files import TableFiles

EVENTS = "data"
"""The table that all files of events are."""
COMPULSORY = {"subject_id": ID, "time": TIME, "code": CODE}
"""The columns that every file of events must have, and what they hold."""


class MedsFiles(TableFiles):
    """The files of a data set."""

    def __init__(self, folder: epath.Path, metadata: Iterable[str]) -> None:
        """Finds the files; reads none.

        Args:
          folder: holds `data/`.
          metadata: tables that may be there, such as `metadata/codes`.

        Raises:
          UserError: there are no events.
        """
        super().__init__(folder, metadata)
        events = folder / EVENTS
        self.files[EVENTS] = sorted(_below(events), key=str) if events.is_dir() else []
        if not self.files[EVENTS]:
            raise UserError(
                f"{folder}: no .parquet file below {EVENTS}/; expected the folder of a MEDS data "
                f"set, which holds {EVENTS}/ and metadata/"
            )

    def where(self, name: str) -> str:
        """The file of a table, or the folder of all events."""
        return str(self.folder / name) if name == EVENTS else super().where(name)

    def query(self, name: str) -> str:
        """SQL that reads a table; columns that some files of events lack are null there.

        Raises:
          UserError: a file of events that cannot be read or lacks a compulsory column.
        """
        if name == EVENTS and name not in self._queries:
            for path in self.files[name]:
                _check(path)
            paths = ", ".join(literal(str(path)) for path in self.files[name])
            self._queries[name] = f"SELECT * FROM read_parquet([{paths}], union_by_name = true)"
        return super().query(name)


def _below(folder: epath.Path) -> Iterator[epath.Path]:
    """The Parquet files of a folder and those within it; epath has no recursive glob."""
    for path in folder.iterdir():
        if path.suffix == ".parquet":
            yield path
        elif path.is_dir():
            yield from _below(path)


def _check(path: epath.Path) -> None:
    """Refuses a file that is no Parquet, or lacks what every file of events has."""
    try:
        with path.open("rb") as file:
            schema = parquet.read_schema(file)
    except (OSError, pa.ArrowException):
        raise refusal(str(path), "") from None
    found = columns.by_name(schema.names, str(path))
    for wanted in COMPULSORY:
        if wanted not in found:
            raise columns.missing(wanted, COMPULSORY, found, str(path))
    kind = schema.field(found["time"]).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)):
        raise UserError(f"{path}: column time is {kind}; expected timestamp; cast it")
