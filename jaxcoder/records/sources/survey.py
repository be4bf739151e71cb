"""One pass over a relation before its rows are read: its size, and the rows of no contact."""

from collections.abc import Callable

import duckdb

from jaxcoder.errors import UserError
from jaxcoder.records.findings import Findings, shown
from jaxcoder.records.sources.columns import required

_ROW_BYTES = 64
"""What a row takes in a sort, beside its texts."""


def survey(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    rows: duckdb.DuckDBPyRelation,
    where: Callable[[str], str],
    dropped: Findings,
) -> int:
    """Counts the rows that no contact will have.

    Args:
      connection: with the table `ids` of contacts.
      relation: its name.
      rows: its required columns as text, and `length`, the characters of each row.
      where: gives the file of a relation, for messages.
      dropped: where they are counted.

    Returns:
      The bytes that a sort of the relation takes.

    Raises:
      UserError: there are contacts and rows, and no row is of a contact.
    """
    wanted = required(relation)
    empty = f"({' OR '.join(f'rows.{column} IS NULL' for column in wanted)})"
    stray = f"NOT {empty} AND ids.contact_id IS NULL"
    ((size, empties, empties_id, strays, stray_id, matched, contact_id),) = (
        rows.set_alias("rows")
        .join(connection.table("ids").set_alias("ids"), "rows.contact_id = ids.contact_id", "left")
        .aggregate(
            f"coalesce(sum(length), 0) + {_ROW_BYTES} * count(*), "
            f"count(*) FILTER ({empty}), min(rows.contact_id) FILTER ({empty}), "
            f"count(*) FILTER ({stray}), min(rows.contact_id) FILTER ({stray}), "
            "count(ids.contact_id), (SELECT min(contact_id) FROM ids)"
        )
        .fetchall()
    )
    if strays and not matched and contact_id is not None:
        raise unlike(where(relation), "contact_id", stray_id, where("contacts"), contact_id)
    dropped.add(f"{relation}: no {' or no '.join(wanted)}", empties_id, empties)
    dropped.add(f"{relation}: contact_id not in contacts", stray_id, strays)
    return int(size)


def unlike(here: str, key: str, id_here: str, there: str, id_there: str) -> UserError:
    """The refusal of a file none of whose ids stands in another."""
    return UserError(
        f"{here}: no {key} stands in {there}: {shown(id_here)} here, {shown(id_there)} there, for "
        "example; expected them written alike; cast both to integers or to text (pandas makes "
        'floats of integers with gaps: .astype("Int64"))'
    )
