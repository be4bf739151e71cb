"""Scorers: what an evaluation scores, be it a trained coder, alone or fused, or a baseline."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxcoder import batches as token_batches
from jaxcoder import losses, sharding, trained
from jaxcoder.baseline import (
    Baseline,
    baseline_score,
    fit_evidence_lexicon,
    fit_lexicon,
    split_scores,
)
from jaxcoder.fusion import Sample, Weights, fuse
from jaxcoder.steps import Steps
from jaxcoder.tokens.builder import TokenData
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon
from jaxcoder.trained import TrainedCoder
from jaxcoder.tuned import Tuned
from jaxcoder.workdir import Workdir

HostBatch = Mapping[str, np.ndarray]
Score = Callable[[HostBatch], tuple[jax.Array, jax.Array]]
"""From a batch to probabilities float32 [B, L] and loss float32 [B], rows split over devices."""
LexiconScores = Callable[[HostBatch], np.ndarray]
"""From a batch to the scores of a lexicon, float32 [B, L]; see `baseline.split_scores`."""

BASELINES = ("lexicon", "evidence", "network")
"""n-grams counted against codes on the training split; strings of the evidence that the loss uses,
found again; and a fused coder without its lexicon."""

_sigmoid = jax.jit(jax.nn.sigmoid)
_document_loss = jax.jit(losses.document_loss)


@dataclasses.dataclass(frozen=True)
class Scorer:
    """What is scored.

    Attributes:
      name: for people.
      score_of: from token records and the name of a split to the scores of its batches.
      rows: sharding of a batch.
      batches: how records are batched.
      tuned: on validation before; None where it has yet to be.
      details: what else there is to know of it.
      fusion: how network and lexicon are fused; None where they are not.
    """

    name: str
    score_of: Callable[[TokenData, str], Score]
    rows: NamedSharding
    batches: token_batches.BatchOptions
    tuned: Tuned | None
    details: dict[str, Any]
    fusion: Weights | None = None


def make_scorer(workdir: Workdir, data: TokenData, baseline: str, which: str) -> Scorer:
    """Makes what a workdir's evaluation scores.

    Args:
      workdir: of a training run; for a lexicon it needs no checkpoint.
      data: its token records.
      baseline: one of `BASELINES`, or empty for the trained coder.
      which: the `best` checkpoint or the `last`.

    Raises:
      UserError: what `trained.restore` and `baseline.fit_evidence_lexicon` raise.
    """
    if baseline in ("", "network"):
        coder = trained.restore(workdir, which, alone=baseline == "network")
        details = {"checkpoint": which, "step": coder.step, "label_space": coder.label_space.hash}
        name = f"{which} checkpoint (step {coder.step})"
        if coder.lexicon is not None:
            return _fused(coder, coder.lexicon, data, name, details)
        if baseline:
            name, details = f"{name}, network alone", details | {"baseline": baseline}
        return Scorer(
            name,
            lambda data, split: model_score(coder.steps, coder.params),
            coder.steps.batch_sharding,
            coder.experiment.batches,
            coder.tuned,
            details,
        )
    options = workdir.read_experiment()
    one = sharding.make_mesh(devices=jax.devices()[:1])
    rows = sharding.batch_sharding(one, sharding.ShardingRules())
    lexicon: Baseline = (
        fit_lexicon(data, options) if baseline == "lexicon" else fit_evidence_lexicon(data, options)
    )
    scores = functools.partial(split_scores, lexicon)
    return Scorer(
        "n-gram lexicon" if baseline == "lexicon" else "evidence lexicon",
        lambda data, split: baseline_score(scores(data, split), rows),
        rows,
        options.batches,
        None,
        {"baseline": baseline, "label_space": data.label_space.hash},
    )


def _fused(
    coder: TrainedCoder,
    lexicon: EvidenceLexicon,
    data: TokenData,
    name: str,
    details: dict[str, Any],
) -> Scorer:
    """Network and lexicon, with the weights that were tuned before or are fitted now."""
    scores = functools.partial(split_scores, lexicon)
    weights = coder.tuned.fusion if coder.tuned else None
    if weights is None:
        weights = fit_fusion(coder, data, scores(data, "validation"))
    return Scorer(
        f"{name} with lexicon",
        lambda data, split: fused_score(coder, weights, scores(data, split)),
        coder.steps.batch_sharding,
        coder.experiment.batches,
        coder.tuned,
        details | {"fusion": dataclasses.asdict(weights)},
        weights,
    )


def model_score(steps: Steps, params: Any) -> Score:
    """Returns the scores of a model; made anew for new parameters, it compiles nothing anew.

    Args:
      steps: the jitted steps.
      params: as from `steps.evaluation_params`.
    """

    def score(batch: HostBatch) -> tuple[jax.Array, jax.Array]:
        result = _network(steps, params, batch)
        return _sigmoid(result["logits"]), result["loss"]

    return score


def fused_score(coder: TrainedCoder, weights: Weights, scores: LexiconScores) -> Score:
    """Returns the scores of network and lexicon together.

    Args:
      coder: the network.
      weights: of the two.
      scores: the lexicon's, of the batches of a split.
    """

    def score(batch: HostBatch) -> tuple[jax.Array, jax.Array]:
        result = _network(coder.steps, coder.params, batch)
        placed = sharding.put_batch({"scores": scores(batch)}, coder.steps.batch_sharding)
        logits_BxL = fuse(result["logits"], placed["scores"], weights)
        return _sigmoid(logits_BxL), _document_loss(logits_BxL, result["targets"])

    return score


def fit_fusion(coder: TrainedCoder, data: TokenData, scores: LexiconScores) -> Weights:
    """Fits on the validation split how network and lexicon are fused.

    Args:
      coder: the network.
      data: token records.
      scores: the lexicon's, of the batches of the validation split.
    """
    options, rows = coder.experiment.fusion, coder.steps.batch_sharding
    sample = Sample(options)
    batches = token_batches.evaluation_batches(
        data,
        "validation",
        coder.experiment.batches,
        sharding.share_of(rows),
        options.max_contacts,
    )
    for batch in batches:
        placed = sharding.put_batch(
            {"real": batch["_mask"], "scores": scores(batch), "labels": batch["labels"]}, rows
        )
        placed["logits"] = _network(coder.steps, coder.params, batch)["logits"]
        # Every process has the batch whole, B × L numbers, keeps the candidates, and fits the same.
        found = sharding.whole(placed)
        real = found["real"]
        sample.add(*(found[key][real] for key in ("logits", "scores", "labels")))
    return sample.fit()


def _network(steps: Steps, params: Any, batch: HostBatch) -> dict[str, jax.Array]:
    wanted = {key: batch[key] for key in ("tokens", "length", "labels", "_mask")}
    return steps.evaluate(params, sharding.put_batch(wanted, steps.batch_sharding))
