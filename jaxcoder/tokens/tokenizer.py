"""The tokenizer: byte-level BPE trained on the training split, or one loaded from a folder."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from etils import epath
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from jaxcoder.errors import UserError
from jaxcoder.records.schema import SCORED
from jaxcoder.tokens.pieces import Pieces, are_independent, arrays
from jaxcoder.tokens.words import Vocabulary, vocabulary
from jaxcoder.whole_file import write_bytes

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
"""Of a tokenizer trained here; a token's index is its id."""

_FILE, _CONFIG = "tokenizer.json", "tokenizer_config.json"
_REMEDY = (
    "expected the folder of a Hugging Face fast tokenizer; from older ones (vocab.txt, merges.txt) "
    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OTHER) of transformers makes one"
)


@dataclasses.dataclass(frozen=True)
class TokenizerOptions:
    """Which tokenizer.

    Attributes:
      path: folder of a Hugging Face fast tokenizer (`tokenizer.json`); empty trains one, and then
        the other options count.
      vocab_size: tokens at most, special ones and the 256 bytes included.
      lowercase: whether text is lower-cased; accents are kept.
      train_contacts: contacts that it is trained on at most, evenly spaced; 0 for all.
      splits: of which splits; never those that are scored.
    """

    path: str = ""
    vocab_size: int = 8000
    lowercase: bool = True
    train_contacts: int = 50_000
    splits: tuple[str, ...] = ("train",)

    def __post_init__(self) -> None:
        least = 256 + len(SPECIAL_TOKENS)
        if self.vocab_size < least:
            raise ValueError(f"vocab_size = {self.vocab_size}: expected at least {least}")
        if self.train_contacts < 0:
            raise ValueError(f"train_contacts = {self.train_contacts}: expected 0 (all) or more")
        if not self.splits or set(self.splits) & set(SCORED):
            raise ValueError(
                f"splits = {list(self.splits)}: expected at least one, and none of those that are "
                f"scored, {' and '.join(SCORED)}"
            )


class Encoded(NamedTuple):
    """A text in tokens, without start and end token.

    Attributes:
      ids: int32 [n].
      offsets: int32 [n, 2], start and end character of each token in the text. The tokens of a
        character that takes several all have its offsets.
    """

    ids: np.ndarray
    offsets: np.ndarray


class Tokenizer:
    """A Hugging Face fast tokenizer, with the ids that a coder needs.

    Attributes:
      pad_id: id of the padding token.
      start_id: of the token that every document starts with.
      end_id: of the token that every document ends with.
      vocab_size: highest id + 1.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        pad_id: int,
        start_id: int,
        end_id: int,
        config: dict[str, Any],
    ) -> None:
        """Joins the parts; use `train_tokenizer` or `load_tokenizer`."""
        backend.no_truncation()  # contacts are cut by section, and padded in batches
        backend.no_padding()
        backend.encode_special_tokens = True  # `</s>` in a note is text, and ends nothing
        self._backend, self._config = backend, config
        self.pad_id, self.start_id, self.end_id = pad_id, start_id, end_id
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self._pieces = Pieces(backend) if are_independent(backend) else None

    def __reduce__(self) -> tuple[Any, ...]:
        """As workers get it: without what it remembers of texts."""
        parts = self._backend, self.pad_id, self.start_id, self.end_id, self._config
        return Tokenizer, parts

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Encodes several texts at once."""
        if self._pieces is None:
            return self._encode_whole(texts)
        ids, offsets, edges = self._pieces.encode(texts)
        return [
            Encoded(ids[start:end], offsets[start:end])
            for start, end in itertools.pairwise(edges.tolist())
        ]

    def _encode_whole(self, texts: Sequence[str]) -> list[Encoded]:
        """Encodes them without what is remembered, on all cores."""
        encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [Encoded(*arrays(each)) for each in encoded]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of some tokens; special tokens leave none."""
        return self._backend.decode([int(each) for each in ids])

    def vocabulary(self) -> Vocabulary:
        """Where its words begin, and which tokens are no text."""
        return vocabulary(self._backend, self._config)

    def save(self, folder: epath.PathLike) -> None:
        """Writes a folder that `load_tokenizer`, and `AutoTokenizer` of transformers, read."""
        for name, content in self.files().items():
            write_bytes(epath.Path(folder) / name, content)

    def files(self) -> dict[str, bytes]:
        """What `save` writes, by the names of files."""
        config = json.dumps(self._config, ensure_ascii=False, indent=1) + "\n"
        return {_FILE: self._backend.to_str(pretty=True).encode(), _CONFIG: config.encode()}


def train_tokenizer(texts: Iterable[str], options: TokenizerOptions) -> Tokenizer:
    """Trains byte-level BPE.

    Args:
      texts: serialised contacts.
      options: vocabulary size and case.

    Returns:
      The tokenizer; it depends on the texts and the options alone.
    """
    backend = tokenizers.Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[3]))
    # NFC so that é is one token however a hospital writes it; offsets stay those of the source.
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if options.lowercase else [])]
    backend.normalizer = normalizers.Sequence(steps)
    # Words and punctuation apart, each with a space before it: `fever`, `(fever` and `fever` at the
    # start of a line are one token. On CodiEsp that makes 2.4 % fewer tokens than plain byte-level
    # BPE, and what is learnt of a word in one place holds in all.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    pad, start, end, unknown, mask = SPECIAL_TOKENS
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B {end}",
        special_tokens=[(start, 1), (end, 2)],
    )
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "bos_token": start,
        "cls_token": start,
        "eos_token": end,
        "sep_token": end,
        "unk_token": unknown,
        "mask_token": mask,
        "clean_up_tokenization_spaces": False,
    }
    return Tokenizer(backend, 0, 1, 2, config)


def load_tokenizer(folder: epath.PathLike) -> Tokenizer:
    """Loads the tokenizer of a folder.

    Args:
      folder: with `tokenizer.json` and, where it lies beside, `tokenizer_config.json`.

    Returns:
      The tokenizer. Its start and end token are those that it puts around a text, or else its
      configuration's `cls_token`/`bos_token` and `sep_token`/`eos_token`.

    Raises:
      UserError: no such file, not a fast tokenizer, or one without padding, start or end token.
    """
    folder = epath.Path(folder)
    path = folder / _FILE
    if not path.exists():
        raise UserError(f"{path}: not found; {_REMEDY}")
    config: dict[str, Any] = {}
    try:
        text = path.read_text()
        backend = tokenizers.Tokenizer.from_str(text)
        for name in ("special_tokens_map.json", _CONFIG):
            if (folder / name).exists():
                config |= json.loads((folder / name).read_text())
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(
            f"{path}: cannot be read ({' '.join(str(error).split())}); {_REMEDY}"
        ) from None
    around = backend.encode("").ids
    padding = backend.padding or {}

    def find(role: str, known: int | None, *keys: str) -> int:
        if known is not None:
            return known
        for key in keys:
            token = config.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            number = backend.token_to_id(token) if isinstance(token, str) else None
            if number is not None:
                return number
        raise UserError(f"{path}: has no {role} token; set {keys[0]} in {folder / _CONFIG}")

    first, last = around if len(around) == 2 else (None, None)
    pad = find("padding", padding.get("pad_id"), "pad_token")
    start = find("start", first, "cls_token", "bos_token")
    end = find("end", last, "sep_token", "eos_token")
    return Tokenizer(backend, pad, start, end, config)
