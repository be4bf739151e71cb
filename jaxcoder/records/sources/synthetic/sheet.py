"""A table of the catalogue: a CSV file whose cells are checked as they are read."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn, TypeVar

from jaxcoder.errors import UserError

T = TypeVar("T")


class Row:
    """One row; its errors name file, row and column."""

    def __init__(self, file: str, number: int, cells: dict[str, str]) -> None:
        """Remembers where the row stands: `number` is its line, the header's being 1."""
        self.file, self.line, self._cells = file, number, cells

    def fail(self, column: str, expected: str) -> NoReturn:
        """Raises the UserError for a cell."""
        value = self._cells[column]
        raise UserError(
            f"{self.file}, row {self.line}, column {column!r}: {value!r}: expected {expected}"
        )

    def text(self, column: str, empty: bool = False) -> str:
        """A cell's text, which may be empty only where said so."""
        value = self._cells[column]
        if not value and not empty:
            self.fail(column, "a text")
        return value

    def number(self, column: str, low: float, high: float) -> float:
        """A number from low to high."""
        try:
            value = float(self._cells[column])
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            self.fail(column, f"a number from {low:g} to {high:g}")
        return value

    def choice(self, column: str, choices: Sequence[str]) -> str:
        """A cell that holds one of a few words."""
        value = self._cells[column]
        if value not in choices:
            self.fail(column, f"one of {', '.join(choice or '(empty)' for choice in choices)}")
        return value

    def matching(self, column: str, pattern: re.Pattern[str], expected: str) -> str:
        """A cell that is of a form."""
        value = self._cells[column]
        if not pattern.fullmatch(value):
            self.fail(column, expected)
        return value

    def known(self, column: str, table: Mapping[str, T]) -> T:
        """What a cell refers to."""
        value = self._cells[column]
        if value not in table:
            self.fail(column, "a name that has a row in the table that lists them")
        return table[value]

    def several(self, column: str, choices: Sequence[str] | None = None) -> tuple[str, ...]:
        """The `;`-separated words of a cell."""
        words = tuple(word.strip() for word in self._cells[column].split(";") if word.strip())
        if choices is not None and not set(words) <= set(choices):
            self.fail(column, f"some of {', '.join(choices)}, separated by ;")
        return words


def read(file: str, text: str, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a table.

    Args:
      file: its name, for messages.
      text: its content: CSV, the first line the header.
      columns: those that it must have, in any order; others are ignored.

    Raises:
      UserError: a missing column, or a row with another number of cells.
    """
    reader = csv.reader(io.StringIO(text))
    header = [name.strip() for name in next(reader, [])]
    for column in columns:
        if column not in header:
            raise UserError(
                f"{file}: column {column!r} is missing; found {', '.join(header) or 'none'}; add it"
            )
    for cells in reader:
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{file}, row {reader.line_num}: {len(cells)} cells: expected {len(header)}; "
                "quote texts that hold a comma"
            )
        yield Row(
            file, reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
        )
