"""Mini-documents as documents: what strings they are made of, and how long they get."""

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import Contact
from jaxcoder.tokens import minidocs
from jaxcoder.tokens.documents import Document, DocumentEncoder
from jaxcoder.tokens.evidence import mentions
from jaxcoder.tokens.minidocs import Fragment, MiniDocuments, MiniOptions, Span
from jaxcoder.tokens.serialise import SECTIONS, Serialised, serialise

_CHUNK = 256  # mini-documents tokenised at a time


class Strings(NamedTuple):
    """Where the strings of mini-documents come from.

    Attributes:
      contacts: training contacts, read once.
      table: code → (billable, short description, long description).
      space: the codes that count.
      silver: from a contact and its serialised text to silver spans in the text.
      encoder: serialises.
    """

    contacts: Iterable[Contact]
    table: Mapping[str, tuple[bool, str, str]]
    space: LabelSpace
    silver: Callable[[Contact, str], list[Span]]
    encoder: DocumentEncoder

    def fragments(self, options: MiniOptions) -> Iterator[Fragment]:
        """The strings of the sources in `options`, each with its code in the label space."""
        if "descriptions" in options.sources:
            yield from minidocs.descriptions(self.table, self.space.codes)
        if not {"evidence", "silver"} & set(options.sources):
            return
        for contact in self.contacts:
            if "evidence" in options.sources and "notes" in self.encoder.options.sections:
                yield from self._mentions(contact, options.context)
            if "silver" in options.sources:
                text = serialise(contact, self.encoder.options).text
                yield from minidocs.mentions(text, self.silver(contact, text), options.context)

    def _mentions(self, contact: Contact, context: int) -> Iterator[Fragment]:
        """The annotated mentions of a contact."""
        whole: dict[int, list[Span]] = collections.defaultdict(list)
        for code, note, places in mentions(contact, self.space.granularity):
            if code not in self.space.index:
                continue
            if len(places) == 1:
                whole[note].append((code, *places[0]))
                continue
            # A piece alone ("of the lung") does not stand for the code.
            text = contact.notes[note].text
            yield minidocs.mention(" ".join(text[start:end] for start, end in places), code)
        for note, spans in whole.items():
            yield from minidocs.mentions(contact.notes[note].text, spans, context)


class Filled:
    """Mini-documents that are filled up to one length, so that one bucket holds all of them.

    As drawn, their lengths vary by a factor of ten. With 4 of them for each contact of CodiEsp, 8
    buckets and 4,096 tokens a batch, the padding of contacts and mini-documents together is 21 % of
    the tokens as drawn and 10 % filled up to 128.
    """

    def __init__(
        self,
        fragments: Iterable[Fragment],
        options: MiniOptions,
        tokens: int,
        count: int,
        encoder: DocumentEncoder,
    ) -> None:
        """Weighs the fragments.

        Args:
          fragments: what is joined.
          options: how.
          tokens: length to fill up to, start and end token included; 0 leaves them as drawn.
          count: number of mini-documents.
          encoder: makes documents.
        """
        fragments = list(fragments)
        self._drawn = MiniDocuments(fragments, options, count)
        self._encoder, self._tokens = encoder, tokens
        if tokens and len(self._drawn):
            sample = [self._drawn[number] for number in range(min(_CHUNK, len(self._drawn)))]
            pairs = sum(len(each.spans) for each in sample)
            mean = sum(len(each.tokens) - 2 for each in self._encode(sample)) / max(1, pairs)
            # Half as many again as go in on average: few are left too short.
            drawn = max(1, math.ceil(1.5 * tokens / max(mean, 1)))
            options = dataclasses.replace(options, min_pairs=drawn, max_pairs=drawn)
            self._drawn = MiniDocuments(fragments, options, count)

    def __len__(self) -> int:
        return len(self._drawn)

    def documents(self) -> Iterator[tuple[Fragment, Document]]:
        """Every mini-document, in order: its text with its spans, and the same in tokens."""
        for start in range(0, len(self), _CHUNK):
            numbers = range(start, min(start + _CHUNK, len(self)))
            fragments = [self._drawn[number] for number in numbers]
            if self._tokens:
                fragments = [
                    _fitted(fragment, document, self._tokens - 2)
                    for fragment, document in zip(fragments, self._encode(fragments), strict=True)
                ]
            yield from zip(fragments, self._encode(fragments), strict=True)

    def _encode(self, fragments: Iterable[Fragment]) -> list[Document]:
        return self._encoder.join([_one_segment(fragment.text) for fragment in fragments])


def _fitted(fragment: Fragment, document: Document, room: int) -> Fragment:
    """The pieces of a fragment, one after the other, that fit in `room` tokens; at least one.

    Args:
      fragment: many pieces joined.
      document: the same in tokens.
      room: tokens without start and end.
    """
    if len(document.whole) <= room:
        return fragment
    starts, reach = [], -1  # of pieces; spans that overlap belong to one
    for _, start, end in sorted(fragment.spans, key=lambda span: span[1]):
        if start >= reach:
            starts.append(start)
        reach = max(reach, end)
    starts[0] = 0
    edges = [*starts, len(fragment.text)]
    sizes = np.diff(np.searchsorted(document.whole[:, 0], edges)).tolist()
    text, spans, skipped = "", [], 0
    for place, size in enumerate(sizes):
        if size > room and (text or place < len(sizes) - 1):
            # A shorter one may still fit; but too long a search would favour short pieces.
            skipped += bool(text)
            if skipped > 3:
                break
            continue
        first, after = edges[place], edges[place + 1]
        moved = len(text) - first
        spans += [
            (code, start + moved, end + moved)
            for code, start, end in fragment.spans
            if first <= start < after
        ]
        text += fragment.text[first:after]
        room -= size
    # What follows the last span, be it a separator, is left out.
    return Fragment(text[: max(end for _, _, end in spans)], tuple(spans))


def _one_segment(text: str) -> Serialised:
    """A text that is no contact's, as if it were one note."""
    segment = (SECTIONS.index("notes"), 0, 0, len(text), 0)
    return Serialised(text, np.array([segment], np.int32))
