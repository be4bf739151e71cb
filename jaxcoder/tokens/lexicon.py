"""Which n-grams stand for which codes, counted on training documents."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxcoder.tokens import stems
from jaxcoder.tokens.counts import Counts, ranges
from jaxcoder.tokens.silver import Aligner, Descriptions, SilverOptions

__all__ = ["Lexicon", "LexiconOptions", "SilverOptions"]


@dataclasses.dataclass(frozen=True)
class LexiconOptions:
    """How the lexicon is counted.

    Attributes:
      max_ngram: words in the longest n-gram.
      stem: characters a word is cut to; 0 for whole words.
      min_documents: training documents that an n-gram must occur in.
      min_hits: training documents in which n-gram and code must occur together.
      smoothing: added to the number of documents with the n-gram: rare n-grams prove less.
      min_score: pairs of n-gram and code that score less are forgotten.
      max_contacts: training contacts that are counted at most, evenly spaced; 0 for all. A
        thousand of 1,500 words take 13 s of one core.
    """

    max_ngram: int = 5
    stem: int = 8
    min_documents: int = 2
    min_hits: int = 2
    smoothing: float = 2.0
    min_score: float = 0.02
    max_contacts: int = 10_000

    def __post_init__(self) -> None:
        for key in ("max_ngram", "min_documents", "min_hits"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)}: expected at least 1")
        for key in ("stem", "smoothing", "min_score", "max_contacts"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 or more")


class Lexicon:
    """n-gram → code, with the score hits / (documents with the n-gram + smoothing).

    Attributes:
      options: what it was counted with.
      codes: the codes of the training documents, sorted.
    """

    def __init__(self, options: LexiconOptions, codes: Sequence[str], aligner: Aligner) -> None:
        """Holds counts; use `fit`."""
        self.options = options
        self.codes = tuple(codes)
        self._index = {code: number for number, code in enumerate(self.codes)}
        self._aligner = aligner
        self._grams = aligner.grams
        documents = np.repeat(self._grams.documents, np.diff(self._grams.first))
        self._scores = (self._grams.hits / (documents + options.smoothing)).astype(np.float32)

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        codes: Iterable[Sequence[str]],
        options: LexiconOptions,
        descriptions: Mapping[str, str] | None = None,
    ) -> "Lexicon":
        """Counts n-grams against codes, and words against the words of the codes' descriptions.

        Args:
          texts: the training documents, `max_contacts` at most.
          codes: the codes of each.
          options: how.
          descriptions: code → official description, in any language: better silver evidence.

        Returns:
          The lexicon. The same documents in the same order give the same lexicon.
        """
        drawn = list(zip(texts, codes, strict=True))
        found = [stems.words(text, options.stem) for text, _ in drawn]
        names = sorted({code for _, mine in drawn for code in mine})
        index = {code: number for number, code in enumerate(names)}
        labels = [np.array(sorted({index[code] for code in mine}), np.int32) for _, mine in drawn]
        described = Descriptions(descriptions or {}, names)
        word_labels = [
            np.unique(np.concatenate([np.zeros(0, np.int32), *map(described.of, mine)]))
            for _, mine in drawn
        ]

        word_documents = _totals(word_labels, len(described.index))

        def often(hits: np.ndarray, documents: np.ndarray, labels: np.ndarray) -> np.ndarray:
            least = options.min_score * (documents + options.smoothing)
            return (hits >= options.min_hits) & (hits >= least)

        def attracted(hits: np.ndarray, documents: np.ndarray, labels: np.ndarray) -> np.ndarray:
            at_chance = documents * (word_documents[labels] / len(drawn))
            return (hits >= options.min_hits) & (hits > at_chance)

        def count(
            labels: Sequence[np.ndarray],
            longest: int,
            keep: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
            all_keys: bool,
        ) -> Counts:
            return Counts.of(
                lambda number: stems.ngrams(found[number], longest)[0],
                sum(len(words.hashes) for words in found) * longest,
                labels,
                options.min_documents,
                keep,
                all_keys,
            )

        aligner = Aligner(
            grams=count(labels, options.max_ngram, often, all_keys=False),
            words=count(word_labels, 1, attracted, all_keys=True),
            code_documents=_totals(labels, len(names)),
            word_documents=word_documents,
            documents=len(drawn),
            descriptions=described,
            longest=options.max_ngram,
        )
        return cls(options, names, aligner)

    def scores(self, text: str) -> dict[str, float]:
        """Scores the codes of a document.

        Args:
          text: the document.

        Returns:
          For each code that an n-gram of the text stands for, its highest score, in (0, 1].
        """
        hashes, _, _ = stems.ngrams(stems.words(text, self.options.stem), self.options.max_ngram)
        rows = np.unique(self._grams.rows(hashes))
        rows = rows[rows >= 0]
        entries = ranges(self._grams.first[rows], np.diff(self._grams.first)[rows])
        best = np.zeros(len(self.codes), np.float32)
        np.maximum.at(best, self._grams.labels[entries], self._scores[entries])
        return {self.codes[number]: float(best[number]) for number in np.flatnonzero(best)}

    def silver_spans(
        self, text: str, codes: Sequence[str], options: SilverOptions | None = None
    ) -> list[tuple[str, int, int]]:
        """Finds where a training document's codes stand in its text.

        Args:
          text: the document.
          codes: its codes.
          options: which spans count.

        Returns:
          (code, start, end): character spans of the text, all occurrences of the words of the
          code's best span, in the order of codes and text. A code without a good enough span has
          none.
        """
        options = options or SilverOptions()
        found = stems.words(text, self.options.stem)
        numbered = [(code, self._index.get(code, -1)) for code in dict.fromkeys(codes)]
        spans = []
        for code, first, last, score in self._aligner.align(text, found, numbered, options):
            if score < options.min_score:
                continue
            for place in _occurrences(found, first, last):
                end = found.ends[place + last - first]
                spans.append((code, int(found.starts[place]), int(end)))
        return spans


def _occurrences(found: stems.Words, first: int, last: int) -> list[int]:
    """First words of all the places where the words first..last stand, in one sentence."""
    count = len(found.hashes) - (last - first)
    same = found.sentences[:count] == found.sentences[last - first :]
    for shift in range(last - first + 1):
        same &= found.hashes[shift : count + shift] == found.hashes[first + shift]
    return [int(place) for place in np.flatnonzero(same)]


def _totals(labels: Sequence[np.ndarray], size: int) -> np.ndarray:
    return np.bincount(np.concatenate([np.zeros(0, np.int32), *labels]), minlength=size)
