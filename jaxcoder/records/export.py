"""Contacts as Parquet files: the five relations, as a user's own extract has them."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from etils import epath
from pyarrow import parquet

from jaxcoder.records.schema import ROWS, Contact
from jaxcoder.whole_file import whole_file

_OWN = ("patient_id", "start", "end", "specialty", "age", "sex", "kind")
_TIMES = {"contacts": ("start", "end"), "notes": ("time",), "medications": ("time",)}
_TIMES["labs"] = _TIMES["notes"]
_NUMBERS = {"age": pa.float64(), "low": pa.float64(), "high": pa.float64()}
_NUMBERS["probability"] = pa.float64()
_BATCH = 2000  # contacts a row group: what is held in memory


def write_tables(contacts: Iterable[tuple[str, Contact]], folder: epath.PathLike) -> None:
    """Writes `contacts.parquet`, `notes.parquet`, …, as the source `tables` reads them.

    The relation `conditions` (contact_id, code, coded, probability) is the truth of a synthetic
    cohort: what is present.

    Args:
      contacts: any number, each with its split; memory stays constant.
      folder: made where it is not there; files of the same names are replaced.
    """
    folder = epath.Path(folder)
    stream = iter(contacts)
    with contextlib.ExitStack() as stack:
        writers: dict[str, parquet.ParquetWriter] = {}
        # One batch is written even if there are no contacts, so that every file is there.
        batch = list(itertools.islice(stream, _BATCH))
        while True:
            for relation in ("splits", "contacts", *ROWS):
                table = _table(relation, batch)
                if relation not in writers:
                    file = stack.enter_context(whole_file(folder / f"{relation}.parquet", "wb"))
                    writers[relation] = stack.enter_context(
                        parquet.ParquetWriter(file, table.schema)
                    )
                writers[relation].write_table(table)
            batch = list(itertools.islice(stream, _BATCH))
            if not batch:
                return


def _table(relation: str, batch: Sequence[tuple[str, Contact]]) -> pa.Table:
    """The rows of a relation, empty texts as null."""
    contacts = [contact for _, contact in batch]
    if relation == "splits":
        ids = pa.array([contact.contact_id for contact in contacts], pa.string())
        return pa.table({"contact_id": ids, "split": pa.array([s for s, _ in batch], pa.string())})
    columns: dict[str, list[Any]] = {"contact_id": []}
    if relation == "contacts":
        columns["contact_id"] = [contact.contact_id for contact in contacts]
        columns |= {name: [getattr(contact, name) for contact in contacts] for name in _OWN}
        kinds: dict[str, Any] = dict.fromkeys(_OWN, str)
    else:
        kinds = {field.name: field.type for field in dataclasses.fields(ROWS[relation])}
        columns |= {name: [] for name in kinds}
        for contact in contacts:
            for row in getattr(contact, relation):
                columns["contact_id"].append(contact.contact_id)
                for name in kinds:
                    columns[name].append(getattr(row, name))
    arrays = {}
    for name, values in columns.items():
        if name in _NUMBERS:
            arrays[name] = pa.array(values, _NUMBERS[name])
        elif kinds.get(name) in (int, bool):
            arrays[name] = pa.array(values, pa.int64() if kinds[name] is int else pa.bool_())
        else:
            arrays[name] = pa.array([value or None for value in values], pa.string())
        if name in _TIMES.get(relation, ()):
            arrays[name] = arrays[name].cast(pa.timestamp("s"))
    return pa.table(arrays)
