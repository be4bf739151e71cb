"""The codes of conditions and how notes mention them, read from their tables."""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence

from jaxcoder.records import codes as icd
from jaxcoder.records.sources.synthetic.entries import KINDS, CodeEntry, Wordings
from jaxcoder.records.sources.synthetic.sheet import Row

SYSTEM = "icd10cm"
"""Code system of the tables' codes."""


class CodeReader:
    """Reads the codes of one condition after another; no two may share a code or a mention."""

    def __init__(self) -> None:
        self._codes: set[str] = set()
        self._owners: dict[str, str] = {}

    def read(
        self, condition: Row, rows: Sequence[Row], mentions: Sequence[Row]
    ) -> tuple[CodeEntry, ...]:
        """The codes of a condition with their wordings.

        Args:
          condition: its row.
          rows: its rows of the table of codes.
          mentions: its rows of the table of mentions.

        Raises:
          UserError: no code, a kind of mention that is lacking, a code or a mention that another
            condition has, a code that no text tells from the condition's others.
        """
        if not rows:
            condition.fail("condition", "at least one row in codes.csv")
        texts = self._texts(
            condition.text("condition"), {row.text("code") for row in rows}, mentions
        )
        for kind in KINDS:
            if not any(found == kind for _, found in texts):
                condition.fail("condition", f"a mention of kind {kind!r} in mentions.csv")
        entries = []
        for row in rows:
            code = row.text("code")
            if not _is_normal(code):
                row.fail("code", "a normalised ICD-10-CM code such as I10 or E11.65")
            if code in self._codes:
                row.fail("code", "each code once")
            self._codes.add(code)
            wordings = _wordings(texts, code, several=len(rows) > 1)
            if not wordings:
                row.fail("code", "mentions of its own, or a qualifier, in mentions.csv")
            entries.append(
                CodeEntry(
                    code,
                    row.text("title"),
                    row.number("share", 0.01, 1000),
                    row.choice("role", ("", "primary", "secondary")),
                    wordings,
                )
            )
        return tuple(entries)

    def _texts(
        self, key: str, codes: set[str], mentions: Sequence[Row]
    ) -> dict[tuple[str, str], list[str]]:
        """Mentions by code (empty: any code of the condition) and kind."""
        texts: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
        for row in mentions:
            code, text = row.text("code", empty=True), row.text("text")
            kind = row.choice("kind", (*KINDS, "qualifier"))
            if code not in ("", *codes):
                row.fail("code", "a code of the condition in codes.csv, or nothing")
            if kind != "qualifier":
                # Within a condition a text may stand for one code only, or for all.
                owner = self._owners.setdefault(text.lower(), f"{key} {code}")
                if owner != f"{key} {code}":
                    row.fail("text", f"a text that does not mention {owner.strip()}, too")
            texts[code, kind].append(text)
        return texts


def absent(mentions: Sequence[Row]) -> Wordings:
    """How notes mention a condition that is not there: its texts without qualifiers."""
    rows = [row for row in mentions if row.text("kind") in KINDS]
    counts = collections.Counter(row.text("kind") for row in rows)
    return _weighted(
        (row.text("text"), KINDS[row.text("kind")] / counts[row.text("kind")]) for row in rows
    )


def _wordings(texts: Mapping[tuple[str, str], list[str]], code: str, several: bool) -> Wordings:
    """How notes mention a code: by its own texts, and by the condition's, each with a qualifier.

    A condition of one code needs no qualifier. Kinds have the weights `KINDS`.
    """
    qualifiers = texts.get((code, "qualifier"), [])
    found: list[tuple[str, float]] = []
    for kind, weight in KINDS.items():
        general = texts.get(("", kind), [])
        if several:
            general = [f"{text} {tail}" for text, tail in itertools.product(general, qualifiers)]
        options = [*general, *texts.get((code, kind), [])]
        found += [(text, weight / len(options)) for text in options]
    return _weighted(found)


def _weighted(found: Iterable[tuple[str, float]]) -> Wordings:
    pairs = list(found)
    return Wordings(
        tuple(text for text, _ in pairs), tuple(itertools.accumulate(weight for _, weight in pairs))
    )


def _is_normal(code: str) -> bool:
    try:
        return icd.normalise(code, SYSTEM) == code
    except ValueError:
        return False
