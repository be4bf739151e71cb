"""Sufficient statistics of all metrics of a split, batch by batch; axes as in `counting`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxcoder.metrics import counting
from jaxcoder.metrics.counting import DocumentSums, LabelCounts, Outcomes


@functools.cache
def _sharded_update(
    rows: NamedSharding,
) -> Callable[..., tuple[LabelCounts, DocumentSums, Outcomes]]:
    """`counting.update`, jitted so that each shard counts its own rows, without communication."""
    whole = PartitionSpec()
    sharded = jax.shard_map(
        counting.update,
        mesh=rows.mesh,
        in_specs=(rows.spec,) * 8 + (whole,) * 3,
        out_specs=rows.spec,
        check_vma=False,
    )
    # The sharding is pinned so that the second batch does not compile anew.
    return jax.jit(sharded, out_shardings=rows, donate_argnums=(0, 1))


@functools.cache
def _over_shards(rows: NamedSharding) -> Callable[[Any], Any]:
    def total(state: Any) -> Any:
        return jax.tree.map(lambda x: jnp.sum(x, axis=0, dtype=x.dtype), state)

    return jax.jit(total, out_shardings=NamedSharding(rows.mesh, PartitionSpec()))


@dataclasses.dataclass(frozen=True)
class Totals:
    """The statistics of a whole split on the host, without the shard axis.

    Counts by label are int32, as on the devices; the sums by document are int64 and float64.

    Attributes:
      edges: float32 [E], the thresholds.
      seen: [L, C], documents whose probability of the label is in the bin.
      seen_uncoded: [L, C], those of them without gold codes.
      positive: [L, C]; see `LabelCounts`.
      assigned: [L].
      hits: [L].
      occurring: bool [L], labels that occur in the split.
      documents: a `DocumentSums` of NumPy arrays.
    """

    edges: np.ndarray
    seen: np.ndarray
    seen_uncoded: np.ndarray
    positive: np.ndarray
    assigned: np.ndarray
    hits: np.ndarray
    occurring: np.ndarray
    documents: Any


@functools.cache
def _zeros(make: Callable[..., Any], shape: tuple[int, ...], rows: NamedSharding) -> Any:
    return jax.jit(functools.partial(make, *shape), out_shardings=rows)


class Accumulator:
    """Gathers the statistics of a split."""

    # Between two readings of the sums by document: documents × labels, so that int32 counts
    # predictions exactly, and documents and batches, so that float32 adds few enough numbers to
    # keep six digits.
    WINDOW = 2**30
    WINDOW_DOCUMENTS = 2**16
    WINDOW_BATCHES = 2**8

    def __init__(
        self,
        edges: np.ndarray,
        num_labels: int,
        rows: NamedSharding,
        *,
        decision: np.ndarray | None = None,
        occurring: np.ndarray | None = None,
        groups: int = 0,
    ) -> None:
        """Starts at zero.

        Args:
          edges: float32 [E] ascending, from `grid.threshold_grid`.
          num_labels: L.
          rows: sharding of the rows of a batch, as from `sharding.batch_sharding`.
          decision: float32, the threshold that a label's probability has to exceed to be assigned:
            [1, L] by label, [G, 1] by group, [1, 1] for all; None is 0.5.
          occurring: bool [L], labels that occur in the split; None is all of them.
          groups: G, by which predictions are counted too.
        """
        axes = rows.spec[0] if len(rows.spec) else None
        names = (axes,) if isinstance(axes, str) else tuple(axes or ())
        shards = int(np.prod([rows.mesh.shape[name] for name in names], dtype=int))
        self._rows = NamedSharding(rows.mesh, PartitionSpec(axes))
        everywhere = NamedSharding(rows.mesh, PartitionSpec())
        decision = np.full((1, 1), 0.5, np.float32) if decision is None else decision
        occurring = np.ones(num_labels, bool) if occurring is None else occurring
        self._whole = jax.device_put((edges, decision, occurring), everywhere)
        self._edges, self._occurring = edges, occurring
        zero_labels = _zeros(counting.zero_labels, (shards, num_labels, len(edges)), self._rows)
        self._zero_documents = _zeros(
            counting.zero_documents, (shards, groups, len(edges)), self._rows
        )
        self._labels_state, self._documents_state = zero_labels(), self._zero_documents()
        self._documents = self._batches = 0
        self._sums: DocumentSums | None = None

    def update(
        self,
        probabilities_BxL: jax.Array,
        loss_B: jax.Array,
        labels_BxK: jax.Array,
        missing_B: jax.Array,
        mask_B: jax.Array,
        group_B: jax.Array,
    ) -> Outcomes:
        """Adds a batch of global arrays, all with their rows split alike.

        Args:
          probabilities_BxL: float32 in [0, 1].
          loss_B: float32.
          labels_BxK: int32, the gold labels, each once, −1 for padding.
          missing_B: int32, gold codes outside the label space.
          mask_B: bool, false on padding rows.
          group_B: int32 in [0, G); without meaning where there are no groups.

        Returns:
          What became of each of its documents.
        """
        batch, num_labels = probabilities_BxL.shape
        if (
            self._documents + batch > self.WINDOW_DOCUMENTS
            or self._batches == self.WINDOW_BATCHES
            or (self._documents + batch) * num_labels > self.WINDOW
        ):
            self._flush()
        self._documents += batch
        self._batches += 1
        self._labels_state, self._documents_state, outcomes = _sharded_update(self._rows)(
            self._labels_state,
            self._documents_state,
            probabilities_BxL,
            loss_B,
            labels_BxK,
            missing_B,
            mask_B,
            group_B,
            *self._whole,
        )
        return outcomes

    def _flush(self) -> DocumentSums:
        read = jax.device_get(_over_shards(self._rows)(self._documents_state))
        wide = jax.tree.map(
            lambda x: x.astype(np.int64 if x.dtype == np.int32 else np.float64), read
        )
        self._sums = wide if self._sums is None else jax.tree.map(np.add, self._sums, wide)
        self._documents_state = self._zero_documents()
        self._documents = self._batches = 0
        return self._sums

    def totals(self) -> Totals:
        """Returns the statistics of all batches so far."""
        documents = self._flush()
        labels = jax.device_get(_over_shards(self._rows)(self._labels_state))
        return Totals(
            edges=self._edges,
            seen=labels.seen[0] + labels.seen[1],
            seen_uncoded=labels.seen[0],
            positive=labels.positive,
            assigned=labels.assigned,
            hits=labels.hits,
            occurring=self._occurring,
            documents=documents,
        )
