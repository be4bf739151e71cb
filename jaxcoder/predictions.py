"""Predictions of contacts: the most probable codes, and every assigned one."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from jaxcoder import sharding
from jaxcoder.records.codes import LabelSpace
from jaxcoder.whole_file import whole_file

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

ROW_GROUP = 4096  # contacts written at a time


@jax.jit
def _most_assigned(probabilities_BxL: jax.Array, threshold: jax.Array) -> jax.Array:
    return jnp.max(jnp.sum(probabilities_BxL > threshold, axis=1))


@functools.partial(jax.jit, static_argnames="count")
def _top(probabilities_BxL: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    return jax.lax.top_k(probabilities_BxL, count)


def top_labels(
    probabilities_BxL: jax.Array, threshold: float, top: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields the `top` most probable labels of each row, and every label above the threshold.

    Args:
      probabilities_BxL: float32.
      threshold: that an assigned label's probability exceeds.
      top: labels a row, at least.

    Yields:
      For each row labels, probabilities and whether assigned, in falling order of probability; of
      equal ones the smaller label first.
    """
    num_labels = probabilities_BxL.shape[1]
    limit = np.float32(threshold)
    most = int(sharding.whole(_most_assigned(probabilities_BxL, limit)))
    count = max(top, 1)
    while count < most:  # few sizes, because each compiles
        count *= 2
    values, labels = sharding.whole(_top(probabilities_BxL, min(count, num_labels)))
    for value, label in zip(values, labels, strict=True):
        kept = max(top, int((value > limit).sum()))
        yield label[:kept], value[:kept], value[:kept] > limit


class PredictionWriter:
    """Writes predictions.parquet batch by batch; the file appears whole or not at all."""

    def __init__(
        self,
        path: epath.PathLike,
        records: Sequence[Mapping[str, Any]],
        label_space: LabelSpace,
        *,
        threshold: float,
        top: int,
        lead: bool = True,
    ) -> None:
        """Opens the file; use as a context manager.

        Args:
          path: the file.
          records: the split's token records by number.
          label_space: what the labels are.
          threshold: that an assigned code's probability exceeds.
          top: codes a contact, beside further assigned ones.
          lead: whether this process writes; the others only give it their rows.
        """
        self._lead = lead
        self._records, self._codes = records, np.array(label_space.codes, dtype=object)
        self._threshold, self._top = threshold, top
        self._rows: list[dict[str, Any]] = []
        self._exits = contextlib.ExitStack()
        if not lead:
            return
        file = self._exits.enter_context(whole_file(path, "wb"))
        self._parquet = self._exits.enter_context(pq.ParquetWriter(file, SCHEMA))

    def write(self, index_B: jax.Array, probabilities_BxL: jax.Array) -> None:
        """Adds the real rows of a batch, in its order; every process has to call it.

        Args:
          index_B: int32, number of each record, −1 on padding rows; rows split over devices.
          probabilities_BxL: float32.
        """
        predicted = top_labels(probabilities_BxL, self._threshold, self._top)
        for number, (labels, values, assigned) in zip(
            sharding.whole(index_B), predicted, strict=True
        ):
            if number < 0 or not self._lead:
                continue
            record = self._records[int(number)]
            gold = [self._codes[label] for label in record["labels"]]
            self._rows.append(
                {
                    "contact_id": str(record["contact_id"]),
                    "patient_id": str(record["patient_id"]),
                    "specialty": str(record["specialty"]),
                    "gold": gold + [str(code) for code in record["missing_codes"]],
                    "codes": self._codes[labels].tolist(),
                    "probabilities": values,
                    "assigned": assigned,
                }
            )
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
        self._rows = []

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(self, *raised: Any) -> None:
        if any(raised):
            self._exits.__exit__(*raised)
            return
        with self._exits:
            if self._lead:
                self._flush()
