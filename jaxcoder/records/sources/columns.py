"""The columns of the relations: what each holds, and the SQL that reads it as that."""

import re
from collections.abc import Collection, Iterable, Mapping

from jaxcoder.errors import UserError
from jaxcoder.records.contact_json import NO_NUMBER, NO_TIME

# What a column holds. An id and a code may not be null; a place is an integer that a row of
# evidence cannot do without.
ID, CODE, TEXT, TIME, NUMBER, INTEGER, PLACE = (
    "id",
    "code",
    "text",
    "timestamp",
    "number",
    "integer",
    "place",
)
COLUMNS: dict[str, dict[str, str]] = {
    "contacts": {
        "contact_id": ID,
        "patient_id": ID,
        "start": TIME,
        "end": TIME,
        "specialty": TEXT,
        "age": NUMBER,
        "sex": TEXT,
        "kind": TEXT,
    },
    "notes": {"contact_id": ID, "time": TIME, "kind": TEXT, "text": TEXT, "rank": INTEGER},
    "medications": {
        "contact_id": ID,
        "time": TIME,
        "code": TEXT,
        "name": TEXT,
        "dose": TEXT,
        "route": TEXT,
    },
    "labs": {
        "contact_id": ID,
        "time": TIME,
        "code": TEXT,
        "name": TEXT,
        "value": TEXT,
        "unit": TEXT,
        "low": NUMBER,
        "high": NUMBER,
        "flag": TEXT,
    },
    "codes": {"contact_id": ID, "code": CODE, "system": TEXT, "role": TEXT, "rank": INTEGER},
    "evidence": {
        "contact_id": ID,
        "code": CODE,
        "note": PLACE,
        "start": PLACE,
        "end": PLACE,
        "mention": INTEGER,
    },
}
"""The relations that nest into a contact, their columns, and what each holds."""
OPTIONAL = {("contacts", "kind"), ("evidence", "mention"), ("notes", "rank")}
"""Columns that may be missing; notes that have a rank stand by it, the others by time."""

_SQL = {
    # pandas writes a column of whole numbers with gaps as floats. They are exact to 15 digits;
    # longer ones, and those of 32 bits, may have become another contact's.
    # Fixed-width columns pad ids with blanks.
    ID: "nullif(trim(CASE typeof({0}) WHEN 'DOUBLE' THEN regexp_replace(CAST({0} AS VARCHAR), "
    r"'^(\d{{1,15}})\.0$', '\1') ELSE CAST({0} AS VARCHAR) END), '')",
    CODE: "nullif(CAST({} AS VARCHAR), '')",
    TEXT: "nullif(CAST({} AS VARCHAR), '')",  # as in CSV, where nothing else is null
    # With a zone (Parquet keeps no other than UTC), in UTC, for the connection's TimeZone is that;
    # without one, as it is. No contact was before 1800: `10/4/25` is of no known year.
    TIME: "CASE WHEN TRY_CAST({0} AS TIMESTAMPTZ) >= TIMESTAMPTZ '1800-01-01 00:00:00+00' "
    "THEN strftime(TRY_CAST({0} AS TIMESTAMPTZ), '%Y-%m-%dT%H:%M:%S') END",
    # A decimal comma, unless three digits follow: 1,250 may be a thousand and more.
    NUMBER: "TRY_CAST(CASE typeof({0}) WHEN 'VARCHAR' THEN regexp_replace(CAST({0} AS VARCHAR), "
    r"'^ *([+-]?\d+),(\d{{1,2}}|\d{{4,}}) *$', '\1.\2') ELSE CAST({0} AS VARCHAR) END AS DOUBLE)",
    INTEGER: "TRY_CAST({} AS BIGINT)",
    PLACE: "TRY_CAST({} AS BIGINT)",
}

_NAME = re.compile(r"[a-z_]\w{0,39}")
"""A name that may be shown: a file without a header has a row where its names should be."""


EMPTIED = {
    TIME: NO_TIME,
    NUMBER: NO_NUMBER,
    INTEGER: "no whole number (emptied)",
    PLACE: "no whole number (emptied)",
}
"""What findings say of a value that is there but not of its kind."""


def required(relation: str) -> list[str]:
    """The columns that every row of a relation must have a value in."""
    return [column for column, kind in COLUMNS[relation].items() if kind in (ID, CODE)]


def typed(kind: str, column: str) -> str:
    """SQL that reads a column of that name as its kind; null where that cannot be."""
    return _SQL[kind].format(quoted(column))


def failed(kind: str, column: str) -> str | None:
    """SQL that is true where a value is there but not of its kind; None for a kind that any is."""
    if kind in (ID, CODE, TEXT):
        return None
    there = f"coalesce(CAST({quoted(column)} AS VARCHAR), '') <> ''"
    return f"{there} AND {typed(kind, column)} IS NULL"


def by_name(found: Iterable[str], where: str) -> dict[str, str]:
    """From names without case and outer blanks to the names found.

    Raises:
      UserError: two that are then the same.
    """
    names: dict[str, str] = {}
    for place, column in enumerate(found, start=1):
        key = column.strip().lower()
        if key in names:
            first = list(names).index(key) + 1
            raise UserError(
                f"{where}: columns {first} and {place} have the same name"
                f"{f' {key!r}' if _NAME.fullmatch(key) else ''}; expected each once; rename or "
                "remove one"
            )
        names[key] = column
    return names


def missing(
    column: str, wanted: Collection[str], names: Mapping[str, str], where: str
) -> UserError:
    """The refusal of a table without a column.

    Where no name is one of the table's, the first line may be a row, and is not shown.

    Args:
      column: that is missing.
      wanted: all names that the table may have.
      names: those found, as `by_name` gives them.
      where: the table's file.
    """
    if not names.keys() & set(wanted):
        return UserError(
            f"{where}: column {column} is missing; found none of the names expected; write a first "
            "line of names, parted as the rows are by one of , ; | or tabs"
        )
    return UserError(
        f"{where}: column {column} is missing; found {', '.join(names.values())}; rename one, or "
        "add it (empty, unless it is an id)"
    )


def literal(text: str) -> str:
    """A text as SQL writes it."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def quoted(name: str) -> str:
    """A column's name as SQL writes it."""
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
