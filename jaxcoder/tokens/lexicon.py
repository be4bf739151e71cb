"""Which n-grams stand for which codes, counted on training documents: silver evidence, and a coder of its own."""

import dataclasses
import random
from collections.abc import Iterable, Sequence

import numpy as np

from jaxcoder.tokens import stems

_PARTITION = 1 << 23  # n-grams sorted at a time: 64 MiB of hashes and as much again for sorting.
_PAIRS = 1 << 22  # (n-gram, code) pairs counted at a time.


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
      max_contacts: training contacts that are counted at most, drawn by `seed`; 0 for all.
      seed: of that draw.
    """

    max_ngram: int = 5
    stem: int = 8
    min_documents: int = 2
    min_hits: int = 2
    smoothing: float = 2.0
    min_score: float = 0.02
    max_contacts: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("max_ngram", "min_documents", "min_hits"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)}: expected at least 1")
        for key in ("stem", "smoothing", "min_score", "max_contacts"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 or more")


@dataclasses.dataclass(frozen=True)
class SilverOptions:
    """Which spans count as silver evidence.

    Attributes:
      enabled: whether silver evidence is written into token records.
      min_score: score in [0, 1) that an n-gram needs for the code.
      min_hits: training documents in which n-gram and code must occur together.
    """

    enabled: bool = True
    min_score: float = 0.4
    min_hits: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.min_score < 1:
            raise ValueError(f"min_score = {self.min_score}: expected a number in [0, 1)")
        if self.min_hits < 1:
            raise ValueError(f"min_hits = {self.min_hits}: expected at least 1")


class Lexicon:
    """n-gram → code, with the score hits / (documents with the n-gram + smoothing).

    Attributes:
      options: what it was counted with.
      codes: the codes of the training documents, sorted.
    """

    def __init__(
        self,
        options: LexiconOptions,
        codes: Sequence[str],
        grams: np.ndarray,
        first: np.ndarray,
        entry_codes: np.ndarray,
        hits: np.ndarray,
        documents: np.ndarray,
    ) -> None:
        """Holds counts; use `fit` or `load`.

        Args:
          options: what it was counted with.
          codes: sorted, C of them.
          grams: uint64[M], hashes of n-grams, sorted.
          first: int64[M + 1], the entries of n-gram i are first[i]:first[i + 1].
          entry_codes: int32[E], index into codes.
          hits: int32[E], documents with n-gram and code.
          documents: int32[M], documents with the n-gram.
        """
        self.options = options
        self.codes = tuple(codes)
        self._index = {code: number for number, code in enumerate(self.codes)}
        self._grams, self._first, self._entry_codes, self._hits, self._documents = (
            grams,
            first,
            entry_codes,
            hits,
            documents,
        )
        self._scores = (hits / (np.repeat(documents, np.diff(first)) + options.smoothing)).astype(np.float32)

    @classmethod
    def fit(cls, texts: Iterable[str], codes: Iterable[Sequence[str]], options: LexiconOptions) -> "Lexicon":
        """Counts n-grams against codes.

        Args:
          texts: the training documents.
          codes: the codes of each.
          options: how.

        Returns:
          The lexicon. The same documents in the same order give the same lexicon.
        """
        documents = _draw(texts, codes, options)
        names = sorted({code for _, labels in documents for code in labels})
        index = {code: number for number, code in enumerate(names)}
        labels = [np.array(sorted({index[code] for code in labels}), np.int32) for _, labels in documents]
        found = [words for words, _ in documents]
        total = sum(len(words.hashes) for words in found) * options.max_ngram
        partitions = -(-max(1, total) // _PARTITION)
        parts = [_count(found, labels, len(names), options, part, partitions) for part in range(partitions)]
        grams, sizes, entry_codes, hits, counts = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(grams, kind="stable")
        ends = np.cumsum(sizes)
        within = _ranges((ends - sizes)[order], sizes[order])
        first = np.concatenate([[0], np.cumsum(sizes[order])]).astype(np.int64)
        return cls(options, names, grams[order], first, entry_codes[within], hits[within], counts[order])

    def scores(self, text: str) -> dict[str, float]:
        """Scores the codes of a document.

        Args:
          text: the document.

        Returns:
          For each code that an n-gram of the text stands for, its highest score, in (0, 1).
        """
        hashes, _, _ = stems.ngrams(stems.words(text, self.options.stem), self.options.max_ngram)
        _, rows = self._lookup(hashes)
        rows = np.unique(rows)
        entries = _ranges(self._first[rows], self._first[rows + 1] - self._first[rows])
        best = np.zeros(len(self.codes), np.float32)
        np.maximum.at(best, self._entry_codes[entries], self._scores[entries])
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
          (code, start, end): character spans of the text, all occurrences of the code's best n-gram, in the order of
          codes and text. Codes without a good enough n-gram have none.
        """
        options = options or SilverOptions()
        found = stems.words(text, self.options.stem)
        hashes, firsts, lasts = stems.ngrams(found, self.options.max_ngram)
        places, rows = self._lookup(hashes)
        sizes = self._first[rows + 1] - self._first[rows]
        entries = _ranges(self._first[rows], sizes)
        places = np.repeat(places, sizes)
        spans = []
        for code in codes:
            here = (self._entry_codes[entries] == self._index.get(code, -1)) & (
                self._hits[entries] >= options.min_hits
            )
            scores = np.where(here, self._scores[entries], 0)
            if not scores.size or scores.max() < max(options.min_score, 1e-9):
                continue
            # Among equals the longest n-gram, and of these the one that comes first in the text.
            length = lasts[places] - firsts[places]
            top = np.flatnonzero(scores == scores.max())
            best = top[np.argmax(length[top])]
            for place in np.flatnonzero(hashes == hashes[places[best]]):
                spans.append((code, int(found.starts[firsts[place]]), int(found.ends[lasts[place]])))
        return spans

    def _lookup(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `hashes` of known n-grams, and their rows."""
        rows = np.searchsorted(self._grams, hashes)
        known = np.flatnonzero(self._grams[np.minimum(rows, len(self._grams) - 1)] == hashes) if len(self._grams) else []
        return np.asarray(known, np.int64), rows[known] if len(known) else np.zeros(0, np.int64)


def _draw(
    texts: Iterable[str], codes: Iterable[Sequence[str]], options: LexiconOptions
) -> list[tuple[stems.Words, Sequence[str]]]:
    """A uniform sample of the documents (reservoir sampling), which keeps hashes and not texts."""
    rng = random.Random(options.seed)
    sample: list[tuple[stems.Words, Sequence[str]]] = []
    for number, (text, labels) in enumerate(zip(texts, codes, strict=True)):
        slot = number
        if options.max_contacts and number >= options.max_contacts:
            slot = rng.randrange(number + 1)
            if slot >= options.max_contacts:
                continue
        item = (stems.words(text, options.stem), tuple(labels))
        if slot == number:
            sample.append(item)
        else:
            sample[slot] = item
    return sample


def _count(
    found: Sequence[stems.Words],
    labels: Sequence[np.ndarray],
    num_codes: int,
    options: LexiconOptions,
    part: int,
    partitions: int,
) -> tuple[np.ndarray, ...]:
    """Counts the n-grams whose hash falls in one of `partitions` parts.

    Returns:
      Per n-gram its hash, number of entries, and per entry code and hits, and per n-gram its documents.
    """
    hashes, owners = [], []
    for number, words in enumerate(found):
        mine = stems.ngrams(words, options.max_ngram)[0]
        if partitions > 1:
            mine = mine[(mine >> np.uint64(33)) % np.uint64(partitions) == part]
        mine = np.unique(mine)
        hashes.append(mine)
        owners.append(np.full(len(mine), number, np.int32))
    flat, owner = np.concatenate(hashes or [np.zeros(0, np.uint64)]), np.concatenate(owners or [np.zeros(0, np.int32)])
    order = np.argsort(flat, kind="stable")
    grams, counts = np.unique(flat, return_counts=True)
    owner = owner[order]
    kept = counts >= options.min_documents
    owner = owner[np.repeat(kept, counts)]
    grams, counts = grams[kept], counts[kept].astype(np.int32)
    sizes = np.array([len(codes) for codes in labels], np.int64)
    flat_codes = np.concatenate([*labels, np.zeros(0, np.int32)])
    starts = np.cumsum(sizes) - sizes
    ends = np.cumsum(counts.astype(np.int64))
    numbers, entry_codes, hits = [], [], []
    low = 0
    weight = np.cumsum(np.add.reduceat(sizes[owner], ends - counts)) if len(grams) else np.zeros(0, np.int64)
    while low < len(grams):
        done = weight[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(weight, done + _PAIRS, side="right")))
        rows = np.repeat(np.arange(low, high), counts[low:high])
        mine = owner[ends[low] - counts[low] : ends[high - 1]]
        pair = np.repeat(rows, sizes[mine]) * num_codes + flat_codes[_ranges(starts[mine], sizes[mine])]
        pair, together = np.unique(pair, return_counts=True)
        row, code = pair // num_codes, pair % num_codes
        good = (together >= options.min_hits) & (together / (counts[row] + options.smoothing) >= options.min_score)
        numbers.append(row[good])
        entry_codes.append(code[good].astype(np.int32))
        hits.append(together[good].astype(np.int32))
        low = high
    row = np.concatenate([*numbers, np.zeros(0, np.int64)])
    per_gram = np.bincount(row, minlength=len(grams))
    useful = per_gram > 0
    return (
        grams[useful],
        per_gram[useful],
        np.concatenate([*entry_codes, np.zeros(0, np.int32)]),
        np.concatenate([*hits, np.zeros(0, np.int32)]),
        counts[useful],
    )


def _ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The numbers start, start + 1, …, start + size - 1 of each range, one range after another."""
    total = int(sizes.sum())
    offsets = np.cumsum(sizes) - sizes
    return np.arange(total) + np.repeat(starts - offsets, sizes)
