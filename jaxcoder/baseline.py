"""The numbers to beat: lexicons of the training split, each as a coder of its own."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxcoder import sharding
from jaxcoder.errors import UserError
from jaxcoder.experiment import Experiment
from jaxcoder.records.schema import Contact
from jaxcoder.tokens import evidence
from jaxcoder.tokens.builder import TokenData, TokensOptions
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon, EvidenceLexiconOptions
from jaxcoder.tokens.labels import gold_codes
from jaxcoder.tokens.lexicon import Lexicon
from jaxcoder.tokens.serialise import serialise

# Scores of 0 and 1 would make the cross-entropy of one mistake infinite.
_SMALLEST = 1e-6


@jax.jit
def _loss(probabilities_BxL: jax.Array, labels_BxK: jax.Array) -> jax.Array:
    """Cross-entropy of each document, summed over labels, with scores within [1e-6, 1 − 1e-6]."""
    p_BxL = jnp.clip(probabilities_BxL, _SMALLEST, 1 - _SMALLEST)
    own_BxK = jnp.take_along_axis(p_BxL, jnp.maximum(labels_BxK, 0), axis=1)
    gain_BxK = jnp.where(labels_BxK >= 0, jnp.log1p(-own_BxK) - jnp.log(own_BxK), 0.0)
    return jnp.sum(gain_BxK, axis=1) - jnp.sum(jnp.log1p(-p_BxL), axis=1)


class Baseline(Protocol):
    """A coder that reads text."""

    def scores(self, text: str) -> dict[str, float]:
        """From the codes that a text may have to their scores, in (0, 1]."""


BASELINES = {"lexicon": "n-gram lexicon", "evidence": "evidence lexicon"}
"""Baselines by their names on the command line."""


def fit_baseline(name: str, data: TokenData, options: Experiment) -> Baseline:
    """Counts a baseline on the training split.

    Args:
      name: one of `BASELINES`: `lexicon` sees document labels alone; `evidence` counts the strings
        of the evidence that the experiment's loss uses, annotated where it uses both.
      data: token records, which know their contact records and their label space.
      options: how records and loss were chosen.

    Raises:
      UserError: `evidence`, and the training split has none of that provenance.
    """
    contacts = data.contacts().split("train")
    granularity = data.label_space.granularity

    def text(contact: Contact) -> str:
        return serialise(contact, options.tokens.serialise).text

    def codes(contact: Contact) -> list[str]:
        return sorted(gold_codes(contact, granularity))

    # Readers in step: a contact is read once, and none piles up.
    first, second, third = itertools.tee((contacts[n] for n in range(len(contacts))), 3)
    if name == "lexicon":
        return Lexicon.fit(map(text, first), map(codes, second), options.tokens.lexicon)
    gold = options.loss.evidence_weight > 0
    provenance = evidence.PROVENANCES[evidence.GOLD if gold else evidence.SILVER]
    if not data.report["splits"]["train"]["evidence"].get(provenance, {}).get("kept"):
        raise UserError(
            f"--baseline evidence: {data.path} has no {provenance} evidence in its training split; "
            "train with config.loss.silver_weight and config.tokens.silver.enabled, or use "
            "--baseline lexicon"
        )

    def strings() -> Iterator[list[tuple[str, str]]]:
        for contact, record in zip(map(text, third), data.split("train"), strict=True):
            yield [
                (contact[start:end], data.label_space.codes[label])
                for label, start, end in evidence.characters(record, provenance)
            ]

    return EvidenceLexicon.fit(
        map(text, first), map(codes, second), strings(), EvidenceLexiconOptions()
    )


def baseline_score(
    data: TokenData, baseline: Baseline, options: TokensOptions, rows: NamedSharding, split: str
) -> Callable[[Mapping[str, np.ndarray]], tuple[jax.Array, jax.Array]]:
    """Returns the scores of a baseline for the batches of a split; they stand for probabilities.

    Args:
      data: token records.
      baseline: as from `fit_baseline`.
      options: how the token records were made.
      rows: sharding of the rows of a batch.
      split: of the batches.
    """
    contacts = data.contacts().split(split)  # in the order of the token records
    index = data.label_space.index

    def score(batch: Mapping[str, np.ndarray]) -> tuple[jax.Array, jax.Array]:
        probabilities_BxL = np.zeros((len(batch["index"]), len(index)), np.float32)
        for row, number in enumerate(batch["index"]):
            if number < 0:
                continue
            contact = contacts[int(number)]
            for code, value in baseline.scores(serialise(contact, options.serialise).text).items():
                if code in index:
                    probabilities_BxL[row, index[code]] = value
        placed = sharding.put_batch({"p": probabilities_BxL, "labels": batch["labels"]}, rows)
        return placed["p"], _loss(placed["p"], placed["labels"])

    return score
