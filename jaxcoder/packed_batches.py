"""Batches of packed rows, to pretrain on: the same for every number of hosts.

As `batches.py`, for text alone: the batch at a step is a pure function of the documents' lengths,
the seed and the step, and a process makes its share of the rows.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxcoder import batches, packing
from jaxcoder.batches import Batch
from jaxcoder.errors import UserError
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.packing import PackingOptions, Rows
from jaxcoder.records.store import evenly
from jaxcoder.sharding import Share
from jaxcoder.tokens.data import TokenData

_AROUND = 2  # start and end token: a document that has no more has no text


class Packed:
    """The documents of some splits in rows of one length, epoch after epoch without end.

    Attributes:
      length: tokens of a row, T.
      documents: those with text.
      without_text: those without, which are in no row.
      tokens: of all documents.
      steps_per_epoch: batches of an epoch, the same for all; the last one may have padding rows.
    """

    def __init__(
        self,
        data: TokenData,
        splits: Sequence[str],
        options: PackingOptions,
        length: int,
        seed: int | None = None,
        most: int = 0,
    ) -> None:
        """Plans; reads no record.

        Args:
          data: token records.
          splits: which splits; labels and evidence are not read.
          options: how.
          length: tokens of a row.
          seed: of the order; None for the same order in every epoch.
          most: documents of each split at most, evenly spaced; 0 for all.

        Raises:
          UserError: a split that is not there, or documents none of which has text.
        """
        for split in splits:
            if split not in data.splits:
                raise UserError(
                    f"config.packing: split {split!r}: {data.path} has {', '.join(data.splits)}"
                )
        self.length, self._options, self._seed = length, options, seed
        self._splits = tuple(splits)
        self._sources = [data.batch_source(split) for split in splits]
        lengths = [data.lengths(split) for split in splits]
        chosen = [np.fromiter(evenly(range(len(each)), most), np.int32) for each in lengths]
        # Of each document its split, and its number there.
        self._split = np.repeat(np.arange(len(splits), dtype=np.int8), list(map(len, chosen)))
        self._number = np.concatenate(chosen)
        tokens = np.concatenate([each[some] for each, some in zip(lengths, chosen, strict=True)])
        tokens[tokens <= _AROUND] = 0
        self.documents, self.tokens = int(np.count_nonzero(tokens)), int(tokens.sum())
        self.without_text = len(tokens) - self.documents
        if not self.documents:
            raise UserError(
                f"{data.path}: no record of {', '.join(splits)} has text to learn from; expected "
                "some that config.tokens.serialise.sections reads"
            )
        self._pieces = packing.cut(tokens, length)
        self._rows = functools.lru_cache(maxsize=2)(self._pack)
        self.steps_per_epoch = -(-len(self._rows(0)) // options.rows)

    @property
    def documents_per_step(self) -> float:
        """Documents in a batch, on average."""
        return self.documents / self.steps_per_epoch

    def documents_at(self, step: int) -> dict[str, list[int]]:
        """Numbers of the documents in the batch that is number `step`, by split."""
        epoch, number = divmod(step, self.steps_per_epoch)
        rows, first = self._rows(epoch), number * self._options.rows
        numbers = range(first, min(first + self._options.rows, len(rows)))
        pieces = np.concatenate([rows[each] for each in numbers])
        documents = np.unique(self._pieces.document[pieces])
        found = {
            split: self._number[documents[self._split[documents] == number]].tolist()
            for number, split in enumerate(self._splits)
        }
        return {split: numbers for split, numbers in found.items() if numbers}

    def batches(
        self,
        start_step: int,
        stop_step: int | None,
        share: Share,
        put: Callable[[Batch], Any] | None = None,
    ) -> Iterator[Any]:
        """Makes batches in a thread of their own.

        Args:
          start_step: number of the first batch.
          stop_step: number after the last; None for no end.
          share: which rows this process makes.
          put: see `TrainingPlan.batches`.

        Returns:
          Of this process, B its rows: `tokens` int32 [B, T]; `segments` int32 [B, T], 1, 2, … for
          the pieces of a row, one after another, and 0 on padding; `row` int32 [B], number of the
          row in its epoch.
        """
        mine = share.rows(self._options.rows)

        def make(step: int) -> Batch:
            epoch, number = divmod(step, self.steps_per_epoch)
            return self._make(self._rows(epoch), number * self._options.rows + mine)

        return batches.stream(make, start_step, stop_step, put)

    def _pack(self, epoch: int) -> Rows:
        seed = self._seed
        rng = None if seed is None else np.random.default_rng([seed % 2**63, epoch])
        return packing.pack(self._pieces.length, self.length, rng)

    def _make(self, rows: Rows, numbers: np.ndarray) -> Batch:
        """Makes rows of a plan; those after its end are padding."""
        shape = (len(numbers), self.length)
        batch = {"tokens": np.zeros(shape, np.int32), "segments": np.zeros(shape, np.int32)}
        for place, number in enumerate(numbers.tolist()):
            end = 0
            for segment, piece in enumerate(rows[number] if number < len(rows) else (), start=1):
                document, start, length = (int(each[piece]) for each in self._pieces)
                source = self._sources[self._split[document]]
                here = (place, slice(end, end + length))
                tokens = source[int(self._number[document])]["tokens"]
                batch["tokens"][here] = tokens[start : start + length]
                batch["segments"][here] = segment
                end += length
        return batch | {"row": numbers.astype(np.int32)}


def row_length(options: PackingOptions, encoder: EncoderOptions) -> int:
    """Tokens of a packed row.

    Raises:
      UserError: a length that the encoder does not have positions for, or that is not that of
        bert's windows: pieces of documents would have other positions than in fine-tuning.
    """
    here, length = f"config.packing.length = {options.length}", options.length
    if encoder.family == "bert":
        if length not in (0, encoder.window):
            raise UserError(
                f"{here}: bert reads windows of config.model.encoder.window = {encoder.window} "
                "tokens; set 0 for rows of a window, or another window"
            )
        return encoder.window
    longest = encoder.max_positions
    if not (length or longest):
        raise UserError(
            f"{here}: the encoder reads documents of any length (model.encoder.max_positions = 0); "
            "set the tokens of a row, such as 1024"
        )
    if longest and length > longest:
        raise UserError(f"{here}: config.model.encoder.max_positions = {longest}; set at most that")
    return length or longest


def check_rows(options: PackingOptions, count: int) -> None:
    """Checks that the rows of a batch can be split over so many devices.

    Raises:
      UserError: they cannot.
    """
    if options.rows % count:
        raise UserError(
            f"config.packing.rows = {options.rows}: {count} devices do not divide it; choose a "
            f"multiple of {count}"
        )
