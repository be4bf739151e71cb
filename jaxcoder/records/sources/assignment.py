"""Which split every contact of a relational source belongs to: by hash or by a published list."""

import re
from collections.abc import Callable, Iterator, Sequence

import duckdb
import pyarrow as pa

from jaxcoder.errors import UserError
from jaxcoder.records.findings import Findings, shown
from jaxcoder.records.schema import SPLITS
from jaxcoder.records.sources.staging import unlike
from jaxcoder.records.split import split_of

_NAMES = {
    **{split: split for split in SPLITS},
    **dict.fromkeys(("val", "dev", "tuning"), "validation"),
    "held_out": "test",
}


def assign(
    connection: duckdb.DuckDBPyConnection,
    ids: duckdb.DuckDBPyRelation,
    published: duckdb.DuckDBPyRelation | None,
    where: Callable[[str], str],
    seed: int,
    shares: Sequence[float],
) -> Findings:
    """Makes the table `ids` of contact_id, patient_id and split.

    Args:
      connection: where the tables are made.
      ids: contact_id and patient_id of every row of contacts, as text; they may be null.
      published: columns split and patient_id or contact_id, as text; or None for the hash.
      where: gives the file of a relation, for messages.
      seed: of the hash.
      shares: of train, validation and test.

    Returns:
      The contacts that were left out, by reason.

    Raises:
      UserError: a contact in two rows, an unknown split, a patient in two splits, or a list of
        others' ids.
    """
    dropped = Findings()
    ids.create("held")
    ((count, example),) = connection.execute(
        "SELECT count(*), min(contact_id) FROM held WHERE contact_id IS NULL OR patient_id IS NULL"
    ).fetchall()
    dropped.add("contacts: no contact_id or no patient_id", example, count)
    connection.execute("DELETE FROM held WHERE contact_id IS NULL OR patient_id IS NULL")
    twice = connection.execute(
        "SELECT contact_id, count(*) FROM held GROUP BY contact_id HAVING count(*) > 1 "
        "ORDER BY contact_id LIMIT 1"
    ).fetchone()
    if twice:
        raise UserError(
            f"{where('contacts')}: contact_id {shown(twice[0])} stands in {twice[1]} rows; "
            "expected one row a contact; remove the others, or give each an id of its own"
        )
    if published is None:
        _from_hash(connection, seed, shares)
    else:
        _from_list(connection, published, where)
        ((count, example),) = connection.execute(
            "SELECT count(*), min(contact_id) FROM ids WHERE split IS NULL"
        ).fetchall()
        dropped.add("contacts: not in the relation splits", example, count)
    connection.execute("DROP TABLE held")
    return dropped


def _from_hash(connection: duckdb.DuckDBPyConnection, seed: int, shares: Sequence[float]) -> None:
    schema = pa.schema([(name, pa.string()) for name in ("contact_id", "patient_id", "split")])

    def batches() -> Iterator[pa.RecordBatch]:
        held = connection.cursor().sql("SELECT contact_id, patient_id FROM held")
        for batch in held.to_arrow_reader(65_536):
            splits = [split_of(patient, seed, shares) for patient in batch.column(1).to_pylist()]
            columns = [*batch.columns, pa.array(splits, pa.string())]
            yield pa.record_batch(columns, schema=schema)

    connection.register("hashed", pa.RecordBatchReader.from_batches(schema, batches()))
    connection.execute("CREATE TABLE ids AS SELECT * FROM hashed")
    connection.unregister("hashed")


def _from_list(
    connection: duckdb.DuckDBPyConnection,
    published: duckdb.DuckDBPyRelation,
    where: Callable[[str], str],
) -> None:
    file = where("splits")
    # A list with both ids is read by contact; that a patient has one split is checked below.
    key = "contact_id" if "contact_id" in published.columns else "patient_id"
    published.create("published")
    names = ", ".join(f"('{name}', '{split}')" for name, split in _NAMES.items())
    connection.execute(
        f"CREATE TABLE named AS SELECT DISTINCT {key} AS id, published.split AS written, "
        f"names.split FROM published LEFT JOIN (VALUES {names}) AS names(name, split) "
        f"ON name = lower(trim(published.split)) WHERE {key} IS NOT NULL"
    )
    unknown = connection.execute(
        "SELECT id, written FROM named WHERE split IS NULL ORDER BY written LIMIT 1"
    ).fetchone()
    if unknown:
        split = f" {unknown[1]!r}" if re.fullmatch("[a-z]{1,5}", unknown[1] or "") else ""
        raise UserError(
            f"{file}: unknown split{split} of {key} {shown(unknown[0])}; expected one of "
            f"{', '.join(_NAMES)}"
        )
    torn = "string_agg(DISTINCT split, ' and ' ORDER BY split)"
    conflict = connection.execute(
        f"SELECT id, {torn} FROM named GROUP BY id HAVING count(DISTINCT split) > 1 "
        "ORDER BY id LIMIT 1"
    ).fetchone()
    if conflict:
        raise UserError(
            f"{file}: {key} {shown(conflict[0])} is in {conflict[1]}; expected one split; "
            "remove the other rows"
        )
    connection.execute(
        "CREATE TABLE ids AS SELECT contact_id, patient_id, split FROM held LEFT JOIN "
        f"(SELECT DISTINCT id, split FROM named) AS named ON named.id = held.{key}"
    )
    ((matched, here, there),) = connection.execute(
        f"SELECT count(split), (SELECT min(id) FROM named), min({key}) FROM ids"
    ).fetchall()
    if not matched and None not in (here, there):
        raise unlike(file, key, here, where("contacts"), there)
    conflict = connection.execute(
        "SELECT min_by(contact_id, split) AS one, min(split), max_by(contact_id, split), "
        "max(split) FROM ids GROUP BY patient_id HAVING count(DISTINCT split) > 1 "
        "ORDER BY one LIMIT 1"
    ).fetchone()
    if conflict:
        one, its, other, others = conflict
        raise UserError(
            f"{file}: contact_id {shown(one)} is in {its}, and {shown(other)} of the same patient "
            f"in {others}; a split is by patient: give each patient one"
        )
    connection.execute("DROP TABLE published; DROP TABLE named")
