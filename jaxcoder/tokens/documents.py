"""Documents: contacts serialised, tokenised and cut, with the way back to their notes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxcoder.records.schema import Contact
from jaxcoder.tokens.serialise import SECTIONS, Serialised, SerialiseOptions, kept_tokens, serialise
from jaxcoder.tokens.tokenizer import Encoded, Tokenizer

_NOTES = SECTIONS.index("notes")


class Document(NamedTuple):
    """A contact as the coder reads it.

    Attributes:
      text: the serialised contact, whole.
      segments: of `Serialised`.
      tokens: int32 [n], start and end token included.
      offsets: int32 [n, 2], characters of each token in the text; those of the start token are
        [0, 0), those of the end token [len(text), len(text)).
      whole: the tokens' offsets before anything was cut, int32 [N, 2], without start and end.
      kept: int64 [n − 2], which of them stayed.
    """

    text: str
    segments: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray
    whole: np.ndarray
    kept: np.ndarray

    @property
    def tokens_cut(self) -> int:
        """How many tokens were too many."""
        return len(self.whole) - len(self.kept)

    def note_spans(self, spans: Iterable[tuple[int, int, int]]) -> list[tuple[int, int] | None]:
        """Where spans of notes stand in the text.

        Args:
          spans: of each its note, start and end character in it.

        Returns:
          Of each its start and end in the text; None where the note or a part of it is not there.
        """
        notes = {
            item: (first, last, source)
            for section, item, first, last, source in reversed(self.segments.tolist())
            if section == _NOTES
        }
        places: list[tuple[int, int] | None] = []
        for note, start, end in spans:
            first, last, source = notes.get(note, (0, 0, 0))
            begin, stop = first + start - source, first + end - source
            places.append((begin, stop) if first <= begin < stop <= last else None)
        return places

    def token_spans(self, spans: np.ndarray) -> np.ndarray:
        """The tokens of character spans of the text, from the first touched to the last.

        Args:
          spans: int [m, 2], start and end character.

        Returns:
          int64 [m, 2], first token and token after the last; −1 where one of them was cut away, or
          where a span touches none.
        """
        first = np.searchsorted(self.whole[:, 1], spans[:, 0], side="right")
        after = np.searchsorted(self.whole[:, 0], spans[:, 1], side="left")
        found = np.empty(spans.shape, np.int64)
        found[:, 0], found[:, 1] = first, after
        if self.tokens_cut:
            found = np.searchsorted(self.kept, found)
        # All of them stayed if as many as touched did.
        lost = (first >= after) | (found[:, 1] - found[:, 0] < after - first)
        found += 1  # the start token stands before them
        found[lost] = -1
        return found


class DocumentEncoder:
    """Makes documents of contacts."""

    def __init__(self, tokenizer: Tokenizer, options: SerialiseOptions) -> None:
        """Joins tokenizer and serialisation."""
        self.tokenizer, self.options = tokenizer, options

    def __call__(self, contacts: Sequence[Contact]) -> list[Document]:
        """Makes a document of each contact; several at once use all cores."""
        return self.join([serialise(contact, self.options) for contact in contacts])

    def join(self, texts: Sequence[Serialised]) -> list[Document]:
        """Makes documents of what has been serialised already."""
        encoded = self.tokenizer.encode([each.text for each in texts])
        return [self._document(*each) for each in zip(texts, encoded, strict=True)]

    def _document(self, serialised: Serialised, encoded: Encoded) -> Document:
        text, segments = serialised
        kept = kept_tokens(encoded.offsets, segments, self.options)
        stay = kept if len(kept) < len(encoded.ids) else slice(None)
        ids = np.empty(len(kept) + 2, np.int32)
        ids[0], ids[-1] = self.tokenizer.start_id, self.tokenizer.end_id
        ids[1:-1] = encoded.ids[stay]
        offsets = np.zeros((len(kept) + 2, 2), np.int32)
        offsets[1:-1], offsets[-1] = encoded.offsets[stay], len(text)
        return Document(text, segments, ids, offsets, encoded.offsets, kept)
