"""Scores a trained coder, or a lexicon that it has to beat, on a split.

    jaxcoder evaluate --workdir runs/demo --split test
    jaxcoder evaluate --workdir runs/demo --split validation --baseline lexicon
    jaxcoder evaluate --workdir runs/codiesp --split validation --baseline network
    jaxcoder evaluate --workdir runs/demo --split test --without medications,labs
    jaxcoder evaluate --workdir runs/demo --split test --thresholds code

One threshold is tuned for micro-F1 on the validation split and applied unchanged to every other;
before it, where the config fuses network and evidence lexicon, the weights of the two.
WORKDIR/eval/SPLIT then holds metrics.json, details.json, groups.csv (with intervals), codes.csv,
roles.csv, granularity.csv, reliability.csv, contacts.parquet and predictions.parquet; those of a
baseline lie in baseline_NAME below it, those of a coder that is not given some of its inputs in
without_NAMES, those with thresholds by code or by specialty, which `predict` and `export` do not
use, in thresholds_NAME. metrics.json is there only where all are of one evaluation. Runs on all
devices, with --distributed on those of several hosts.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from absl import flags
from etils import epath
from jax.sharding import NamedSharding

from jaxcoder import distributed, entry, evaluation_files, outcomes, split_pass, tuning
from jaxcoder.errors import UserError
from jaxcoder.metrics import thresholds
from jaxcoder.metrics.groups import GROUPINGS, group_rows
from jaxcoder.metrics.roles import role_rows
from jaxcoder.metrics.summary import Summary, summarise
from jaxcoder.metrics.thresholds import Thresholds
from jaxcoder.predictions import PredictionWriter
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import SPLITS
from jaxcoder.scorer import BASELINES, HostBatch, Score, Scorer, make_scorer
from jaxcoder.split_pass import SplitCodes
from jaxcoder.tokens import ablation
from jaxcoder.tokens.builder import TokenData
from jaxcoder.tuned import Tuned
from jaxcoder.workdir import Workdir


def evaluate(
    score: Score,
    batches: Iterable[HostBatch],
    codes: SplitCodes,
    label_space: LabelSpace,
    rows: NamedSharding,
) -> Summary:
    """Computes all metrics in one pass over a split, at the threshold that is best there.

    Args:
      score: the coder.
      batches: of one pass, as of `split_pass.gather`.
      codes: of the same split.
      label_space: what the coder predicts.
      rows: sharding of the rows of a batch.

    Returns:
      The metrics; the threshold is one of them, tuned for micro-F1 to a resolution of at most
      0.004 (0.016 with more than 8,192 labels).
    """
    return summarise(
        split_pass.gather(score, batches, codes, rows),
        codes=label_space.codes,
        descriptions=label_space.descriptions,
        missing=codes.missing,
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
        "threshold", None, "Probability that an assigned code exceeds, instead of the tuned one."
    )
    flags.DEFINE_enum(
        "tune",
        "grid",
        ["grid", "exact"],
        "How the threshold is tuned where it has not been: at the best of several hundred, or at "
        "the best of all, which takes one more pass over validation and replaces one of the grid.",
    )
    flags.DEFINE_enum(
        "thresholds",
        "global",
        ["global", *thresholds.LEAST],
        "One threshold for all, or one for each code or specialty, tuned on validation for its "
        "F1; `predict` and `export` keep the one for all.",
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
    for name, default in (("thresholds", "global"), ("tune", "grid")):
        if wanted.threshold is not None and wanted[name].value != default:
            raise UserError(
                f"--threshold {wanted.threshold}, --{name} {wanted[name].value}: expected one of "
                "the two; leave the other out"
            )
    for name in wanted.groups:
        if name not in GROUPINGS:
            raise UserError(f"--groups {name}: expected some of {', '.join(GROUPINGS)}")
    distributed.start(saves=False)
    with contextlib.ExitStack() as exits:
        _evaluate(exits)


def _evaluate(exits: contextlib.ExitStack) -> None:
    wanted, lead = flags.FLAGS, jax.process_index() == 0
    if wanted.baseline in ("lexicon", "evidence") and jax.process_count() > 1:
        raise UserError(
            f"--baseline {wanted.baseline}: counts on one process; start it on one host"
        )
    workdir = Workdir(wanted.workdir)
    if wanted.baseline == "network" and not workdir.read_experiment().fusion.enabled:
        raise UserError(
            "--baseline network: the coder is not fused with a lexicon, it is its network; leave "
            "--baseline out"
        )
    data = workdir.open_tokens(wanted.data_dir)
    known = [split for split in SPLITS if split in data.splits]
    if wanted.split not in known:
        raise UserError(
            f"--split {wanted.split}: not in {data.path}; expected one of {', '.join(known)}"
        )
    codes = split_pass.split_codes(data, wanted.split)  # an error comes before what takes time
    coder = make_scorer(workdir, data, wanted.baseline, wanted.checkpoint)
    by = "" if wanted.thresholds == "global" else wanted.thresholds
    tuned, own = _tuned(
        coder, data, workdir, by=by, exact=wanted.tune == "exact", keep=not wanted.baseline
    )
    threshold = tuned.threshold if wanted.threshold is None else wanted.threshold
    specialties = split_pass.read_specialties(data, wanted.split) if by == "specialty" else None
    names = specialties.names if specialties else data.label_space.codes
    decision = own.decision(names) if own else None
    folder = workdir.evaluation(wanted.split, wanted.baseline, wanted.without, by)
    if lead and (lock := evaluation_files.lock(folder)):
        exits.callback(lock.close)
    scored = data
    if wanted.without:
        alone = jax.process_count() == 1  # else several would write the same records
        scored = ablation.without(data, wanted.split, wanted.without, build=alone)
    with PredictionWriter(
        folder,
        scored.outcome_source(wanted.split),
        scored.lengths(wanted.split),
        data.label_space,
        threshold=threshold if decision is None else decision,
        group=specialties.of if specialties else None,
        top=wanted.top,
        lead=lead,
    ) as writer:
        totals = split_pass.gather(
            coder.score_of(scored, wanted.split),
            split_pass.batches_of(coder, scored, wanted.split),
            codes,
            coder.rows,
            threshold=threshold,
            decision=decision,
            specialties=specialties,
            writer=writer,
        )
        summary = summarise(
            totals,
            codes=data.label_space.codes,
            descriptions=data.label_space.descriptions,
            missing=codes.missing,
            threshold=threshold,
            decided=decision is not None,
            comparable_threshold=tuned.comparable,
        )
        if lead:
            evaluation_files.begin(folder)
    if lead:
        details = {**coder.details, "thresholds": _thresholds(own, names)}
        details |= _ceiling(data, wanted.split, float(summary.metrics["micro_f1"]))
        _save(folder, summary, details, data, writer.granularities.rows())
        print(evaluation_files.table(summary, details, _title(data, coder)))
        print(f"Evaluation {folder}")


def _save(
    folder: epath.Path,
    summary: Summary,
    details: Mapping[str, Any],
    data: TokenData,
    granularities: Sequence[Mapping[str, Any]],
) -> None:
    """Writes all files but the two Parquet files, which the pass itself has written."""
    wanted = flags.FLAGS
    groups, absent = group_rows(outcomes.read(folder / evaluation_files.CONTACTS), wanted.groups)
    codes = evaluation_files.code_rows(
        summary.codes, data.code_counts("train"), data.code_counts(wanted.split)
    )
    tables = {
        "groups": groups,
        "codes": codes,
        "roles": role_rows(codes),
        "granularity": granularities,
        "reliability": summary.reliability,
    }
    more = {
        "split": wanted.split,
        "without": list(wanted.without),
        "threshold_from": "tuned on validation" if wanted.threshold is None else "given",
        "groups_absent": absent,
    }
    evaluation_files.save(folder, summary, {**details, **more}, tables)


def _thresholds(own: Thresholds | None, names: Sequence[str]) -> dict[str, Any]:
    """By what thresholds differ, and how many codes or specialties have one of their own."""
    if own is None:
        return {"by": "global"}
    count = sum(name in own.own for name in names)
    return {
        "by": own.by,
        "own": count,
        "default": len(names) - count,
        "least_gold_codes_on_validation": thresholds.LEAST[own.by],
    }


def _title(data: TokenData, coder: Scorer) -> str:
    wanted = flags.FLAGS
    title = f"{wanted.split} of {data.name}, {coder.name}"
    title += f", without {', '.join(wanted.without)}" if wanted.without else ""
    return title + ("" if wanted.thresholds == "global" else f", thresholds by {wanted.thresholds}")


def _tuned(
    coder: Scorer, data: TokenData, workdir: Workdir, *, by: str, exact: bool, keep: bool
) -> tuple[Tuned, Thresholds | None]:
    """What was tuned before, or is now; process 0 keeps it for the next time."""
    kept, step = coder.tuned, coder.details.get("step", -1)
    if kept and kept.comparable is not None and (kept.exact or not exact):
        own = workdir.tuned.read_own(by, step, kept) if by and keep else None
        if own is not None:
            return kept, Thresholds(by, kept.threshold, own)
        if not by:
            return kept, None
    found = tuning.tune(coder, data, exact=exact, by=by)
    if keep and jax.process_index() == 0:
        workdir.tuned.write(found.tuned, step, found.micro_f1)
        if found.thresholds:
            workdir.tuned.write_own(by, found.thresholds.own, step, found.tuned)
    return found.tuned, found.thresholds


def _ceiling(data: TokenData, split: str, micro_f1: float) -> dict[str, float]:
    """What a cohort whose truth is known says of the best that any coder can reach."""
    summary = data.report.get("records", {}).get("splits", {}).get(split, {})
    ceiling = summary.get("ceiling_micro_f1")
    if not ceiling:
        return {}
    return {"ceiling_micro_f1": ceiling, "share_of_ceiling": micro_f1 / ceiling}


if __name__ == "__main__":
    entry.launch(define_flags, main, __doc__)
