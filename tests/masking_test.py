import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxcoder import masking
from jaxcoder.masking import MaskingOptions, Vocabulary

PAD, START, END, MASK = 0, 1, 2, 3
SIZE = 1000
# Ids from 4 on: those that 3 divides continue a word, the others begin one.
VOCABULARY = Vocabulary(np.arange(SIZE) % 3 != 0, np.arange(SIZE) < 4, MASK)


def make_rows(rows=64, length=128, seed=0):
    """Two documents a row, each with start and end token, then padding; all tokens differ."""
    rng = np.random.default_rng(seed)
    tokens = np.stack([4 + rng.permutation(SIZE - 4)[:length] for _ in range(rows)])
    segments = np.zeros((rows, length), np.int32)
    for row in range(rows):
        middle, end = rng.integers(20, length // 2), rng.integers(length - 20, length + 1)
        segments[row, :middle], segments[row, middle:end] = 1, 2
        tokens[row, [0, middle]], tokens[row, [middle - 1, end - 1]] = START, END
        tokens[row, end:] = PAD
    return tokens.astype(np.int32), segments


def words_of(tokens, segments):
    """The words of a row by hand: lists of places. Special tokens and padding are in none."""
    words, before = [], (0, True)
    for place, (token, segment) in enumerate(zip(tokens, segments, strict=True)):
        special = token < 4 or segment == 0
        if not special:
            if token % 3 or before != (segment, False):
                words.append([])
            words[-1].append(place)
        before = (segment, special)
    return words


@functools.partial(jax.jit, static_argnums=4)
def jitted(key, numbers, tokens, segments, options):
    return masking.mask(jax.random.key(key), numbers, tokens, segments, VOCABULARY, options)


def mask(tokens, segments, key=0, numbers=None, **options):
    numbers = np.arange(len(tokens), dtype=np.int32) if numbers is None else numbers
    masked = jitted(key, numbers, tokens, segments, MaskingOptions(**options))
    return jax.tree.map(np.asarray, masked)


def hidden_places(masked, row):
    return set(masked.place_BxM[row][masked.hidden_BxM[row]].tolist())


@pytest.mark.parametrize("rate", [0.15, 0.3])
@pytest.mark.parametrize("whole_word", [True, False])
def test_as_many_are_hidden_as_the_rate_says_and_whole_words_alone(rate, whole_word):
    tokens, segments = make_rows()
    masked = mask(tokens, segments, rate=rate, whole_word=whole_word)
    shares, broken = [], 0
    for row in range(len(tokens)):
        words = words_of(tokens[row], segments[row])
        candidates = sum(map(len, words))
        hidden = hidden_places(masked, row)
        assert masked.candidates_B[row] == candidates
        assert hidden <= {place for word in words for place in word}, "special tokens are shown"
        longest = max(map(len, words)) if whole_word else 1
        assert round(rate * candidates) - longest < len(hidden) <= round(rate * candidates)
        shares.append(len(hidden) / candidates)
        broken += sum(0 < len(hidden & set(word)) < len(word) for word in words)
    assert np.mean(shares) == pytest.approx(rate, abs=0.02)
    assert (broken == 0) == whole_word


def test_targets_are_the_tokens_and_the_rest_is_as_it_was():
    tokens, segments = make_rows()
    masked = mask(tokens, segments)
    for row in range(len(tokens)):
        hidden = masked.hidden_BxM[row]
        places = masked.place_BxM[row][hidden]
        np.testing.assert_array_equal(masked.target_BxM[row][hidden], tokens[row][places])
        shown = np.setdiff1d(np.arange(tokens.shape[1]), places)
        np.testing.assert_array_equal(masked.tokens_BxT[row][shown], tokens[row][shown])


def test_eighty_ten_ten():
    tokens, segments = make_rows()
    rows = np.arange(len(tokens))[:, None]
    drawn = [mask(tokens, segments, key) for key in range(4)]
    shown = np.concatenate([m.tokens_BxT[rows, m.place_BxM][m.hidden_BxM] for m in drawn])
    target = np.concatenate([m.target_BxM[m.hidden_BxM] for m in drawn])
    # 8,000 draws: the standard deviation of a share is half a per cent at most.
    assert np.mean(shown == MASK) == pytest.approx(0.8, abs=0.02)
    assert np.mean(shown == target) == pytest.approx(0.1, abs=0.015)
    other = shown[(shown != MASK) & (shown != target)]
    assert len(other) / len(shown) == pytest.approx(0.1, abs=0.015)
    assert other.min() >= 4 and len(np.unique(other)) > 0.4 * len(other), "any, but no special one"


def test_every_token_is_as_likely_to_be_hidden():
    tokens, segments = make_rows()
    counts = np.zeros(tokens.shape)
    for key in range(200):
        masked = mask(tokens, segments, key, rate=0.3, whole_word=False)
        for row in range(len(tokens)):
            counts[row, list(hidden_places(masked, row))] += 1
    shares = counts[(tokens >= 4) & (segments > 0)] / 200
    assert shares.mean() == pytest.approx(0.3, abs=0.01)
    assert np.all(np.abs(shares - 0.3) < 5 * (0.3 * 0.7 / 200) ** 0.5)


def test_key_and_number_of_a_row_decide_its_masks_wherever_it_stands():
    tokens, segments = make_rows()
    whole = mask(tokens, segments)
    order = np.arange(len(tokens), dtype=np.int32)[::-1]
    part = mask(tokens[order], segments[order], numbers=order)
    np.testing.assert_array_equal(part.tokens_BxT, whole.tokens_BxT[order])
    assert np.any(mask(tokens, segments, key=1).tokens_BxT != whole.tokens_BxT)
    assert hidden_places(mask(tokens, segments, numbers=order), 0) != hidden_places(whole, 0)


def test_rows_of_padding_and_a_word_that_does_not_fit_show_all():
    tokens, segments = make_rows()
    segments[0] = 0
    tokens[1], segments[1] = 6, 1  # one word of a whole row
    masked = mask(tokens, segments)
    assert not masked.hidden_BxM[:2].any() and masked.hidden_BxM[2:].any(axis=1).all()
    assert masked.candidates_B[:2].tolist() == [0, 128]
    np.testing.assert_array_equal(masked.tokens_BxT[:2], tokens[:2])


def test_logits_are_computed_for_no_more_than_the_rate():
    assert MaskingOptions(rate=0.3).slots(256) == 77
    assert mask(*make_rows()).place_BxM.shape == (64, 39)
    with pytest.raises(ValueError, match="rate = 1.0: expected a share between 0 and 1"):
        dataclasses.replace(MaskingOptions(), rate=1.0)
