"""The number to beat: the n-gram lexicon of the training split as a coder of its own."""

import itertools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from jaxcoder import sharding
from jaxcoder.tokens.builder import TokenData, TokensOptions
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


def fit_lexicon(data: TokenData, options: TokensOptions) -> Lexicon:
    """Counts the lexicon on the contact records of the training split.

    Args:
      data: token records, which know their contact records and their label space.
      options: how they were made.
    """
    contacts = data.contacts().split("train")
    # Two readers in step: a contact is read once, and none piles up.
    first, second = itertools.tee(contacts[number] for number in range(len(contacts)))
    return Lexicon.fit(
        (serialise(contact, options.serialise).text for contact in first),
        (sorted(gold_codes(contact, data.label_space.granularity)) for contact in second),
        options.lexicon,
    )


def lexicon_score(
    data: TokenData, lexicon: Lexicon, options: TokensOptions, rows: NamedSharding, split: str
) -> Callable[[Mapping[str, np.ndarray]], tuple[jax.Array, jax.Array]]:
    """Returns the scores of a lexicon for the batches of a split; they stand for probabilities.

    Args:
      data: token records.
      lexicon: as from `fit_lexicon`.
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
            for code, value in lexicon.scores(serialise(contact, options.serialise).text).items():
                if code in index:
                    probabilities_BxL[row, index[code]] = value
        placed = sharding.put_batch({"p": probabilities_BxL, "labels": batch["labels"]}, rows)
        return placed["p"], _loss(placed["p"], placed["labels"])

    return score
