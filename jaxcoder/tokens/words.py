"""Words in a vocabulary: which tokens begin one, and which are no text at all."""

import json
import string
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from jaxcoder.errors import UserError

_MASKS = ("<mask>", "[MASK]")
# White space as byte-level BPE writes it: the bytes of a space, a line end, a tab, a return.
_BYTE_SPACES = "ĠĊĉč"
_MARKS = string.punctuation
_CUTTING = {"Whitespace", "BertPreTokenizer", "Punctuation"}


class Vocabulary(NamedTuple):
    """What masked language modelling has to know of V token ids.

    Attributes:
      begins_word: bool [V], tokens that begin a word; an ASCII punctuation mark is one of its own.
        None where the vocabulary does not tell.
      special: bool [V], tokens that no text has, ids without a token among them.
      mask_id: the token that stands where another is hidden; −1 for none.
    """

    begins_word: np.ndarray | None
    special: np.ndarray
    mask_id: int


def vocabulary(backend: tokenizers.Tokenizer, config: dict[str, Any]) -> Vocabulary:
    """Reads a tokenizer.

    Args:
      backend: the tokenizer.
      config: of its `tokenizer_config.json`: its `mask_token`.
    """
    numbers = backend.get_vocab(with_added_tokens=True)
    size = max(numbers.values()) + 1
    special = np.ones(size, bool)
    special[list(numbers.values())] = False
    parts = json.loads(backend.to_str())
    special[[token["id"] for token in parts["added_tokens"] if token["special"]]] = True
    begins = None
    if begins_word := _test(parts):
        begins = np.zeros(size, bool)
        begins[[number for token, number in numbers.items() if begins_word(token)]] = True
    named = config.get("mask_token") or ""
    masks = (str(named["content"] if isinstance(named, dict) else named), *_MASKS)
    return Vocabulary(
        begins, special, next((numbers[each] for each in masks if each in numbers), -1)
    )


def check(vocabulary: Vocabulary, whole_word: bool) -> None:
    """Checks that words of a vocabulary can be masked.

    Raises:
      UserError: it has no mask token, or does not tell where words begin.
    """
    if vocabulary.mask_id < 0:
        raise UserError(
            "config.tokens.tokenizer: has no mask token; expected one of its tokens as mask_token "
            "in its tokenizer_config.json"
        )
    if whole_word and vocabulary.begins_word is None:
        raise UserError(
            "config.masking.whole_word = True: the tokenizer's vocabulary does not tell where a "
            "word begins; expected WordPiece, byte-level BPE or SentencePiece; set it to False"
        )


def _test(parts: dict[str, Any]) -> Callable[[str], bool] | None:
    """Whether a token begins a word, by how it is written; None where that does not tell."""
    if parts["model"]["type"] == "WordPiece":
        prefix = parts["model"]["continuing_subword_prefix"]
        return lambda token: not token.startswith(prefix)
    cuts = dict(_steps(parts["pre_tokenizer"]))
    steps = dict(_steps(parts["decoder"])) | cuts
    if "Metaspace" in steps:
        return lambda token: token.startswith((steps["Metaspace"]["replacement"], *_MARKS))
    if "ByteLevel" in steps:
        # Where marks are cut off first, each has the space of a word before it.
        spaced = _CUTTING & cuts.keys() and steps["ByteLevel"].get("add_prefix_space")
        return lambda token: token.startswith((*_BYTE_SPACES, *("" if spaced else _MARKS)))
    return None


def _steps(part: dict[str, Any] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Type and options of the steps of a part of a tokenizer."""
    if part is not None:
        yield part["type"], part
        for step in part.get("pretokenizers", part.get("decoders", ())):
            yield from _steps(step)
