"""Words of a text as numbers: hashes of lower-case stems without accents, and of n-grams."""

import functools
import hashlib
import re
import unicodedata
from typing import NamedTuple

import numpy as np

# Letters or digits, or a mark that ends a sentence: n-grams do not cross it.
# A full stop or a colon between two letters or digits (`3.5`, `e.g`) ends nothing.
_PIECE = re.compile(r"([^\W_]+|[.:;!?](?=\s|$)|\n)")
_MARKS = frozenset(".:;!?\n")
_MULTIPLIER = np.uint64(
    0x9E3779B97F4A7C15
)  # 2^64 / golden ratio: the usual odd multiplier of Fibonacci hashing.


class Words(NamedTuple):
    """The n words of a text.

    Attributes:
      hashes: uint64[n], the hash of each stem.
      starts: int32[n], character offset of the word's start in the text.
      ends: int32[n], character offset after its end.
      sentences: int32[n], number of the sentence or line that the word stands in.
    """

    hashes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    sentences: np.ndarray


def stem(word: str, characters: int) -> str:
    """The word in lower case without accents, cut to `characters` characters (0: not cut).

    On CodiEsp, cutting does as well as Snowball stems and needs no language.
    """
    plain = unicodedata.normalize("NFKD", word.lower())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain[:characters] if characters else plain


@functools.lru_cache(maxsize=1 << 20)
def _stem_hash(word: str, characters: int) -> int:
    digest = hashlib.blake2b(stem(word, characters).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def words(text: str, characters: int) -> Words:
    """Finds the words of a text.

    Args:
      text: any text.
      characters: length of a stem, as in `stem`.

    Returns:
      The words in the order of the text.
    """
    parts = _PIECE.split(text)  # what is between the pieces, and the pieces, in turns
    pieces = parts[1::2]
    count = len(pieces)
    marks = np.fromiter(map(_MARKS.__contains__, pieces), bool, count)
    lengths = np.fromiter(map(len, parts), np.int32, len(parts))
    ends = np.cumsum(lengths, dtype=np.int32)[1::2]
    starts, sentences = ends - lengths[1::2], np.cumsum(marks, dtype=np.int32)
    is_word = ~marks
    hashes = [_stem_hash(piece, characters) for piece in pieces if piece not in _MARKS]
    return Words(np.array(hashes, np.uint64), starts[is_word], ends[is_word], sentences[is_word])


def ngrams(found: Words, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All n-grams of 1 to `longest` words that stay inside a sentence.

    Args:
      found: the words of a text.
      longest: words in the longest n-gram.

    Returns:
      The hash uint64[m] of each n-gram (of one word: that of the word), its first word int32[m]
      and its last word int32[m], shorter n-grams first.
    """
    count = len(found.hashes)
    running = found.hashes
    hashes, firsts, lasts = [], [], []
    for length in range(1, min(longest, count) + 1):
        if length > 1:  # the hash of what precedes, and of one more word: their order matters
            running = running[:-1] * _MULTIPLIER + found.hashes[length - 1 :]
            running ^= running >> np.uint64(29)
        first = np.arange(count - length + 1, dtype=np.int32)
        last = first + np.int32(length - 1)
        inside = found.sentences[first] == found.sentences[last]
        hashes.append(running[inside])
        firsts.append(first[inside])
        lasts.append(last[inside])
    if not hashes:
        return np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int32)
    return np.concatenate(hashes), np.concatenate(firsts), np.concatenate(lasts)
