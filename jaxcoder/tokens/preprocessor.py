"""Preprocessor: from contacts to token records, once everything has been fitted on training."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import Contact
from jaxcoder.tokens import evidence, labels
from jaxcoder.tokens.data import pack_characters
from jaxcoder.tokens.documents import Document, DocumentEncoder
from jaxcoder.tokens.lexicon import Lexicon, SilverOptions
from jaxcoder.tokens.report import SplitReport

_CHUNK = 64  # contacts tokenised at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessor:
    """Makes the records of any contacts, alike in whatever order and process: it can be pickled.

    Attributes:
      space: the label space; of a contact's codes and evidence nothing is read where it is empty.
      encoder: tokenizer and serialisation.
      lexicon: finds silver evidence; None for none.
      silver: which spans count.
    """

    space: LabelSpace
    encoder: DocumentEncoder
    lexicon: Lexicon | None
    silver: SilverOptions

    def records(
        self,
        contacts: Sequence[Contact],
        report: SplitReport,
        silver: bool,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The records of a range of contacts, in their order.

        Args:
          contacts: a split of contact records; no other than those of the range is read.
          report: counts the records; those of two ranges can be merged.
          silver: whether silver evidence is looked for: in training contacts alone.
          start: the first contact.
          stop: after the last; None for all.
        """
        stop = len(contacts) if stop is None else stop
        for first in range(start, stop, _CHUNK):
            chunk = contacts[first : min(first + _CHUNK, stop)]
            for contact, document in zip(chunk, self.encoder(chunk), strict=True):
                yield self.record(contact, document, report, silver)

    def record(
        self, contact: Contact, document: Document, report: SplitReport, silver: bool
    ) -> dict[str, Any]:
        """The record of a contact; arguments as of `records`, and the contact's document."""
        if not len(self.space):
            contact = dataclasses.replace(contact, codes=(), evidence=())
        gold = labels.gold(contact, self.space)
        spans = evidence.gold_spans(contact, document, self.space, report.evidence)
        rows = self._rows(spans, evidence.GOLD, gold.labels, document, report)
        if silver and self.lexicon is not None:
            found = self.silver_spans(contact, document.text)
            more = self._rows(found, evidence.SILVER, gold.labels, document, report)
            rows = np.concatenate([rows, more])
        report.add_codes(gold.by_code)
        return _record(contact, document, gold, rows, report)

    def annotated_record(
        self,
        name: str,
        spans: Sequence[tuple[str, int, int]],
        provenance: int,
        document: Document,
        report: SplitReport,
    ) -> dict[str, Any]:
        """The record of a text whose codes are those of its spans.

        Args:
          name: its contact_id.
          spans: codes with start and end character in the document's text.
          provenance: of the spans.
          document: the text.
          report: counts the record.
        """
        known = sorted({self.space.index[code] for code, _, _ in spans})
        gold = labels.Gold(np.array(known, np.int32), np.zeros(len(known), np.uint8), (), {})
        rows = self._rows(spans, provenance, gold.labels, document, report)
        return _record(Contact(name, ""), document, gold, rows, report)

    def silver_spans(self, contact: Contact, text: str) -> list[tuple[str, int, int]]:
        """The silver evidence of a contact in its text, see `Lexicon.silver_spans`."""
        if self.lexicon is None:
            return []
        codes = [
            code
            for code in labels.gold_codes(contact, self.space.granularity)
            if code in self.space.index
        ]
        return self.lexicon.silver_spans(text, sorted(codes), self.silver)

    def _rows(
        self,
        spans: Sequence[tuple[str, int, int]],
        provenance: int,
        gold_labels: np.ndarray,
        document: Document,
        report: SplitReport,
    ) -> np.ndarray:
        return evidence.token_evidence(
            spans, provenance, gold_labels, document, self.space, report.evidence
        )


def _record(
    contact: Contact,
    document: Document,
    gold: labels.Gold,
    rows: np.ndarray,
    report: SplitReport,
) -> dict[str, Any]:
    year = contact.start[:4]
    record = {
        "tokens": document.tokens,
        "labels": gold.labels,
        "roles": gold.roles,
        "missing": np.int32(len(gold.missing)),
        "missing_codes": np.array(gold.missing, dtype=object),
        "contact_id": contact.contact_id,
        "patient_id": contact.patient_id,
        "specialty": contact.specialty,
        "sex": contact.sex,
        "kind": contact.kind,
        "age": np.float32(-1 if contact.age is None else contact.age),
        "year": np.int32(year if year.isdecimal() else 0),
        "notes": np.int32(len(contact.notes)),
        "evidence": rows,
        "characters": pack_characters(document.offsets, document.segments),
    }
    report.add(record, document.tokens_cut)
    return record
