"""A contact as the features of its TFDS record, and back.

Each nested relation (notes, medications, labs, codes, evidence, conditions) is one feature, a
matrix of text with a row an item and a column a field of its dataclass; numbers are written as the
shortest text that reads back the same. A contact of 2 notes, 500 words in all, 6 medications, 20
laboratory results and 5 codes, a CPU second (`jaxcoder bench records`):

| layout | written/s | read/s | bytes |
|---|---|---|---|
| TFDS `Sequence` of columns | 904 | 2,522 | 2,517 |
| this one | 3,517 | 4,948 | 2,333 |

The cost of the first is a Python call a value; and its float32 does not give a laboratory's 6.1
back.
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxcoder.records.schema import ROWS, Contact

_COLUMNS = {
    key: tuple(field.name for field in dataclasses.fields(row)) for key, row in ROWS.items()
}
_SCALARS = tuple(field.name for field in dataclasses.fields(Contact) if field.name not in ROWS)


def features() -> tfds.features.FeaturesDict:
    """The features of a contact record."""
    text = tfds.features.Text
    rows = {
        key: tfds.features.Tensor(
            shape=(None, len(columns)),
            dtype=np.str_,
            doc=f"Rows of columns {', '.join(columns)}; empty is null.",
        )
        for key, columns in _COLUMNS.items()
    }
    return tfds.features.FeaturesDict({**{key: text() for key in _SCALARS}, **rows})


def encode(contact: Contact) -> dict[str, Any]:
    """A contact as its features want it."""
    record: dict[str, Any] = {key: _text(getattr(contact, key)) for key in _SCALARS}
    for key, columns in _COLUMNS.items():
        rows = getattr(contact, key)
        cells = np.empty((len(rows), len(columns)), dtype=object)
        for number, row in enumerate(rows):
            cells[number] = [_text(getattr(row, column)) for column in columns]
        record[key] = cells
    return record


def decode(record: dict[str, Any]) -> Contact:
    """A contact from its features; the inverse of `encode`, bit for bit."""
    values: dict[str, Any] = {key: record[key].decode() for key in _SCALARS}
    values |= {key: cast(values[key]) for key, cast in _CASTS[Contact].items()}
    for key, row in ROWS.items():
        # A column at a time: with 28 laboratory rows 124 us a contact, a cell at a time 153.
        columns = [map(bytes.decode, cells) for cells in record[key].T.tolist()]
        for place, column in enumerate(_COLUMNS[key]):
            if column in _CASTS[row]:
                columns[place] = map(_CASTS[row][column], columns[place])
        values[key] = tuple(map(row, *columns))
    return Contact(**values)


def _text(value: Any) -> str:
    # repr gives the shortest text that reads back as the same float.
    return value if isinstance(value, str) else "" if value is None else repr(value)


def _cast(hint: Any) -> Callable[[str], Any] | None:
    """How to read a column back from its text; None where it is text."""
    if hint is bool:
        return lambda text: text == "True"
    if hint is int:
        return int
    if hint is float:
        return float
    if isinstance(hint, types.UnionType):
        inner = next(argument for argument in typing.get_args(hint) if argument is not type(None))
        return lambda text: inner(text) if text else None
    return None


def _casts(row: type) -> dict[str, Callable[[str], Any]]:
    hints = typing.get_type_hints(row)
    return {
        name: cast
        for name, hint in hints.items()
        if name not in ROWS and (cast := _cast(hint)) is not None
    }


_CASTS = {row: _casts(row) for row in (Contact, *ROWS.values())}
