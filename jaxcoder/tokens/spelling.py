"""Words that are spelled alike across languages: medicine writes Greek and Latin in all of them."""

import functools
import re

from jaxcoder.tokens.stems import stem

# Greek and Latin letters that languages write differently: haemorrhage, hemorragia, Hämorrhagie.
_SPELLINGS = (
    ("ph", "f"), ("th", "t"), ("rh", "r"), ("ch", "c"), ("qu", "c"), ("k", "c"), ("y", "i"),
    ("ae", "e"), ("oe", "e"), ("h", ""), ("x", "s"), ("z", "c"), ("sc", "c"), ("w", "v"),
)  # fmt: skip
_DOUBLED = re.compile(r"(.)\1")
_WORD = re.compile(r"[^\W\d_]{3,}")
SHORTEST = 4
"""Letters that two words must have in common at their beginning to be alike."""


@functools.lru_cache(maxsize=1 << 17)
def spelled(word: str) -> str:
    """A word as cognates are all spelled: `hydronephrosis` and `hidronefrosis` are one."""
    word = stem(word, 0)
    for old, new in _SPELLINGS:
        word = word.replace(old, new)
    return _DOUBLED.sub(r"\1", word)


def description_words(description: str) -> tuple[str, ...]:
    """The words of a description, of three letters or more, as `spelled`, each once."""
    return tuple(dict.fromkeys(filter(None, map(spelled, _WORD.findall(description)))))


def likeness(one: str, other: str) -> float:
    """How alike two words are, from 0 to 1.

    Args:
      one: a word as `spelled` gives it.
      other: likewise.

    Returns:
      The share of the shorter word, less two letters of ending, that both begin with; 0 where that
      is fewer than `SHORTEST` letters.
    """
    shorter = min(len(one), len(other))
    same = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    return min(1.0, same / max(SHORTEST, shorter - 2)) if same >= SHORTEST else 0.0
