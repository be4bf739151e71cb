"""Mini-documents: random joins of strings whose codes are known, as extra training records."""

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

SOURCES = ("evidence", "silver", "descriptions")
_SEPARATORS = (", ", ". ", "; ", "\n", " / ")

Span = tuple[str, int, int]
"""Code, start and end: characters [start, end) of a text."""


class Fragment(NamedTuple):
    """A piece of a mini-document: its text, and the codes with their character spans in it."""

    text: str
    spans: tuple[Span, ...]


@dataclasses.dataclass(frozen=True)
class MiniOptions:
    """How mini-documents are made.

    Attributes:
      per_contact: mini-documents for each training contact; 0 for none. Ten give ten epochs
        fresh ones each.
      sources: where strings come from: `evidence` (gold spans), `silver` (silver spans),
        `descriptions` (official).
      min_pairs: fragments in a mini-document, at least.
      max_pairs: at most.
      power: a fragment seen n times in training has weight n^power: 0 shows rare codes as
        often as frequent ones, 1 keeps the frequencies of the training split. A silver string seen
        often with a code is also less likely to be wrong.
      context: words of real text left and right of a span. The span is then a fragment twice,
        bare and within them; 0 for the bare string alone. Within its text a string teaches what
        is no evidence, too (measured in configs/codiesp.py).
      recase: probability that the first letter of a fragment changes its case.
      seed: of the joins.
    """

    per_contact: float = 10.0
    sources: tuple[str, ...] = SOURCES
    min_pairs: int = 5
    max_pairs: int = 15
    power: float = 0.5
    context: int = 0
    recase: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [source for source in self.sources if source not in SOURCES]
        if unknown:
            raise ValueError(
                f"sources = {list(self.sources)}: expected some of {', '.join(SOURCES)}"
            )
        for key in ("per_contact", "power", "context"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 or more")
        if not 1 <= self.min_pairs <= self.max_pairs:
            raise ValueError(
                f"min_pairs = {self.min_pairs}, max_pairs = {self.max_pairs}: "
                "expected 1 <= min_pairs <= max_pairs"
            )
        if not 0 <= self.recase <= 1:
            raise ValueError(f"recase = {self.recase}: expected a probability in [0, 1]")


def mention(string: str, code: str) -> Fragment:
    """A string that stands for a code, whole."""
    return Fragment(string, ((code, 0, len(string)),))


def mentions(text: str, spans: Iterable[Span], context: int = 0) -> list[Fragment]:
    """Cuts a fragment out of a text around each span.

    Args:
      text: the document.
      spans: codes with their characters in it.
      context: words kept on either side in a second fragment, with every span in reach; 0 for
        none.

    Returns:
      A fragment for each span that is not blank, in order of the text, then those with context.
    """
    spans = sorted(
        (span for span in spans if text[span[1] : span[2]].strip()), key=lambda span: span[1:]
    )
    fragments = [mention(text[start:end], code) for code, start, end in spans]
    for _, start, end in spans if context else ():
        left, right = _reach(text, start, -context), _reach(text, end, context)
        inside = [span for span in spans if span[1] < right and span[2] > left]
        # A span cut in half would be a false label: widen to hold it.
        left = min(left, *(span[1] for span in inside))
        right = max(right, *(span[2] for span in inside))
        moved = tuple(
            (code, a - left, b - left) for code, a, b in spans if left <= a and b <= right
        )
        fragments.append(Fragment(text[left:right], moved))
    return fragments


def descriptions(
    table: Mapping[str, tuple[bool, str, str]], codes: Collection[str]
) -> list[Fragment]:
    """Official descriptions as fragments.

    Args:
      table: code → (billable, short description, long description).
      codes: codes to keep: those of the label space.

    Returns:
      Long and, where it differs, short description of each code that the table has.
    """
    fragments = []
    for code in codes:
        if code in table:
            _, short, long = table[code]
            fragments += [
                mention(string, code) for string in dict.fromkeys((long, short)) if string.strip()
            ]
    return fragments


class MiniDocuments(Sequence[Fragment]):
    """Mini-documents, each a pure function of (seed, number): only the fragments are stored."""

    def __init__(self, fragments: Iterable[Fragment], options: MiniOptions, count: int) -> None:
        """Weighs the fragments.

        Args:
          fragments: what is joined; repeats count as often as they come.
          options: how.
          count: number of mini-documents.
        """
        counts = collections.Counter(fragments)
        self._fragments = list(counts)
        self._options = options
        self._count = count if counts else 0
        weights = np.array([float(number) for number in counts.values()]) ** options.power
        self._cumulative = np.cumsum(weights) / max(weights.sum(), 1e-300)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Fragment:  # type: ignore[override]
        """Mini-document `number`: its text and its spans, in order of the text."""
        if not 0 <= number < self._count:
            raise IndexError(number)
        options = self._options
        rng = np.random.default_rng([options.seed, number])
        size = int(rng.integers(options.min_pairs, options.max_pairs + 1))
        chosen = np.searchsorted(self._cumulative, rng.random(size), side="right").clip(
            max=len(self._fragments) - 1
        )
        recased = rng.random(size) < options.recase
        separator = _SEPARATORS[int(rng.integers(len(_SEPARATORS)))]
        text = ""
        spans: list[Span] = []
        for which, recase in zip(chosen.tolist(), recased, strict=True):
            piece, inner = self._fragments[which]
            text += separator if text else ""
            spans += [(code, start + len(text), end + len(text)) for code, start, end in inner]
            text += _recase(piece) if recase else piece
        return Fragment(text, tuple(spans))


def _recase(text: str) -> str:
    swapped = text[:1].swapcase()
    # ß would become SS, and move the spans.
    return swapped + text[1:] if len(swapped) == 1 else text


def _reach(text: str, position: int, words: int) -> int:
    """The place `words` words after the position, or before it where negative, at a word's edge."""
    step = 1 if words > 0 else -1
    seen, inside = 0, False
    while 0 < position < len(text) if step < 0 else position < len(text):
        space = text[position if step > 0 else position - 1].isspace()
        if inside and space:
            seen += 1
            if seen == abs(words):
                break
        inside = not space
        position += step
    return position
