"""Outcomes: what became of each contact of an evaluated split, as contacts.parquet.

Tables by group, intervals and comparisons are computed from this file; no model is needed again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.metrics.measures import OUTCOME_COUNTS, OUTCOME_MEASURES

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("contact_id", "patient_id", "specialty", "sex", "kind")),
        ("age", pa.float32()),
        *((name, pa.int32()) for name in ("year", "notes", "tokens", *OUTCOME_COUNTS)),
        *((f"recall_at_{depth}", pa.float32()) for depth in (5, 10, 15)),
        *((name, pa.float32()) for name in ("r_precision", "map", "loss", "confidence")),
    ]
)
"""Columns of contacts.parquet, a row a contact in the order of predictions.parquet. `age` (years)
and `year` (of the start) are null where unknown, texts empty, `sex` U; `tokens` is what the coder
reads; the counts are those of `measures.OUTCOME_COUNTS`; ranking measures are 0 without gold
codes; `confidence` is the log of a probability, see `measures.OUTCOME_MEASURES`."""

_MEASURES = {name: place for place, name in enumerate(OUTCOME_MEASURES) if name in SCHEMA.names}


def row(
    record: Mapping[str, Any], tokens: int, counts: np.ndarray, measures: np.ndarray
) -> dict[str, Any]:
    """Makes a contact's row.

    Args:
      record: of `TokenData.outcome_source`.
      tokens: length of its document.
      counts: int32 [4], of `counting.Outcomes`.
      measures: float32 [10], likewise.
    """
    return {
        **{key: record[key] for key in ("contact_id", "patient_id", "specialty", "sex", "kind")},
        "age": record["age"] if record["age"] >= 0 else None,
        "year": record["year"] or None,
        "notes": record["notes"],
        "tokens": tokens,
        **dict(zip(OUTCOME_COUNTS, counts.tolist(), strict=True)),
        **{name: measures[place] for name, place in _MEASURES.items()},
    }


def read(
    path: epath.PathLike, names: Sequence[str] = (), remedy: str = "run `jaxcoder evaluate` again"
) -> dict[str, np.ndarray]:
    """Reads contacts.parquet.

    Args:
      path: the file.
      names: columns; empty for all.
      remedy: what an error tells to do.

    Returns:
      Columns [N]: text as objects, numbers as they are stored, those with unknown ones as float
      with NaN.

    Raises:
      UserError: it is not there, or not such a file.
    """
    path = epath.Path(path)
    wanted = list(names or SCHEMA.names)
    try:
        with path.open("rb") as file:
            held = pq.ParquetFile(file)
            for name in wanted:
                if name not in held.schema_arrow.names:
                    raise UserError(f"{path}: column {name} is missing; {remedy}")
            table = held.read(wanted)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__}); {remedy}") from None
    return {name: table[name].to_numpy() for name in wanted}
