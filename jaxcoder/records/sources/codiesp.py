"""CodiEsp v4 (CLEF eHealth 2020): Spanish clinical cases with ICD-10 codes, as on Zenodo.

Miranda-Escalada et al., 2020, https://doi.org/10.5281/zenodo.3837305. What it does not have
(specialty, age, sex, roles, medications, laboratory results) is unknown or empty in the contacts.
"""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from jaxcoder import settings
from jaxcoder.errors import UserError
from jaxcoder.records import codes as icd
from jaxcoder.records.findings import Findings
from jaxcoder.records.runner import Runner
from jaxcoder.records.schema import Code, Contact, Evidence, Note
from jaxcoder.records.sources import Part, Source, fingerprint

_FOLDERS = {"train": "train", "validation": "dev", "test": "test", "background": "background"}
_TEXTS = {"es": "text_files", "en": "text_files_en"}
_KINDS = {"D": "DIAGNOSTICO", "P": "PROCEDIMIENTO"}
_SYSTEMS = {"D": "icd10cm", "P": "icd10pcs"}

_Mention = tuple[str, str, list[tuple[int, int]]]
"""Code as written, mention string, pieces [start, end) in characters of the text."""


@dataclasses.dataclass(frozen=True)
class CodiEspOptions:
    """Options of the source.

    Attributes:
      language: `es` for the original, with evidence spans, or `en` for its machine translation,
        without.
      codes: `D` for ICD-10-CM diagnoses, `P` for ICD-10-PCS procedures.
    """

    language: str = "es"
    codes: str = "D"

    def __post_init__(self) -> None:
        if self.language not in _TEXTS:
            raise ValueError(f"language = {self.language!r}: expected es or en")
        if self.codes not in _KINDS:
            raise ValueError(f"codes = {self.codes!r}: expected D (diagnoses) or P (procedures)")


class CodiEsp(Source):
    """Splits `train`, `validation` (folder dev); `test` and `background` (no codes) if present."""

    def __init__(self, source_dir: epath.Path, options: Mapping[str, Any]) -> None:
        self._folder = source_dir
        self._options = settings.build(CodiEspOptions, options, "codiesp")
        self.name = f"codiesp_{self._options.language}_{self._options.codes}"
        for needed in ("train", "dev"):
            if not (source_dir / needed / _TEXTS[self._options.language]).is_dir():
                raise UserError(
                    f"{source_dir}: no folder {needed}/{_TEXTS[self._options.language]}; expected "
                    "the folder final_dataset_v4_to_publish of the CodiEsp archive"
                )
        self._splits = tuple(
            split for split, folder in _FOLDERS.items() if (source_dir / folder).is_dir()
        )

    @property
    def identity(self) -> Mapping[str, Any]:
        """Source, options and the state of every file that is read."""
        paths = [path for split in self._splits for path in self._texts(split)]
        paths += [
            path
            for split in self._splits
            for path in (self._folder / _FOLDERS[split]).glob("*.tsv")
        ]
        options = dataclasses.asdict(self._options)
        return {"source": "codiesp", "options": options, "files": fingerprint(self._folder, paths)}

    def parts(self, runner: Runner) -> tuple[Mapping[str, Sequence[Part]], Findings]:
        """One part a split: its documents in the order of their names."""
        del runner  # a few thousand files
        parts = {split: [functools.partial(self._documents, split)] for split in self._splits}
        return parts, Findings()

    def _documents(self, split: str, dropped: Findings) -> Iterator[Contact]:
        """The documents of a split; annotations that do not fit are counted."""
        labelled = split != "background"
        paths = self._texts(split)
        known = {path.name.removesuffix(".txt") for path in paths}
        codes = self._codes(split, known, dropped) if labelled else {}
        mentions = (
            self._mentions(split, known) if labelled and self._options.language == "es" else {}
        )
        for path in paths:
            document = path.name.removesuffix(".txt")
            try:
                # Bytes, because reading as text would turn \r\n into \n and move the offsets.
                text = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: not UTF-8 at byte {error.start}; expected the published file"
                ) from None
            if not text.strip():
                raise UserError(
                    f"{path}: empty text; expected a clinical case; unpack the archive again"
                )
            found = codes.get(document, ())
            yield Contact(
                contact_id=document,
                patient_id=document,  # A document is one case report of one patient.
                notes=(Note(text=text),),
                codes=found,
                evidence=self._evidence(
                    document,
                    text,
                    mentions.get(document, ()),
                    {code.code for code in found},
                    dropped,
                ),
            )

    def _texts(self, split: str) -> list[epath.Path]:
        folder = self._folder / _FOLDERS[split] / _TEXTS[self._options.language]
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; expected the texts of split {split}")
        return sorted(folder.glob("*.txt"), key=lambda path: path.name)

    def _rows(self, split: str, kind: str, columns: int) -> Iterator[tuple[str, list[str]]]:
        """Rows of a published table, each with a name for messages: `FILE, row N`."""
        path = self._folder / _FOLDERS[split] / f"{_FOLDERS[split]}{kind}.tsv"
        if not path.exists():
            raise UserError(f"{path}: no such file; expected the layout of the CodiEsp archive")
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if not line.strip():
                continue
            row = line.rstrip("\r").split("\t")
            if len(row) != columns:
                raise UserError(
                    f"{path}, row {number}: {len(row)} columns; expected {columns} between tabs"
                )
            yield f"{path}, row {number}", row

    def _codes(self, split: str, known: set[str], dropped: Findings) -> dict[str, tuple[Code, ...]]:
        system = _SYSTEMS[self._options.codes]
        codes: dict[str, dict[str, Code]] = collections.defaultdict(dict)
        for where, (document, written) in self._rows(split, self._options.codes, 2):
            if document not in known:
                raise UserError(
                    f"{where}: document {document!r} has no text file; unpack the archive again"
                )
            try:
                code = icd.normalise(written, system)
            except ValueError:
                dropped.add_failed_code(system, written, document)
                continue
            codes[document].setdefault(code, Code(code, system))
        return {document: tuple(found.values()) for document, found in codes.items()}

    def _mentions(self, split: str, known: set[str]) -> dict[str, list[_Mention]]:
        mentions: dict[str, list[_Mention]] = collections.defaultdict(list)
        for where, (document, kind, code, mention, offsets) in self._rows(split, "X", 5):
            if document not in known:
                raise UserError(
                    f"{where}: document {document!r} has no text file; unpack the archive again"
                )
            if kind not in _KINDS.values():
                raise UserError(f"{where}: kind {kind!r}; expected {' or '.join(_KINDS.values())}")
            if kind != _KINDS[self._options.codes]:
                continue
            try:
                pieces = [
                    (int(start), int(end))
                    for start, end in (piece.split() for piece in offsets.split(";"))
                ]
            except ValueError:
                raise UserError(
                    f"{where}: offsets {offsets!r}; expected `start end`, several joined by `;`"
                ) from None
            mentions[document].append((code, mention, pieces))
        return mentions

    def _evidence(
        self,
        document: str,
        text: str,
        mentions: Sequence[_Mention],
        codes: set[str],
        dropped: Findings,
    ) -> tuple[Evidence, ...]:
        """Evidence rows of one document.

        A span whose text is not the mention's (it has a full stop or a bracket too many) is kept
        and counted; a mention of a code that the document does not have, and a piece that is empty
        or outside the text, is left out and counted.
        """
        rows = []
        for number, (written, mention, pieces) in enumerate(mentions):
            try:
                code = icd.normalise(written, _SYSTEMS[self._options.codes])
            except ValueError:
                code = written
            if code not in codes:
                dropped.add("evidence: the document does not have the code", document)
                continue
            if " ".join(text[start:end] for start, end in pieces) != mention:
                dropped.add("evidence: text at the offsets is not the mention's (kept)", document)
            for start, end in pieces:
                if 0 <= start < end <= len(text):
                    rows.append(Evidence(code, 0, start, end, number))
                elif start == end:
                    dropped.add("evidence: empty piece", document)
                else:
                    dropped.add("evidence: offsets outside the text", document)
        return tuple(rows)
