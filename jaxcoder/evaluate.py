"""Scores a trained coder, or a lexicon that it has to beat, on a split.

    jaxcoder evaluate --workdir runs/demo --split test
    jaxcoder evaluate --workdir runs/demo --split validation --baseline lexicon
    jaxcoder evaluate --workdir runs/codiesp --split validation --baseline network
    jaxcoder evaluate --workdir runs/demo --split test --without medications,labs

One threshold is tuned for micro-F1 on the validation split and applied unchanged to every other;
before it, where the config fuses network and evidence lexicon, the weights of the two.
WORKDIR/eval/SPLIT then holds metrics.json, details.json, groups.csv (by specialty), codes.csv and
predictions.parquet; those of a baseline lie in baseline_NAME below it, those of a coder that is
not given some of its inputs in without_NAMES. Runs on all devices, with
--distributed on those of several hosts.
"""

import collections
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding
from tqdm import tqdm

from jaxcoder import batches as token_batches
from jaxcoder import distributed, entry, evaluation_files, sharding
from jaxcoder.batch_plan import plan_evaluation
from jaxcoder.errors import UserError
from jaxcoder.metrics import grid, statistics
from jaxcoder.metrics.summary import Summary, summarise
from jaxcoder.predictions import PredictionWriter
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import SPLITS
from jaxcoder.scorer import BASELINES, HostBatch, Score, Scorer, make_scorer
from jaxcoder.tokens import ablation
from jaxcoder.tokens.builder import TokenData
from jaxcoder.workdir import Tuned, Workdir


class Writer(Protocol):
    """What takes the probabilities of each batch beside the metrics."""

    def write(self, index_B: jax.Array, probabilities_BxL: jax.Array) -> None:
        """Takes a batch: the number of each record, −1 on padding rows, and its probabilities."""


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """What metrics need of a split's records beside the batches.

    Attributes:
      missing: number of contacts by gold code outside the label space.
      specialties: the names that occur, sorted; `unknown` where a contact has none.
      specialty: int32 [N], index into `specialties` by record number.
    """

    missing: Mapping[str, int]
    specialties: tuple[str, ...]
    specialty: np.ndarray


def read_facts(records: Iterable[Mapping[str, Any]]) -> SplitFacts:
    """Reads a split's records once.

    Args:
      records: token records in the order of their numbers.
    """
    missing: collections.Counter[str] = collections.Counter()
    names: list[str] = []
    for record in records:
        missing.update(record["missing_codes"])
        names.append(record["specialty"] or "unknown")
    specialties = tuple(sorted(set(names))) or ("unknown",)
    index = {name: number for number, name in enumerate(specialties)}
    return SplitFacts(dict(missing), specialties, np.array([index[n] for n in names], np.int32))


def evaluate(
    score: Score,
    batches: Iterable[HostBatch],
    facts: SplitFacts,
    label_space: LabelSpace,
    rows: NamedSharding,
    *,
    threshold: float | None = None,
    writer: Writer | None = None,
) -> Summary:
    """Computes all metrics in one pass over a split.

    Memory does not grow with the number of contacts. With several processes each gives its own rows
    of every batch, and all get the same metrics.

    Args:
      score: the coder.
      batches: of one pass, with `labels`, `missing`, `_mask`, `index` and what `score` wants.
      facts: of the same split.
      label_space: what the coder predicts.
      rows: sharding of the rows of a batch.
      threshold: probability that an assigned code exceeds, in [0, 1]; None tunes it on these very
        batches, for micro-F1, to a resolution of at most 0.004 (0.016 with more than 8,192 labels).
      writer: takes each batch's probabilities.

    Returns:
      The metrics; the threshold is one of them.
    """
    edges = grid.threshold_grid(len(label_space), threshold)
    groups = len(facts.specialties)
    accumulator = statistics.Accumulator(edges, len(label_space), groups, rows)
    waiting: collections.deque[jax.Array] = collections.deque()
    for batch in batches:
        probabilities_BxL, loss_B = score(batch)
        index_B = np.maximum(batch["index"], 0)
        gold = {key: batch[key] for key in ("labels", "missing", "_mask", "index")}
        gold["specialty"] = facts.specialty[index_B] if len(facts.specialty) else index_B
        placed = sharding.put_batch(gold, rows)
        accumulator.update(
            probabilities_BxL,
            loss_B,
            placed["labels"],
            placed["missing"],
            placed["_mask"],
            placed["specialty"],
        )
        if writer is not None:
            writer.write(placed["index"], probabilities_BxL)
        # At most three batches on the devices: dispatch would run far ahead of a slow one.
        waiting.append(loss_B)
        if len(waiting) > 2:
            waiting.popleft().block_until_ready()
    return summarise(
        accumulator.totals(),
        codes=label_space.codes,
        descriptions=label_space.descriptions,
        missing=facts.missing,
        groups=facts.specialties,
        threshold=threshold,
    )


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder that `jaxcoder train` has written.", required=True)
    flags.DEFINE_string("split", "test", "Split to score: validation, test or train.")
    flags.DEFINE_enum(
        "baseline",
        "",
        ["", *BASELINES],
        "Score this instead: lexicon, n-grams counted against codes on train; evidence, the "
        "strings of the evidence that the loss uses, found again; network, a fused coder without "
        "its lexicon.",
    )
    flags.DEFINE_list(
        "without",
        [],
        "Inputs that the coder is not given, to see what they bring: notes, "
        "medications, labs. Threshold and fusion stay those of all inputs.",
    )
    flags.DEFINE_float(
        "threshold", None, "Probability that an assigned code exceeds, instead of tuning it."
    )
    flags.DEFINE_integer("top", 15, "Codes a contact in predictions.parquet.", lower_bound=1)
    flags.DEFINE_string("data_dir", "", "Where the records lie, if not where the config says.")
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint.")
    distributed.define_flags()


def main() -> None:
    """Evaluates, writes the files, and prints a table."""
    wanted = flags.FLAGS
    if wanted.threshold is not None and not 0 <= wanted.threshold <= 1:
        raise UserError(f"--threshold = {wanted.threshold}: expected a probability in [0, 1]")
    distributed.start(saves=False)
    lead = jax.process_index() == 0
    if wanted.baseline in ("lexicon", "evidence") and jax.process_count() > 1:
        raise UserError(
            f"--baseline {wanted.baseline}: counts on one process; start it on one host"
        )
    workdir = Workdir(wanted.workdir)
    data = workdir.open_tokens(wanted.data_dir)
    known = [split for split in SPLITS if split in data.splits]
    if wanted.split not in known:
        raise UserError(
            f"--split {wanted.split}: not in {data.path}; expected one of {', '.join(known)}"
        )
    coder = make_scorer(workdir, data, wanted.baseline, wanted.checkpoint)
    threshold, source = wanted.threshold, "given"
    if threshold is None:
        threshold, source = coder.threshold, "tuned on validation"
    if threshold is None:
        tuned = _one_pass(coder, data, "validation").metrics
        threshold = float(tuned["threshold"])
        if lead and not wanted.baseline:
            kept = Tuned(threshold, coder.fusion)
            workdir.write_tuned(kept, coder.details["step"], float(tuned["micro_f1"]))
    folder = workdir.evaluation(wanted.split, wanted.baseline, wanted.without)
    if wanted.without:
        alone = jax.process_count() == 1  # else several would write the same records
        data = ablation.without(data, wanted.split, wanted.without, build=alone)
    with PredictionWriter(
        folder / "predictions.parquet",
        data.split(wanted.split),
        data.label_space,
        threshold=threshold,
        top=wanted.top,
        lead=lead,
    ) as writer:
        summary = _one_pass(coder, data, wanted.split, threshold, writer)
    if not lead:
        return
    details = {**coder.details, "threshold_from": source, "split": wanted.split}
    details["without"] = list(wanted.without)
    details |= _ceiling(data, wanted.split, float(summary.metrics["micro_f1"]))
    evaluation_files.save(folder, summary, details)
    title = f"{wanted.split} of {data.name}, {coder.name}"
    title += f", without {', '.join(wanted.without)}" if wanted.without else ""
    print(evaluation_files.table(summary, details, title))
    print(f"Evaluation {folder}")


def _one_pass(
    coder: Scorer,
    data: TokenData,
    split: str,
    threshold: float | None = None,
    writer: Writer | None = None,
) -> Summary:
    records = data.split(split)
    shows = jax.process_index() == 0 and sys.stderr.isatty()
    bar = tqdm(total=len(records), desc=split, unit="contact", disable=not shows)
    share = sharding.share_of(coder.rows)
    planned, _ = plan_evaluation(data.lengths(split), coder.batches)

    def batches() -> Iterator[HostBatch]:
        mine = token_batches.evaluation_batches(data, split, coder.batches, share)
        for batch, whole in zip(mine, planned, strict=True):
            yield batch
            bar.update(np.count_nonzero(whole.items >= 0))  # of all processes

    with bar:
        return evaluate(
            coder.score_of(data, split),
            batches(),
            read_facts(records),
            data.label_space,
            coder.rows,
            threshold=threshold,
            writer=writer,
        )


def _ceiling(data: TokenData, split: str, micro_f1: float) -> dict[str, float]:
    """What a cohort whose truth is known says of the best that any coder can reach."""
    summary = data.report.get("records", {}).get("splits", {}).get(split, {})
    ceiling = summary.get("ceiling_micro_f1")
    if not ceiling:
        return {}
    return {"ceiling_micro_f1": ceiling, "share_of_ceiling": micro_f1 / ceiling}


if __name__ == "__main__":
    entry.launch(define_flags, main, __doc__)
