"""Scores a trained coder, or a lexicon that it has to beat, on a split.

    jaxcoder evaluate --workdir runs/demo --split test
    jaxcoder evaluate --workdir runs/demo --split validation --baseline lexicon
    jaxcoder evaluate --workdir runs/codiesp --split validation --baseline network
    jaxcoder evaluate --workdir runs/demo --split test --without medications,labs

One threshold is tuned for micro-F1 on the validation split and applied unchanged to every other;
before it, where the config fuses network and evidence lexicon, the weights of the two.
WORKDIR/eval/SPLIT then holds metrics.json, details.json, groups.csv (with intervals), codes.csv,
roles.csv, granularity.csv, contacts.parquet and predictions.parquet; those of a baseline lie in
baseline_NAME below it, those of a coder that is not given some of its inputs in without_NAMES.
metrics.json is there only where all are of one evaluation. Runs on all devices, with --distributed
on those of several hosts.
"""

import collections
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding
from tqdm import tqdm

from jaxcoder import batches as token_batches
from jaxcoder import distributed, entry, evaluation_files, outcomes, sharding
from jaxcoder.batch_plan import plan_evaluation
from jaxcoder.errors import UserError
from jaxcoder.metrics import grid, statistics
from jaxcoder.metrics.groups import GROUPINGS, group_rows
from jaxcoder.metrics.roles import role_rows
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

    def write(
        self, index_B: jax.Array, probabilities_BxL: jax.Array, found: statistics.Outcomes
    ) -> None:
        """Takes a batch: numbers of records, −1 on padding rows, probabilities, and outcomes."""


def gold_outside(data: TokenData, split: str) -> dict[str, int]:
    """Number of contacts of a split by gold code outside the label space.

    Raises:
      UserError: no contact of the split has a code.
    """
    counts = data.code_counts(split)
    if not counts:
        raise UserError(
            f"--split {split}: no contact of it in {data.path} has a code to score against; choose "
            "a split with codes, or give codes to the source and build the records again"
        )
    known = data.label_space.index
    return {code: count.occurrences for code, count in counts.items() if code not in known}


def evaluate(
    score: Score,
    batches: Iterable[HostBatch],
    missing: Mapping[str, int],
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
      missing: number of contacts by gold code outside the label space, of the same split.
      label_space: what the coder predicts.
      rows: sharding of the rows of a batch.
      threshold: probability that an assigned code exceeds, in [0, 1]; None tunes it on these very
        batches, for micro-F1, to a resolution of at most 0.004 (0.016 with more than 8,192 labels).
      writer: takes each batch's probabilities, and its outcomes at the threshold.

    Returns:
      The metrics; the threshold is one of them.
    """
    edges = grid.threshold_grid(len(label_space), threshold)
    at = 0 if threshold is None else grid.place(edges, threshold)
    accumulator = statistics.Accumulator(edges, len(label_space), rows, at)
    waiting: collections.deque[jax.Array] = collections.deque()
    for batch in batches:
        probabilities_BxL, loss_B = score(batch)
        gold = {key: batch[key] for key in ("labels", "missing", "_mask", "index")}
        placed = sharding.put_batch(gold, rows)
        found = accumulator.update(
            probabilities_BxL, loss_B, placed["labels"], placed["missing"], placed["_mask"]
        )
        if writer is not None:
            writer.write(placed["index"], probabilities_BxL, found)
        # At most three batches on the devices: dispatch would run far ahead of a slow one.
        waiting.append(loss_B)
        if len(waiting) > 2:
            waiting.popleft().block_until_ready()
    return summarise(
        accumulator.totals(),
        codes=label_space.codes,
        descriptions=label_space.descriptions,
        missing=missing,
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
    flags.DEFINE_list(
        "groups", list(GROUPINGS), f"Groupings of groups.csv, out of {', '.join(GROUPINGS)}."
    )
    flags.DEFINE_string("data_dir", "", "Where the records lie, if not where the config says.")
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint.")
    distributed.define_flags()


def main() -> None:
    """Evaluates, writes the files, and prints a table."""
    wanted = flags.FLAGS
    if wanted.threshold is not None and not 0 <= wanted.threshold <= 1:
        raise UserError(f"--threshold = {wanted.threshold}: expected a probability in [0, 1]")
    for name in wanted.groups:
        if name not in GROUPINGS:
            raise UserError(f"--groups {name}: expected some of {', '.join(GROUPINGS)}")
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
    gold_outside(data, wanted.split)  # before anything takes time
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
    scored = data
    if wanted.without:
        alone = jax.process_count() == 1  # else several would write the same records
        scored = ablation.without(data, wanted.split, wanted.without, build=alone)
    with PredictionWriter(
        folder,
        scored.outcome_source(wanted.split),
        scored.lengths(wanted.split),
        data.label_space,
        threshold=threshold,
        top=wanted.top,
        lead=lead,
    ) as writer:
        summary = _one_pass(coder, scored, wanted.split, threshold, writer)
        if lead:
            evaluation_files.begin(folder)
    if not lead:
        return
    details = {**coder.details, "threshold_from": source, "split": wanted.split}
    details["without"] = list(wanted.without)
    details |= _ceiling(data, wanted.split, float(summary.metrics["micro_f1"]))
    codes = evaluation_files.code_rows(
        summary.codes, data.code_counts("train"), data.code_counts(wanted.split)
    )
    groups, details["groups_absent"] = group_rows(
        outcomes.read(folder / evaluation_files.CONTACTS), wanted.groups
    )
    tables = {
        "groups": groups,
        "codes": codes,
        "roles": role_rows(codes),
        "granularity": writer.granularities.rows(),
    }
    evaluation_files.save(folder, summary, details, tables)
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
    shows = jax.process_index() == 0 and sys.stderr.isatty()
    bar = tqdm(total=len(data.sizes(split)), desc=split, unit="contact", disable=not shows)
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
            gold_outside(data, split),
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
