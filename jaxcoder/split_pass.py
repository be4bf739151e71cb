"""One pass over a split: batches are scored, and the statistics of all metrics gathered."""

import collections
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding
from tqdm import tqdm

from jaxcoder import batches as token_batches
from jaxcoder import sharding
from jaxcoder.batch_plan import plan_evaluation
from jaxcoder.errors import UserError
from jaxcoder.metrics import counting, grid, statistics
from jaxcoder.scorer import HostBatch, Score, Scorer
from jaxcoder.tokens.builder import TokenData


class Writer(Protocol):
    """What takes the probabilities of each batch beside the metrics."""

    def write(
        self, index_B: jax.Array, probabilities_BxL: jax.Array, found: counting.Outcomes
    ) -> None:
        """Takes a batch: numbers of records, −1 on padding rows, probabilities, and outcomes."""


@dataclasses.dataclass(frozen=True)
class SplitCodes:
    """The gold codes of a split.

    Attributes:
      occurring: bool [L], labels that occur.
      missing: number of contacts by gold code outside the label space.
    """

    occurring: np.ndarray
    missing: Mapping[str, int]


def split_codes(data: TokenData, split: str) -> SplitCodes:
    """Reads which codes occur in a split; no record is read.

    Raises:
      UserError: no contact of the split has a code.
    """
    counts = data.code_counts(split)
    if not counts:
        raise UserError(
            f"{data.path}: no contact of its split {split} has a code to score against; give the "
            "source their codes and build the records again, or choose another split"
        )
    known = data.label_space.index
    occurring = np.zeros(len(data.label_space), bool)
    occurring[[known[code] for code in counts if code in known]] = True
    missing = {code: count.occurrences for code, count in counts.items() if code not in known}
    return SplitCodes(occurring, missing)


@dataclasses.dataclass(frozen=True)
class Specialties:
    """The specialties of a split's contacts.

    Attributes:
      names: those that occur, sorted; `unknown` where a contact has none.
      of: int32 [N], index into `names` by record number.
    """

    names: tuple[str, ...]
    of: np.ndarray


def read_specialties(data: TokenData, split: str) -> Specialties:
    """Reads the specialty of each contact of a split."""
    each = [record["specialty"] or "unknown" for record in data.outcome_source(split)]
    names = tuple(sorted(set(each)))
    number = {name: place for place, name in enumerate(names)}
    return Specialties(names, np.array([number[name] for name in each], np.int32))


def batches_of(coder: Scorer, data: TokenData, split: str) -> Iterator[HostBatch]:
    """Yields this process's rows of each batch of a split, with a progress bar on a terminal."""
    shows = jax.process_index() == 0 and sys.stderr.isatty()
    share = sharding.share_of(coder.rows)
    mine = token_batches.evaluation_batches(data, split, coder.batches, share)
    planned, _ = plan_evaluation(data.lengths(split), coder.batches)
    with tqdm(total=len(data.sizes(split)), desc=split, unit="contact", disable=not shows) as bar:
        for batch, whole in zip(mine, planned, strict=True):
            yield batch
            bar.update(np.count_nonzero(whole.items >= 0))  # of all processes


def scored(
    score: Score, batches: Iterable[HostBatch], rows: NamedSharding
) -> Iterator[tuple[HostBatch, dict[str, jax.Array], jax.Array, jax.Array]]:
    """Yields each batch, its gold on the devices, its probabilities [B, L] and its losses [B]."""
    waiting: collections.deque[jax.Array] = collections.deque()
    for batch in batches:
        probabilities_BxL, loss_B = score(batch)
        gold = {key: batch[key] for key in ("labels", "missing", "_mask", "index")}
        yield batch, sharding.put_batch(gold, rows), probabilities_BxL, loss_B
        # At most three batches on the devices: dispatch would run far ahead of a slow one.
        waiting.append(loss_B)
        if len(waiting) > 2:
            waiting.popleft().block_until_ready()


def gather(
    score: Score,
    batches: Iterable[HostBatch],
    codes: SplitCodes,
    rows: NamedSharding,
    *,
    threshold: float | None = None,
    decision: np.ndarray | None = None,
    specialties: Specialties | None = None,
    writer: Writer | None = None,
) -> statistics.Totals:
    """Gathers the statistics of all metrics in one pass.

    Memory does not grow with the number of contacts. With several processes each gives its own rows
    of every batch, and all get the same statistics.

    Args:
      score: the coder.
      batches: of one pass, with `labels`, `missing`, `_mask`, `index` and what `score` wants.
      codes: of the same split.
      rows: sharding of the rows of a batch.
      threshold: one more threshold to count at, in [0, 1].
      decision: by what labels are assigned, as of `statistics.Accumulator`; None is the threshold.
      specialties: by which predictions are counted too, and by which a decision may differ.
      writer: takes each batch's probabilities, and its outcomes by the decision.
    """
    labels = len(codes.occurring)
    if decision is None and threshold is not None:
        decision = np.full((1, 1), threshold, np.float32)
    accumulator = statistics.Accumulator(
        grid.threshold_grid(labels, threshold),
        labels,
        rows,
        decision=decision,
        occurring=codes.occurring,
        groups=len(specialties.names) if specialties else 0,
    )
    for batch, gold, probabilities_BxL, loss_B in scored(score, batches, rows):
        index_B = np.maximum(batch["index"], 0)
        specialty_B = specialties.of[index_B] if specialties else np.zeros_like(index_B)
        found = accumulator.update(
            probabilities_BxL,
            loss_B,
            gold["labels"],
            gold["missing"],
            gold["_mask"],
            sharding.put_batch({"specialty": specialty_B.astype(np.int32)}, rows)["specialty"],
        )
        if writer is not None:
            writer.write(gold["index"], probabilities_BxL, found)
    return accumulator.totals()
