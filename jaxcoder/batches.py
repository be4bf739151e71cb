"""Batches: fixed shapes from records of any length, the same for every number of hosts.

The plan of an epoch, which records stand together in which batch, is a pure function of the data's
lengths, the seed and the epoch. A process takes its share of the rows of each planned batch, so
that the global batch at a step is the same however many processes there are, and a run that goes on
at a step sees what it would have seen.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from jaxcoder import batch_plan, buckets
from jaxcoder.batch_plan import BatchOptions, Planned
from jaxcoder.errors import UserError
from jaxcoder.sharding import Share
from jaxcoder.tokens.data import MINI, Record, TokenData

Batch = dict[str, np.ndarray]
"""Of one process, B its rows: `tokens` int32 [B, T]; `length` int32 [B], real tokens, 0 on padding
rows; `labels` int32 [B, K], padded with −1; `missing` int32 [B], gold codes outside the label
space; `index` int32 [B], number of the record in its split, −1 on padding rows, and in training on
mini-documents; `_mask` bool [B], False on padding rows; and in training `evidence` int32 [B, E, 4]:
slot in the row's labels (−1 is padding), first token, token after the last, provenance."""

_AHEAD = 4  # batches made ahead of the one in use


class Slots(NamedTuple):
    """Fixed sizes of a batch's rows, and what does not fit.

    Attributes:
      labels: K.
      evidence: E.
      labels_dropped: labels of the data set that a cap drops.
      evidence_dropped: evidence spans that a cap drops, those of dropped labels not counted.
    """

    labels: int
    evidence: int
    labels_dropped: int
    evidence_dropped: int


class TrainingPlan:
    """The batches of a training run, epoch after epoch without end.

    Attributes:
      bucket_lengths: lengths T of its batches, rising.
      slots: sizes of a row.
      steps_per_epoch: batches of the first epoch; later ones may differ by a few, as their
        mini-documents do.
      contacts_per_step: contacts in a batch, on average.
    """

    def __init__(self, data: TokenData, options: BatchOptions, seed: int) -> None:
        """Plans; reads no record.

        Args:
          data: token records.
          options: how.
          seed: of the order.

        Raises:
          UserError: no training split, or buckets that are too short.
        """
        if "train" not in data.splits:
            raise UserError(f"{data.path}: has no split train; it has {', '.join(data.splits)}")
        self.data, self.options, self.seed = data, options, seed
        sizes = [data.sizes("train")]
        self._contacts = len(sizes[0])
        if options.mini_share and MINI in data.splits:
            sizes.append(data.sizes(MINI))
        self._sizes = np.concatenate(sizes)
        self._minis = len(self._sizes) - self._contacts
        self._mini_slice = round(options.mini_share * self._contacts) if self._minis else 0
        lengths = self._sizes[:, 0]
        self.bucket_lengths = batch_plan.bucket_lengths(options, lengths[self._members(0)], lengths)
        self._bucket = np.searchsorted(self.bucket_lengths, lengths).astype(np.int8)
        self.slots = _slots(self._sizes, options)
        self._first_steps = [0]  # of each epoch seen so far
        self.steps_per_epoch = self._steps_in(0)
        self.contacts_per_step = self._contacts / self.steps_per_epoch
        self._epoch = functools.lru_cache(maxsize=2)(self._plan_epoch)

    def at(self, step: int) -> Planned:
        """The batch that is number `step` of the run, from 0."""
        while self._first_steps[-1] <= step:
            epoch = len(self._first_steps) - 1
            self._first_steps.append(self._first_steps[-1] + self._steps_in(epoch))
        epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        return self._epoch(epoch)[step - self._first_steps[epoch]]

    def contacts_at(self, step: int) -> dict[str, list[int]]:
        """Numbers of the contacts in the batch that is number `step`, mini-documents left out."""
        items = self.at(step).items
        return {"train": items[(items >= 0) & (items < self._contacts)].tolist()}

    def epoch(self, epoch: int) -> list[Planned]:
        """The batches of an epoch, in order; items count contacts from 0, then mini-documents."""
        return self._epoch(epoch)

    def padding_share(self, epoch: int = 0) -> float:
        """Share in [0, 1] of an epoch's computed tokens that are padding, whole rows included."""
        real = int(self._sizes[self._members(epoch), 0].sum())
        computed = sum(planned.length * len(planned.items) for planned in self.epoch(epoch))
        return 1 - real / computed

    def batches(
        self, start_step: int, share: Share, put: Callable[[Batch], Any] | None = None
    ) -> Iterator[Any]:
        """Makes batches, without end, in a thread of their own.

        Args:
          start_step: number of the first batch.
          share: which rows this process makes.
          put: done with each batch in that thread, such as putting it on the devices, so that the
            next ones lie there while a step runs; its result takes the batch's place.

        Raises:
          UserError: rows that cannot be shared so.
        """
        check_rows(self.bucket_lengths, self.options, share.of)
        contacts = self.data.batch_source("train")
        minis = self.data.batch_source(MINI) if self._minis else ()

        def read(item: int) -> tuple[int, Record]:
            if item < self._contacts:
                return item, contacts[item]
            return -1, minis[item - self._contacts]

        def batch_of(step: int) -> Batch:
            planned = self.at(step)
            rows = [read(item) if item >= 0 else None for item in _mine(planned.items, share)]
            return make(rows, planned.length, self.slots.labels, self.slots.evidence)

        return stream(batch_of, start_step, put=put)

    def _members(self, epoch: int) -> np.ndarray:
        """The items of an epoch, in order."""
        start = epoch * self._mini_slice
        minis = (start + np.arange(self._mini_slice)) % max(1, self._minis)
        return np.concatenate([np.arange(self._contacts), self._contacts + minis])

    def _steps_in(self, epoch: int) -> int:
        counts = np.bincount(self._bucket[self._members(epoch)], minlength=len(self.bucket_lengths))
        return int(
            buckets.batch_counts(
                counts, batch_plan.bucket_rows(self.options, self.bucket_lengths)
            ).sum()
        )

    def _plan_epoch(self, epoch: int) -> list[Planned]:
        rng = np.random.default_rng([self.seed % 2**63, epoch])
        items = rng.permutation(self._members(epoch))
        planned = batch_plan.plan(items, self._bucket[items], self.bucket_lengths, self.options)
        return [planned[number] for number in rng.permutation(len(planned))]


def evaluation_batches(
    data: TokenData,
    split: str,
    options: BatchOptions,
    share: Share,
    most: int = 0,
) -> Iterator[Batch]:
    """Makes the batches of one pass over a split: every record once, always in the same order.

    Evidence is not among them: evaluation never sees it.

    Args:
      data: token records.
      split: one of its splits.
      options: how; where buckets are chosen, they are chosen for this split.
      share: which rows this process makes.
      most: records at most, evenly spaced; 0 for all.

    Raises:
      UserError: an unknown split, buckets that are too short, or rows that cannot be shared so.
    """
    records = data.batch_source(split)
    sizes = data.sizes(split)
    planned, lengths = batch_plan.plan_evaluation(sizes[:, 0], options, most)
    check_rows(lengths, options, share.of)
    slots = _round_up(int(sizes[:, 1].max()))

    def batch_of(step: int) -> Batch:
        batch = planned[step]
        rows = [(item, records[item]) if item >= 0 else None for item in _mine(batch.items, share)]
        return make(rows, batch.length, slots, None)

    return stream(batch_of, 0, len(planned))


def stream(
    make: Callable[[int], Batch],
    start: int,
    stop: int | None = None,
    put: Callable[[Batch], Any] | None = None,
) -> Iterator[Any]:
    """Makes batches by number in a thread of their own, some ahead of the one in use.

    Args:
      make: from the number of a batch to the batch.
      start: the first number.
      stop: the number after the last; None for no end.
      put: see `TrainingPlan.batches`.
    """
    # Grain wants a length; no run reaches this one.
    steps = grain.MapDataset.range(start, 2**48 if stop is None else stop).map(make)
    steps = steps.map(put) if put else steps
    return iter(
        steps.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD))
    )


def check_rows(lengths: Sequence[int], options: BatchOptions, count: int) -> None:
    """Checks that the rows of every batch can be split over so many devices.

    Raises:
      UserError: they cannot.
    """
    for length in lengths:
        if options.rows(length) % count:
            key = "row_multiple" if options.tokens else "documents"
            raise UserError(
                f"config.batches.{key} = {getattr(options, key)}: gives {options.rows(length)} "
                f"rows of {length} tokens, which {count} devices do not divide; choose a "
                f"multiple of {count}"
            )


def _mine(items: np.ndarray, share: Share) -> list[int]:
    mine: list[int] = items[share.rows(len(items))].tolist()
    return mine


def _slots(sizes: np.ndarray, options: BatchOptions) -> Slots:
    labels, spans = sizes[:, 1], sizes[:, 2]
    most_labels = options.max_labels or _round_up(int(labels.max()))
    most_spans = options.max_evidence or _round_up(int(spans.max()))
    return Slots(
        most_labels,
        most_spans,
        int(np.maximum(labels - most_labels, 0).sum()),
        int(np.maximum(spans - most_spans, 0).sum()),
    )


def _round_up(number: int) -> int:
    return max(8, -(-number // 8) * 8)


def make(
    rows: Sequence[tuple[int, Mapping[str, Any]] | None],
    length: int,
    label_slots: int,
    evidence_slots: int | None,
) -> Batch:
    """Makes a batch of records with their numbers; None is a padding row."""
    count = len(rows)
    batch: Batch = {
        "tokens": np.zeros((count, length), np.int32),
        "length": np.zeros(count, np.int32),
        "labels": np.full((count, label_slots), -1, np.int32),
        "missing": np.zeros(count, np.int32),
        "index": np.full(count, -1, np.int32),
        "_mask": np.zeros(count, bool),
    }
    if evidence_slots is not None:
        batch["evidence"] = np.full((count, evidence_slots, 4), [-1, 0, 0, 0], np.int32)
    for place, row in enumerate(rows):
        if row is None:
            continue
        number, record = row
        tokens, labels = record["tokens"], record["labels"][:label_slots]
        batch["tokens"][place, : len(tokens)] = tokens
        batch["length"][place] = len(tokens)
        batch["labels"][place, : len(labels)] = labels
        batch["missing"][place] = record["missing"]
        batch["index"][place] = number
        batch["_mask"][place] = True
        if evidence_slots is not None:
            spans = record["evidence"]
            # Labels rise, so the place of a label is where it would be inserted. Each span's label
            # is among them; np.isin, which would look, takes as long as the rest of the row.
            slot = np.searchsorted(record["labels"], spans[:, 0])
            kept = np.flatnonzero(slot < label_slots)[:evidence_slots]
            batch["evidence"][place, : len(kept), 0] = slot[kept]
            batch["evidence"][place, : len(kept), 1:] = spans[kept, 1:]
    return batch
