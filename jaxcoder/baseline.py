"""The numbers to beat: lexicons of the training split, each as a coder of its own."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from tqdm import tqdm

from jaxcoder import sharding
from jaxcoder.errors import UserError
from jaxcoder.experiment import Experiment
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import Contact
from jaxcoder.records.store import evenly
from jaxcoder.tokens import evidence
from jaxcoder.tokens.builder import TokenData
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon
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


def fit_lexicon(data: TokenData, options: Experiment) -> Lexicon:
    """Counts n-grams against codes on the contacts of the training split.

    Args:
      data: token records, which know their contact records and their label space.
      options: how they were made.
    """
    chosen = evenly(data.contacts().split("train"), options.tokens.lexicon.max_contacts)
    first, second = itertools.tee(chosen)  # in step: a contact is read once
    return Lexicon.fit(
        (serialise(contact, options.tokens.serialise).text for contact in first),
        (sorted(gold_codes(contact, data.label_space.granularity)) for contact in second),
        options.tokens.lexicon,
    )


def fit_evidence_lexicon(data: TokenData, options: Experiment) -> EvidenceLexicon:
    """Counts the strings of the evidence that the loss uses; annotated ones where it uses both.

    Args:
      data: token records, which know their contact records and their label space.
      options: how they were made, and the loss.

    Raises:
      UserError: the training split has none of that provenance.
    """
    gold = options.loss.evidence_weight > 0
    most, provenance = options.fusion.lexicon.max_contacts, "gold" if gold else "silver"
    if not data.report["splits"]["train"]["evidence"].get(provenance, {}).get("kept"):
        raise UserError(
            f"{data.path}: the training split has no {provenance} evidence, which the evidence "
            "lexicon is made of; train with config.fusion.enabled = False, or with "
            "config.tokens.silver.enabled = True and config.loss.silver_weight above 0"
            + (", with config.loss.evidence_weight = 0" if gold else "")
        )

    def texts(contacts: Iterator[Contact]) -> Iterator[str]:
        return (serialise(contact, options.tokens.serialise).text for contact in contacts)

    def silver(contacts: Iterator[Contact]) -> Iterator[list[tuple[str, str, bool]]]:
        records = evenly(data.split("train"), most)  # in the order of the contacts
        for text, record in zip(texts(contacts), records, strict=True):
            yield [
                (text[start:end], data.label_space.codes[label], True)
                for label, start, end in evidence.characters(record, provenance)
            ]

    def annotated(contacts: Iterator[Contact]) -> Iterator[list[tuple[str, str, bool]]]:
        for contact in contacts:
            found = []
            for code, note, places in evidence.mentions(contact, data.label_space.granularity):
                if code in data.label_space.index:
                    pieces = [contact.notes[note].text[start:end] for start, end in places]
                    found.append((" ".join(pieces), code, True))
                    found += [(piece, code, False) for piece in pieces if len(pieces) > 1]
            yield found

    chosen = evenly(data.contacts().split("train"), most)
    bar = tqdm(chosen, desc="evidence lexicon", unit="contact", disable=not sys.stderr.isatty())
    first, second, third = itertools.tee(bar, 3)
    return EvidenceLexicon.fit(
        texts(first),
        (sorted(gold_codes(contact, data.label_space.granularity)) for contact in second),
        (annotated if gold else silver)(third),
        options.fusion.lexicon,
    )


def dense_scores(baseline: Baseline, texts: Sequence[str], label_space: LabelSpace) -> np.ndarray:
    """Returns the scores of texts, float32 [B, L]; 0 for codes that are not found."""
    scores_BxL = np.zeros((len(texts), len(label_space)), np.float32)
    for row, text in enumerate(texts):
        for code, score in baseline.scores(text).items():
            if code in label_space.index:
                scores_BxL[row, label_space.index[code]] = score
    return scores_BxL


def split_scores(
    baseline: Baseline, data: TokenData, split: str
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Returns the scores of a baseline, float32 [B, L], for the batches of a split.

    Args:
      baseline: as from `fit_lexicon` or `fit_evidence_lexicon`.
      data: token records; the baseline reads of a contact what they were made from.
      split: of the batches.
    """
    # In the order of the token records.
    contacts, options = data.contacts().split(split), data.serialise

    def score(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        texts = [
            serialise(contacts[number], options).text if number >= 0 else ""
            for number in batch["index"].tolist()
        ]
        return dense_scores(baseline, texts, data.label_space)

    return score


def baseline_score(
    scores: Callable[[Mapping[str, np.ndarray]], np.ndarray], rows: NamedSharding
) -> Callable[[Mapping[str, np.ndarray]], tuple[jax.Array, jax.Array]]:
    """Returns probabilities and loss of batches, for which a baseline's scores stand.

    Args:
      scores: as from `split_scores`.
      rows: sharding of the rows of a batch.
    """

    def score(batch: Mapping[str, np.ndarray]) -> tuple[jax.Array, jax.Array]:
        placed = sharding.put_batch({"p": scores(batch), "labels": batch["labels"]}, rows)
        return placed["p"], _loss(placed["p"], placed["labels"])

    return score
