"""A source that is its relations: read once, put into parts, and read from these as contacts."""

import abc
import contextlib
import functools
import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.findings import Findings
from jaxcoder.records.runner import Runner
from jaxcoder.records.sources import Part, Source, columns, csv_files
from jaxcoder.records.sources.assignment import assign
from jaxcoder.records.sources.columns import COLUMNS, typed
from jaxcoder.records.sources.engine import connected, reading, size
from jaxcoder.records.sources.staged import StagedPart
from jaxcoder.records.sources.staging import MOST_PARTS, Counts, place, stage, unlike
from jaxcoder.records.work_folder import work_folder

_SORTED_SHARE = 0.3
"""Share of the memory limit that the rows of a part may take; a sort takes twice its rows."""
_LARGE = 100 * 10**6
"""Bytes of rows from which parts are worth processes of their own."""


class RelationalSource(Source):
    """A source that is its relations; subclasses have `name`, `identity` and `relations`."""

    def __init__(
        self,
        *,
        seed: int = 0,
        shares: Sequence[float] = (0.8, 0.1, 0.1),
        system: str = "icd10",
        memory_limit: str = "1500MB",
    ) -> None:
        """Remembers how to split and read; reads nothing.

        Args:
          seed: of the split by patient.
          shares: of train, validation and test; both are unused where there is a relation `splits`.
          system: code system of codes that name none.
          memory_limit: of DuckDB in all processes of a machine, such as `2GB`, though of none below
            200 MB; what is larger goes through the temporary folder.
        """
        self._seed, self._shares = seed, shares
        self._system, self._memory = system, size(memory_limit)
        self.__setstate__({})

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs of the source: nothing that is open."""
        here = ("_exits", "_header_connection", "descriptions")
        return {key: each for key, each in super().__getstate__().items() if key not in here}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The inverse of `__getstate__`."""
        self.__dict__.update(state)
        self._exits = contextlib.ExitStack()
        weakref.finalize(self, self._exits.close)

    def prepare(self, connection: duckdb.DuckDBPyConnection, folder: epath.Path) -> None:
        """Leaves in the work folder what the relations need, before they are asked for."""

    def narrow(
        self, connection: duckdb.DuckDBPyConnection, folder: epath.Path, dropped: Findings
    ) -> None:
        """Narrows the relations by what the contacts of all splits have, in the table `ids`."""

    @abc.abstractmethod
    def relations(
        self, connection: duckdb.DuckDBPyConnection
    ) -> dict[str, duckdb.DuckDBPyRelation]:
        """The relations on a connection: contacts, and any of the others.

        Two are not of `COLUMNS`: `splits`, a published split, and `selected`, the contact_id of the
        contacts that are wanted, where not all are.
        """

    def size_of_rows(self) -> int:
        """About how many bytes the rows of all relations take in memory; 0 where they are few."""
        return 0

    def slices(self, relation: str) -> Sequence["RelationalSource"]:
        """Sources that each have some rows of a relation, and together all, in their order."""
        del relation
        return [self]

    def where(self, relation: str) -> str:
        """What messages call a relation: its file, where it has one."""
        return relation

    def refusal(self, where: str, message: str) -> UserError:
        """What a user is told of a table that DuckDB cannot read; its message may quote rows."""
        return csv_files.refusal(where, message)

    def reading(self, relation: str) -> contextlib.AbstractContextManager[None]:
        """Turns errors of DuckDB, while it reads a relation, into the user's."""
        return reading(self.where(relation), self.refusal)

    def parts(self, runner: Runner) -> tuple[Mapping[str, Sequence[Part]], Findings]:
        """Reads every relation once.

        Raises:
          UserError: a missing column, an unreadable file, ids or splits that contradict each other.
        """
        folder = self._exits.enter_context(work_folder(runner.shared))
        memory = self._memory // runner.processes
        rows = self.size_of_rows()
        wanted = math.ceil(rows / (_SORTED_SHARE * memory))
        if rows > _LARGE:  # so many that the last ones end at about the same time
            wanted = max(wanted, 4 * runner.processes)
        with connected(self._memory) as connection:
            self.prepare(connection, folder)
            dropped = self._assign(connection, folder)
            numbers = place(connection, folder, min(wanted, MOST_PARTS))
            known = connection.execute("SELECT min(contact_id) FROM ids").fetchall()[0][0]
        tasks = [
            (relation, number, source)
            for relation in COLUMNS
            if relation in self._columns
            for number, source in enumerate(self.slices(relation) if rows > _LARGE else [self])
        ]
        task = functools.partial(_stage, folder, memory)
        results: dict[str, list[Counts]] = {}
        for (relation, *_), counts in zip(
            tasks, runner.map(task, tasks, rows > _LARGE, "relations"), strict=True
        ):
            results.setdefault(relation, []).append(counts)
        for relation, found in results.items():
            if relation != "contacts":  # counted by now
                self._count(relation, found, known, dropped)
        threads = 0 if runner.processes == 1 else 1
        there = {relation: tuple(self._columns[relation]) for relation in results}
        part = functools.partial(
            StagedPart,
            folder,
            columns=there,
            system=self._system,
            memory=memory,
            threads=threads,
        )
        return {
            split: [part(number) for number in mine] for split, mine in numbers.items()
        }, dropped

    def _count(
        self, relation: str, found: Sequence[Counts], known: str | None, dropped: Findings
    ) -> None:
        """Counts the rows of a relation that no contact will have."""
        there = {key for counts in found for key in counts}
        if "unknown" in there and known is not None and not there & {"kept", "left out"}:
            stray = min(counts["unknown"][1] or "" for counts in found if "unknown" in counts)
            raise unlike(self.where(relation), "contact_id", stray, self.where("contacts"), known)
        missing = " or no ".join(columns.required(relation))
        for key, reason in (
            ("no id", f"no {missing}"),
            ("unknown", "contact_id not in contacts"),
            ("left out", "of contacts that are left out"),
        ):
            for counts in found:
                count, example = counts.get(key, (0, None))
                dropped.add(f"{relation}: {reason}", example, count)

    @functools.cached_property
    def _columns(self) -> dict[str, dict[str, str]]:
        """From a relation and the name a column should have to the name that it has."""
        found = {}
        for relation, held in self.relations(self._header_connection).items():
            with self.reading(relation):
                names = columns.by_name(held.columns, self.where(relation))
            for wanted in COLUMNS.get(relation, {}):
                if wanted not in names and (relation, wanted) not in columns.OPTIONAL:
                    raise columns.missing(wanted, COLUMNS[relation], names, self.where(relation))
            found[relation] = names
        if "contacts" not in found:
            raise UserError(
                f"{self.where('contacts')}: relation contacts is missing; it is compulsory"
            )
        return found

    @functools.cached_property
    def _header_connection(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect()
        self._exits.callback(connection.close)
        return connection

    def _assign(self, connection: duckdb.DuckDBPyConnection, folder: epath.Path) -> Findings:
        """Makes the table `ids`, and counts the contacts that no split has."""
        found, held = self._columns, self.relations(connection)

        def as_text(relation: str, names: Iterable[str], *more: str) -> duckdb.DuckDBPyRelation:
            ids = (f"{typed(columns.ID, found[relation][name])} AS {name}" for name in names)
            return held[relation].project(", ".join((*ids, *more)))

        published = None
        if "splits" in found:
            keys = [key for key in ("patient_id", "contact_id") if key in found["splits"]]
            if not keys or "split" not in found["splits"]:
                lacking = "split" if keys else "patient_id or contact_id"
                wanted = ("patient_id", "contact_id", "split")
                raise columns.missing(lacking, wanted, found["splits"], self.where("splits"))
            published = as_text("splits", (*keys, "split"))
        with self.reading("splits" if published is not None else "contacts"):
            dropped = assign(
                connection,
                as_text("contacts", ("contact_id", "patient_id")),
                published,
                self.where,
                self._seed,
                self._shares,
            )
        self.narrow(connection, folder, dropped)
        if "selected" in found:
            held = self.relations(connection)  # narrowed
            with self.reading("codes"):
                as_text("selected", ["contact_id"]).distinct().create("selected")
            ids = "SELECT contact_id FROM selected WHERE contact_id IS NOT NULL"
            out = f"split IS NOT NULL AND contact_id NOT IN ({ids})"
            ((count, example),) = connection.execute(
                f"SELECT count(*), min(contact_id) FROM ids WHERE {out}"
            ).fetchall()
            dropped.add("contacts: no code of the kind that is asked for", example, count)
            connection.execute(f"UPDATE ids SET split = NULL WHERE {out}; DROP TABLE selected")
        return dropped


def _stage(folder: epath.Path, memory: int, task: tuple[str, int, RelationalSource]) -> Counts:
    """Puts a slice of a relation into the parts of its contacts."""
    relation, number, source = task
    with connected(memory, threads=1) as connection, source.reading(relation):
        rows = source.relations(connection)[relation]
        return stage(connection, folder, relation, number, rows, source._columns[relation])
