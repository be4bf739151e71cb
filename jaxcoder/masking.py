"""Masking: which tokens of a row are hidden, drawn on the device from a key."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Of hidden tokens, the share that shows the mask, and the share that shows another token; the rest
# shows itself (Devlin et al., 2019, section 3.1, arXiv:1810.04805).
_MASK, _RANDOM = 0.8, 0.1


@dataclasses.dataclass(frozen=True)
class MaskingOptions:
    """How much is hidden.

    Attributes:
      rate: share of a row's tokens that are hidden, in (0, 1). BERT hid 0.15; ModernBERT 0.3
        (Warner et al., arXiv:2412.13663), after Wettig et al. (arXiv:2202.08005), who found more
        than 0.15 to be better.
      whole_word: hide all tokens of a word or none.
    """

    rate: float = 0.3
    whole_word: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"rate = {self.rate}: expected a share between 0 and 1")

    def slots(self, length: int) -> int:
        """The most tokens of a row of this length that are hidden (M)."""
        return math.ceil(self.rate * length)


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """What masking has to know of V token ids.

    Attributes:
      begins_word: bool [V], whether a token begins a word.
      special: bool [V], tokens that are never hidden and never stand for another.
      mask_id: the token that stands for a hidden one.
    """

    begins_word: np.ndarray
    special: np.ndarray
    mask_id: int


class Masked(NamedTuple):
    """Rows with hidden tokens.

    Attributes:
      tokens_BxT: int32, as they show.
      place_BxM: int32, where a token is hidden.
      target_BxM: int32, which one.
      hidden_BxM: bool, whether there is one: a slot may be left over.
      candidates_B: int32, tokens of the row that might have been hidden.
    """

    tokens_BxT: jax.Array
    place_BxM: jax.Array
    target_BxM: jax.Array
    hidden_BxM: jax.Array
    candidates_B: jax.Array


def mask(
    key: jax.Array,
    row_B: jax.Array,
    tokens_BxT: jax.Array,
    segments_BxT: jax.Array,
    vocabulary: Vocabulary,
    options: MaskingOptions,
) -> Masked:
    """Hides words of packed rows.

    The words of a row are put in a random order, and hidden in it for as long as their tokens are
    no more than the rate allows; the last word that would not fit whole, and all after it, show. So
    every row has as many hidden tokens as its rate says, less a part of a word, and the slots that
    the vocabulary's logits are computed for are nearly all in use.

    Args:
      key: random key.
      row_B: int32, number of each row: it and the key alone decide a row's masks, wherever it
        stands.
      tokens_BxT: int32.
      segments_BxT: int32, documents of a row, 0 on padding.
      vocabulary: of the tokenizer.
      options: how much.
    """
    special_BxT = jnp.asarray(vocabulary.special)[tokens_BxT] | (segments_BxT == 0)
    begins_BxT = jnp.ones_like(special_BxT)
    if options.whole_word:
        # Where a document was cut in the middle of a word, its rest is a word of the next piece.
        begins_BxT = jnp.asarray(vocabulary.begins_word)[tokens_BxT] | special_BxT
        begins_BxT |= (segments_BxT != _before(segments_BxT)) | _before(special_BxT)
    word_BxT = jnp.cumsum(begins_BxT, axis=1) - begins_BxT[:, :1].astype(jnp.int32)
    ordinary_O = jnp.asarray(np.flatnonzero(~vocabulary.special), jnp.int32)
    slots = options.slots(tokens_BxT.shape[1])

    def of_row(
        row: jax.Array, tokens_T: jax.Array, special_T: jax.Array, word_T: jax.Array
    ) -> Masked:
        order_key, kind_key, other_key = jax.random.split(jax.random.fold_in(key, row), 3)
        score_T = jax.random.uniform(order_key, tokens_T.shape)[word_T]
        order_T = jnp.argsort(jnp.where(special_T, 2.0, score_T), stable=True)
        candidates = jnp.sum(~special_T, dtype=jnp.int32)
        allowed = jnp.round(options.rate * candidates).astype(jnp.int32)
        # One token more than fits tells whether the last word is whole.
        word_N = jnp.append(word_T[order_T], -1)[: slots + 1]
        ends_M = (word_N[:-1] != word_N[1:]) & (jnp.arange(1, slots + 1) <= allowed)
        hidden = jnp.max(jnp.where(ends_M, jnp.arange(1, slots + 1), 0))
        hidden_M, place_M = jnp.arange(slots) < hidden, order_T[:slots]
        target_M = tokens_T[place_M]
        kind_M = jax.random.uniform(kind_key, (slots,))
        other_M = ordinary_O[jax.random.randint(other_key, (slots,), 0, len(ordinary_O))]
        shown_M = jnp.where(kind_M < _MASK + _RANDOM, other_M, target_M)
        shown_M = jnp.where(kind_M < _MASK, vocabulary.mask_id, shown_M)
        tokens_T = tokens_T.at[place_M].set(jnp.where(hidden_M, shown_M, target_M))
        return Masked(tokens_T, place_M.astype(jnp.int32), target_M, hidden_M, candidates)

    return jax.vmap(of_row)(row_B, tokens_BxT, special_BxT, word_BxT)


def _before(x_BxT: jax.Array) -> jax.Array:
    """What stands one token before; 0 before the first."""
    return jnp.pad(x_BxT[:, :-1], ((0, 0), (1, 0)))
