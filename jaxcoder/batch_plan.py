"""The plan of batches: which records stand together, decided from their lengths alone."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxcoder import buckets
from jaxcoder.errors import UserError
from jaxcoder.records.store import evenly


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """How records are put together.

    Attributes:
      documents: rows of a batch, over all processes; not used where `tokens` is given.
      tokens: tokens of a batch, padding included: a batch of length T has tokens // T rows.
      row_multiple: with `tokens`, rows are a multiple of it. Rows are split over devices, so give
        it their number, or a multiple that suits all machines a run may go on.
      max_documents: with `tokens`, the most rows; 0 for no limit.
      buckets: lengths of batches; empty chooses those with the least padding.
      max_buckets: how many are chosen at most. Each is compiled once.
      multiple: of which a chosen length is a multiple.
      mini_share: mini-documents for each contact of an epoch, another slice of them every epoch.
      max_labels: label slots of a row; 0 for as many as the data need.
      max_evidence: evidence slots of a row; 0 for as many as the data need.
    """

    documents: int = 16
    tokens: int = 0
    row_multiple: int = 1
    max_documents: int = 0
    buckets: tuple[int, ...] = ()
    max_buckets: int = 8
    multiple: int = 8
    mini_share: float = 1.0
    max_labels: int = 0
    max_evidence: int = 0

    def __post_init__(self) -> None:
        for key in ("documents", "row_multiple", "max_buckets", "multiple"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)}: expected at least 1")
        for key in ("tokens", "max_documents", "mini_share", "max_labels", "max_evidence"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 or more")
        if any(length < 1 for length in self.buckets):
            raise ValueError(f"buckets = {list(self.buckets)}: expected lengths of at least 1")

    def rows(self, length: int) -> int:
        """Rows of a batch of a length, over all processes."""
        if not self.tokens:
            return self.documents
        most = min(self.tokens // length, self.max_documents or self.tokens)
        return max(1, most // self.row_multiple) * self.row_multiple


class Planned(NamedTuple):
    """A batch that is to be made.

    Attributes:
      length: tokens of a row, T.
      items: int64 [rows], what stands in each row; −1 for padding.
    """

    length: int
    items: np.ndarray


def plan_evaluation(
    lengths: np.ndarray, options: BatchOptions, most: int = 0
) -> tuple[list[Planned], tuple[int, ...]]:
    """The batches of one pass over records of these lengths, long ones first, and their lengths.

    Args:
      lengths: int [N], tokens of each record.
      options: how.
      most: records at most, evenly spaced; 0 for all. The lengths of the batches are the same.
    """
    chosen = bucket_lengths(options, lengths, lengths)
    items = np.fromiter(evenly(range(len(lengths)), most), np.int64)
    bucket = np.searchsorted(chosen, lengths[items])
    return plan(items, bucket, chosen, options), chosen


def padding_share(planned: Sequence[Planned], lengths: np.ndarray) -> float:
    """Share in [0, 1] of the computed tokens that are padding; each record stands in one batch."""
    return 1 - int(lengths.sum()) / sum(batch.length * len(batch.items) for batch in planned)


def bucket_rows(options: BatchOptions, lengths: Sequence[int]) -> np.ndarray:
    """Rows of a batch of each length, over all processes, int64."""
    return np.array([options.rows(length) for length in lengths], np.int64)


def bucket_lengths(
    options: BatchOptions, typical: np.ndarray, everything: np.ndarray
) -> tuple[int, ...]:
    """The lengths of batches: the config's, or those with the least padding.

    Args:
      options: the config.
      typical: lengths of documents as they are met.
      everything: lengths of all documents that may be met.

    Raises:
      UserError: the config's are too short for some document.
    """
    longest = int(everything.max())
    if not options.buckets:
        return buckets.choose(typical, longest, options.max_buckets, options.multiple, options.rows)
    chosen = tuple(sorted(set(options.buckets)))
    if chosen[-1] < longest:
        raise UserError(
            f"config.batches.buckets = {list(chosen)}: the longest record has {longest} tokens; "
            "add a bucket for it, or lower config.tokens.serialise.max_tokens"
        )
    return chosen


def plan(
    items: np.ndarray, bucket: np.ndarray, lengths: Sequence[int], options: BatchOptions
) -> list[Planned]:
    """Puts items together, long ones first.

    What is missing in the last batch of a bucket is taken from the shorter ones, so that at most
    one batch, of the shortest length in use, has padding rows.

    Args:
      items: int64 [n], in the order in which they are taken within a bucket, last ones first.
      bucket: int [n], index of each item's own bucket.
      lengths: of the buckets, rising.
      options: rows.
    """
    order = np.argsort(bucket, kind="stable")  # within a bucket the order of items stays
    ends = np.cumsum(np.bincount(bucket, minlength=len(lengths)))
    items, left = items[order], len(items)
    planned = []
    for number in reversed(range(len(lengths))):
        rows, length = options.rows(lengths[number]), lengths[number]
        first = int(ends[number - 1]) if number else 0
        while left > first:
            start = max(0, left - rows)
            batch = np.full(rows, -1, np.int64)
            batch[: left - start] = items[start:left]
            planned.append(Planned(length, batch))
            left = start
    return planned
