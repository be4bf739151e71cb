"""Predictions of contacts: the most probable codes, and every assigned one; and what is right."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from etils import epath

from jaxcoder import outcomes, sharding
from jaxcoder.metrics.counting import Outcomes
from jaxcoder.metrics.granularity import GranularCounts
from jaxcoder.parquet_rows import ParquetRows
from jaxcoder.records.codes import LabelSpace, coarsenings

SCHEMA = pa.schema(
    [
        ("contact_id", pa.string()),
        ("patient_id", pa.string()),
        ("specialty", pa.string()),
        ("gold", pa.list_(pa.string())),
        ("codes", pa.list_(pa.string())),
        ("probabilities", pa.list_(pa.float32())),
        ("assigned", pa.list_(pa.bool_())),
    ]
)
"""Columns of predictions.parquet. `gold` holds all gold codes, those outside the label space too;
`codes`, `probabilities` and `assigned` go together, in falling order of probability."""


@jax.jit
def _deepest_assigned(probabilities_BxL: jax.Array, limit: jax.Array) -> jax.Array:
    """How many labels of a row stand as high as its least probable assigned one, at most."""
    assigned_BxL = probabilities_BxL > limit
    lowest_B = jnp.min(jnp.where(assigned_BxL, probabilities_BxL, 2.0), axis=1)
    return jnp.max(jnp.sum(probabilities_BxL >= lowest_B[:, None], axis=1))


@functools.partial(jax.jit, static_argnames="count")
def _top(probabilities_BxL: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    return jax.lax.top_k(probabilities_BxL, count)


def top_labels(
    probabilities_BxL: jax.Array, threshold: float | np.ndarray, top: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields the `top` most probable labels of each row, and every one above its threshold.

    Args:
      probabilities_BxL: float32.
      threshold: that an assigned label's probability exceeds: one for all, or float32 [1, L] by
        label or [B, 1] by row, the same on every process.
      top: labels a row, at least.

    Yields:
      For each row labels, probabilities and whether assigned, in falling order of probability; of
      equal ones the smaller label first.
    """
    batch, num_labels = probabilities_BxL.shape
    limit = np.broadcast_to(
        np.asarray(threshold, np.float32), np.broadcast_shapes(np.shape(threshold), (1, 1))
    )
    deepest = int(sharding.whole(_deepest_assigned(probabilities_BxL, limit)))
    count = max(top, 1)
    while count < deepest:  # few sizes, because each compiles
        count *= 2
    values, labels = sharding.whole(_top(probabilities_BxL, min(count, num_labels)))
    limit_BxL = np.broadcast_to(limit, (batch, num_labels))
    for value, label, limit_L in zip(values, labels, limit_BxL, strict=True):
        assigned = value > limit_L[label]
        kept = assigned | (np.arange(len(label)) < top)
        yield label[kept], value[kept], assigned[kept]


class PredictionWriter:
    """Writes predictions.parquet and contacts.parquet batch by batch.

    Both appear, whole, when all has been written, or not at all.

    Attributes:
      granularities: counts of what has been written at coarser granularities; of process 0 alone.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        records: Sequence[Mapping[str, Any]],
        lengths: np.ndarray,
        label_space: LabelSpace,
        *,
        threshold: float | np.ndarray,
        group: np.ndarray | None = None,
        top: int,
        lead: bool = True,
    ) -> None:
        """Opens the files; use as a context manager.

        Args:
          folder: of the files.
          records: the split's records by number, as of `TokenData.outcome_source`.
          lengths: int32 [N], tokens of each record.
          label_space: what the labels are.
          threshold: that an assigned code's probability exceeds: one for all, or float32 [1, L] by
            label or [G, 1] by group.
          group: int32 [N], number of each record's group; for thresholds by group.
          top: codes a contact, beside further assigned ones.
          lead: whether this process writes; the others only give it their rows.
        """
        self._lead = lead
        self._records, self._lengths = records, lengths
        self._codes = np.array(label_space.codes, dtype=object)
        self._threshold, self._group, self._top = threshold, group, top
        self.granularities = GranularCounts(coarsenings(label_space.granularity))
        self._exits = contextlib.ExitStack()
        if not lead:
            return
        folder = epath.Path(folder)
        self._predictions, self._contacts = (
            self._exits.enter_context(ParquetRows(folder / name, schema))
            for name, schema in (
                ("predictions.parquet", SCHEMA),
                ("contacts.parquet", outcomes.SCHEMA),
            )
        )

    def write(self, index_B: jax.Array, probabilities_BxL: jax.Array, found: Outcomes) -> None:
        """Adds the real rows of a batch, in its order; every process has to call it.

        Args:
          index_B: int32, number of each record, −1 on padding rows; rows split over devices.
          probabilities_BxL: float32.
          found: what became of each row.
        """
        whole = sharding.whole((index_B, found.counts, found.measures))
        limit = self._threshold
        if self._group is not None:  # padding rows take that of any
            limit = np.asarray(limit)[self._group[np.maximum(whole[0], 0)]]
        predicted = top_labels(probabilities_BxL, limit, self._top)
        for number, counts, measures, (labels, values, assigned) in zip(
            *whole, predicted, strict=True
        ):
            if number < 0 or not self._lead:
                continue
            record = self._records[int(number)]
            gold = [*self._codes[record["labels"]], *record["missing_codes"]]
            codes = self._codes[labels]
            self._predictions.add(
                {
                    **{key: record[key] for key in ("contact_id", "patient_id", "specialty")},
                    "gold": gold,
                    "codes": codes.tolist(),
                    "probabilities": values,
                    "assigned": assigned,
                }
            )
            length = int(self._lengths[number])
            self._contacts.add(outcomes.row(record, length, counts, measures))
            self.granularities.add(gold, codes[assigned])

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(self, *raised: Any) -> None:
        self._exits.__exit__(*raised)
