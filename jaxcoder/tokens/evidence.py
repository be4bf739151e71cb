"""Evidence: from characters of notes, or of the serialised text, to tokens of a document."""

import collections
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxcoder.records.codes import LabelSpace, roll_up
from jaxcoder.records.schema import Contact, Evidence
from jaxcoder.tokens.documents import Document

GOLD, SILVER = 0, 1
"""Provenance of evidence: annotated, or found by counting on the training split."""

PROVENANCES = ("gold", "silver")


class EvidenceCounts:
    """What became of the spans of a split.

    Attributes:
      spans: by provenance and fate: `kept`, `cut` (a token of it, its section or its note is not
        in the document), `outside_label_space`, `not_coded` (the contact has no such code).
      labels: labels with a kept span, by provenance.
    """

    def __init__(self) -> None:
        self.spans = {name: collections.Counter[str]() for name in PROVENANCES}
        self.labels = collections.Counter[str]()

    def add(self, provenance: int, fate: str) -> None:
        """Counts a span."""
        self.spans[PROVENANCES[provenance]][fate] += 1

    def merge(self, other: "EvidenceCounts") -> None:
        """Adds the counts of other records."""
        for name, fates in other.spans.items():
            self.spans[name].update(fates)
        self.labels.update(other.labels)


def gold_spans(
    contact: Contact, document: Document, space: LabelSpace, counts: EvidenceCounts
) -> list[tuple[str, int, int]]:
    """The annotated spans of a contact.

    Args:
      contact: with evidence.
      document: the same contact.
      space: codes outside it are counted and dropped.
      counts: counts what is dropped.

    Returns:
      Codes, rolled up, with start and end character in the document's text, in the contact's order.
    """
    spans = []
    codes = [code for code, _ in rolled_up(contact, space.granularity)]
    places = document.note_spans((row.note, row.start, row.end) for row in contact.evidence)
    for code, place in zip(codes, places, strict=True):
        if code not in space.index:
            counts.add(GOLD, "outside_label_space")
        elif place is None:
            counts.add(GOLD, "cut")
        else:
            spans.append((code, *place))
    return spans


def rolled_up(contact: Contact, granularity: str) -> Iterator[tuple[str, Evidence]]:
    """The annotated evidence of a contact, each row with its code at a granularity."""
    systems = {row.code: row.system for row in contact.codes}
    for row in contact.evidence:
        yield roll_up(row.code, granularity, systems.get(row.code, "")), row


def mentions(contact: Contact, granularity: str) -> list[tuple[str, int, list[tuple[int, int]]]]:
    """The annotated mentions of a contact.

    Returns:
      Of each its code at the granularity, its note (index in time order), and start and end
      character of its pieces, which stand for the code together: `carcinoma … of the lung`.
    """
    pieces = collections.defaultdict[tuple[int, int, str], list[tuple[int, int]]](list)
    for code, row in rolled_up(contact, granularity):
        pieces[row.mention, row.note, code].append((row.start, row.end))
    return [(code, note, places) for (_, note, code), places in pieces.items()]


def token_evidence(
    spans: Iterable[tuple[str, int, int]],
    provenance: int,
    labels: np.ndarray,
    document: Document,
    space: LabelSpace,
    counts: EvidenceCounts,
) -> np.ndarray:
    """Turns character spans into token spans.

    Args:
      spans: code, start and end character in the document's text.
      provenance: of all of them.
      labels: of the contact.
      document: it.
      space: what the codes' labels are.
      counts: counts them.

    Returns:
      int32 [m, 4]: label, first token, token after the last, provenance; each once, in order.
    """
    known = set(labels.tolist())
    spans = list(spans)
    places = document.token_spans(np.array([span[1:] for span in spans], np.int64).reshape(-1, 2))
    rows = []
    for (code, _, _), (first, after) in zip(spans, places.tolist(), strict=True):
        label = space.index.get(code, -1)
        if label < 0:
            counts.add(provenance, "outside_label_space")
        elif label not in known:
            counts.add(provenance, "not_coded")
        elif first < 0:
            counts.add(provenance, "cut")
        else:
            counts.add(provenance, "kept")
            rows.append((label, first, after, provenance))
    rows = list(dict.fromkeys(rows))
    counts.labels[PROVENANCES[provenance]] += len({row[0] for row in rows})
    return np.array(rows, np.int32).reshape(-1, 4)


def characters(record: Mapping[str, Any], provenance: str) -> list[tuple[int, int, int]]:
    """The evidence of a token record in characters of the document's text.

    Args:
      record: of `TokenData.split`.
      provenance: `gold` or `silver`.

    Returns:
      Label, start and end character of each span; a span's ends are those of its tokens.
    """
    wanted, offsets = PROVENANCES.index(provenance), record["offsets"]
    return [
        (label, int(offsets[first, 0]), int(offsets[after - 1, 1]))
        for label, first, after, kind in record["evidence"].tolist()
        if kind == wanted
    ]
