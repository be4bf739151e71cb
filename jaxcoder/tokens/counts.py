"""How many documents hold a key (an n-gram), and how many of these have a label."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

_PARTITION = 1 << 23  # keys sorted at a time: 64 MiB, and twice as much for the sorting
_PAIRS = 1 << 22  # (key, label) pairs counted at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """A sparse table of keys against labels.

    Twenty bytes a key and eight an entry; a million n-grams have some ten million entries: 100 MB.

    Attributes:
      keys: uint64[M], sorted.
      documents: int32[M], documents that hold the key.
      first: int64[M + 1]; the entries of key i are first[i]:first[i + 1].
      labels: int32[E], label of an entry, rising within a key.
      hits: int32[E], documents that hold the key and have the label.
    """

    keys: np.ndarray
    documents: np.ndarray
    first: np.ndarray
    labels: np.ndarray
    hits: np.ndarray

    @classmethod
    def of(
        cls,
        keys: Callable[[int], np.ndarray],
        sizes: int,
        labels: Sequence[np.ndarray],
        min_documents: int,
        keep: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
        all_keys: bool = False,
    ) -> "Counts":
        """Counts exactly; keys are sorted one part of the hash space after another.

        Args:
          keys: from the number of a document to its keys, uint64; repeats count once.
          sizes: keys in all documents together, about: decides the number of parts.
          labels: int32, the labels of each document, each once.
          min_documents: keys in fewer documents are left out.
          keep: from hits[e], documents of the key[e] and label[e] to bool[e], which entries are
            kept.
          all_keys: whether keys without an entry are kept too.

        Returns:
          The table.
        """
        parts = max(1, -(-sizes // _PARTITION))
        tables = [_count(keys, labels, min_documents, keep, part, parts) for part in range(parts)]
        found, documents, per_key, flat, hits = (
            np.concatenate(column) for column in zip(*tables, strict=True)
        )
        starts = np.cumsum(per_key) - per_key
        order = np.argsort(found, kind="stable")
        order = order if all_keys else order[per_key[order] > 0]
        entries = ranges(starts[order], per_key[order])
        first = np.concatenate([[0], np.cumsum(per_key[order])])
        return cls(found[order], documents[order], first, flat[entries], hits[entries])

    def __len__(self) -> int:
        return len(self.keys)

    @functools.cached_property
    def num_labels(self) -> int:
        """The highest label of an entry + 1."""
        return int(self.labels.max(initial=-1)) + 1

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """The row of each key, int64 of the same shape; −1 for an unknown one."""
        if not len(self.keys):
            return np.full(keys.shape, -1, np.int64)
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[rows] == keys, rows, -1)

    def hits_of(self, rows: np.ndarray, labels: np.ndarray, missing: int) -> np.ndarray:
        """Hits of some keys with some labels.

        Args:
          rows: int64[R], rows of keys, −1 for an unknown one.
          labels: int32[K], rising, each once.
          missing: what stands where the table has no entry.

        Returns:
          int64[R, K].
        """
        hits = np.full((len(rows), len(labels)), missing, np.int64)
        if not len(labels) or not len(self.keys):
            return hits
        starts = self.first[rows]
        sizes = np.where(rows >= 0, self.first[rows + 1] - starts, 0)
        entries = ranges(starts, sizes)
        # A table of all labels, as searching for the label of each entry takes longer.
        column = np.full(max(self.num_labels, int(labels[-1]) + 1), -1, np.int32)
        column[labels] = np.arange(len(labels))
        columns = column[self.labels[entries]]
        here = columns >= 0
        owners = np.repeat(np.arange(len(rows)), sizes)[here]
        hits[owners, columns[here]] = self.hits[entries[here]]
        return hits


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers start, start + 1, …, start + size − 1 of each range, one range after another."""
    ends = np.cumsum(sizes)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)


def association(
    hits: np.ndarray, holding: np.ndarray, having: np.ndarray, documents: int
) -> np.ndarray:
    """How strongly a key and a label attract each other: G², the log-likelihood ratio.

    Dunning, 1993, "Accurate Methods for the Statistics of Surprise and Coincidence", Computational
    Linguistics 19(1). Unlike a ratio of counts, it trusts many occurrences more than few.

    Args:
      hits: documents that hold the key and have the label.
      holding: documents that hold the key, at least 1.
      having: documents that have the label, at least 1.
      documents: all documents.

    Returns:
      float64 of the broadcast shape: G², at least 0, and 0 where they repel each other.
    """
    hits, holding, having = (np.asarray(x, np.float64) for x in (hits, holding, having))
    neither = documents - holding - having + hits
    total = (
        sum(_x_log_x(cell) for cell in (hits, holding - hits, having - hits, neither))
        - sum(_x_log_x(side) for side in (holding, documents - holding, having, documents - having))
        + _x_log_x(np.asarray(documents, np.float64))
    )
    return np.where(hits * documents > holding * having, np.maximum(2 * total, 0), 0)


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return x * np.log(
        np.maximum(x, 1)
    )  # 0 log 0 = 0; counts are whole, so that 1 is the least other


def _count(
    keys: Callable[[int], np.ndarray],
    labels: Sequence[np.ndarray],
    min_documents: int,
    keep: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    part: int,
    parts: int,
) -> tuple[np.ndarray, ...]:
    """Counts one part: keys[m], documents[m], entries of each key[m], labels[e], hits[e]."""
    mine = [_part(keys(number), part, parts) for number in range(len(labels))]
    flat = np.concatenate([*mine, np.zeros(0, np.uint64)])
    owner = np.repeat(np.arange(len(mine), dtype=np.int32), [len(some) for some in mine])
    owner = owner[np.argsort(flat, kind="stable")]
    found, documents = np.unique(flat, return_counts=True)
    kept = documents >= min_documents
    owner = owner[np.repeat(kept, documents)]
    found, documents = found[kept], documents[kept]

    sizes = np.array([len(some) for some in labels], np.int64)
    starts = np.cumsum(sizes) - sizes
    flat_labels = np.concatenate([*labels, np.zeros(0, np.int32)]).astype(np.int64)
    width = int(flat_labels.max(initial=0)) + 1
    ends = np.cumsum(documents)
    pairs = np.concatenate([[0], np.cumsum(sizes[owner])])[np.concatenate([[0], ends])]
    rows, columns, hits = [], [], []
    low = 0
    while low < len(found):  # as many keys at a time as fit, at least one
        high = max(low + 1, int(np.searchsorted(pairs, pairs[low] + _PAIRS, side="right")) - 1)
        owners = owner[ends[low] - documents[low] : ends[high - 1]]
        key = np.repeat(np.repeat(np.arange(low, high), documents[low:high]), sizes[owners])
        pair = key * width + flat_labels[ranges(starts[owners], sizes[owners])]
        pair, together = np.unique(pair, return_counts=True)
        good = keep(together, documents[pair // width], pair % width)
        rows.append(pair[good] // width)
        columns.append(pair[good] % width)
        hits.append(together[good])
        low = high
    row = np.concatenate([*rows, np.zeros(0, np.int64)])
    entries = np.bincount(row, minlength=len(found))
    return (
        found,
        documents.astype(np.int32),
        entries,
        np.concatenate([*columns, np.zeros(0, np.int64)]).astype(np.int32),
        np.concatenate([*hits, np.zeros(0, np.int64)]).astype(np.int32),
    )


def _part(keys: np.ndarray, part: int, parts: int) -> np.ndarray:
    if parts > 1:
        keys = keys[(keys >> np.uint64(33)) % np.uint64(parts) == part]
    return np.unique(keys)
