"""What the MIMIC sources share: kinds of codes, and the rules of a replication study."""

import dataclasses
from collections.abc import Callable
from typing import Any

import duckdb
from etils import epath

from jaxcoder.records.findings import Findings
from jaxcoder.records.sources import folder_source
from jaxcoder.records.sources.columns import literal
from jaxcoder.records.sources.folder_source import FolderOptions, FolderSource

CODES = ("D", "P", "DP")
TEXTS = ("verbatim", "replication")
_REPLICATION = (
    "array_to_string(list_filter(string_split(regexp_replace(lower(text), '[^a-z0-9]+', ' ', 'g'), "
    "' '), lambda word: regexp_matches(word, '[a-z]'))[:4000], ' ')"
)


@dataclasses.dataclass(frozen=True)
class MimicOptions(FolderOptions):
    """Options of every MIMIC source.

    Attributes:
      codes: `D` for diagnoses, `P` for procedures, `DP` for both; unless it is given, procedures
        where they are there.
      text: `verbatim`, or `replication`: the rules of Edin et al. (SIGIR 2023, arXiv:2304.10909),
        lower case, letters and digits alone, no word without a letter, 4,000 words of a note; the
        study cuts an admission's notes after they are joined.
      min_code_count_all_splits: contacts that a code occurs in at least, over ALL splits, as that
        study filters; 0 keeps every code. It looks at the test split: for comparison alone.
        Contacts of no split do not count.
      most_frequent_codes_all_splits: so many codes are kept, the most frequent of ALL splits, as in
        the benchmark of 50 codes; 0 keeps every code.
    """

    name: str = "mimic"
    codes: str = "DP"
    text: str = "verbatim"
    min_code_count_all_splits: int = 0
    most_frequent_codes_all_splits: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes not in CODES:
            raise ValueError(f"codes = {self.codes!r}: expected one of {', '.join(CODES)}")
        if self.text not in TEXTS:
            raise ValueError(f"text = {self.text!r}: expected one of {', '.join(TEXTS)}")
        for key in ("min_code_count_all_splits", "most_frequent_codes_all_splits"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 or more")


KINDS: dict[str, Callable[[str], Any]] = {
    **folder_source.KINDS,
    "min_code_count_all_splits": int,
    "most_frequent_codes_all_splits": int,
}
"""How the text of `--option key=value` is read."""


class Mimic(FolderSource):
    """Admissions; those with a code of the kind that the options ask for."""

    def service_at_discharge(self, read: Callable[[str], str], table: str) -> tuple[str, str]:
        """SQL of a column, and the join with admissions that it needs."""
        if table not in self._tables:
            return "NULL", ""
        last = "arg_max(curr_service, transfertime) AS service"
        return "service", (
            f"LEFT JOIN (SELECT hadm_id, {last} FROM {read(table)} GROUP BY hadm_id) "
            "USING (hadm_id)"
        )

    _kept_file: epath.Path | None = None
    """The codes that the options leave, once they are known."""

    def narrow(
        self, connection: duckdb.DuckDBPyConnection, folder: epath.Path, dropped: Findings
    ) -> None:
        """Leaves in the work folder which codes the options keep: by the contacts of all splits."""
        options = self._options
        assert isinstance(options, MimicOptions)
        least, most = options.min_code_count_all_splits, options.most_frequent_codes_all_splits
        if not least and not most:
            return
        self._kept_file = None  # of an earlier reading
        self._queries = self.queries(self._read)
        counts = f"""
            SELECT system, code, count(DISTINCT contact_id) AS contacts, count(*) AS rows
            FROM ({self._queries["codes"]}) JOIN ids USING (contact_id) WHERE split IS NOT NULL
            GROUP BY system, code"""
        limit = f"ORDER BY contacts DESC, system, code LIMIT {most}" if most else ""
        with self.reading("codes"):
            connection.execute(f"CREATE TABLE counted AS {counts}")
            connection.execute(
                "CREATE TABLE kept_here AS SELECT system, code FROM counted "
                f"WHERE contacts >= {least} {limit}"
            )
            self._kept_file = folder / "kept.parquet"
            connection.execute(
                f"COPY kept_here TO {literal(str(self._kept_file))} (FORMAT parquet)"
            )
            ((rows,),) = connection.execute(
                "SELECT coalesce(sum(rows), 0)::BIGINT FROM counted ANTI JOIN kept_here "
                "USING (system, code)"
            ).fetchall()
        dropped.add("codes: too rare in all splits, as the options ask", None, rows)
        self._queries = self.queries(self._read)

    def narrowed(self, queries: dict[str, str], options: MimicOptions) -> dict[str, str]:
        """The relations of all admissions, as the options narrow them."""
        coded = queries["codes"]
        if self._kept_file is not None:
            kept = f"read_parquet({literal(str(self._kept_file))})"
            coded = f"SELECT * FROM ({coded}) SEMI JOIN {kept} USING (system, code)"
        narrowed = {**queries, "codes": coded, "selected": f"SELECT contact_id FROM ({coded})"}
        if "notes" in queries and options.text == "replication":
            narrowed["notes"] = (
                f"SELECT * REPLACE ({_REPLICATION} AS text) FROM ({queries['notes']})"
            )
        return narrowed
