"""Silver evidence: where in a training document each of its codes stands, found by counting."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxcoder.records.codes import roll_up
from jaxcoder.tokens import stems
from jaxcoder.tokens.counts import Counts, association
from jaxcoder.tokens.spelling import SHORTEST, description_words, likeness, spelled


@dataclasses.dataclass(frozen=True)
class SilverOptions:
    """Which spans count as silver evidence. Scores are in units of G² (`counts.association`).

    Attributes:
      enabled: whether silver evidence is written into token records.
      min_score: score that a span needs.
      max_words: words in the longest span.
      word_cost: what each word of a span costs: the shorter of two equal spans wins.
      spelling: worth of a word spelled like one of the code's description, times the rarity of that
        word among the descriptions; 0 ignores spelling.
      familiar: training documents with a code from which its description counts half: the better a
        code is known, the less its description is asked.
      max_share: a span neither starts nor ends with a word of more than this share of the
        documents.
    """

    enabled: bool = True
    min_score: float = 22.0
    max_words: int = 6
    word_cost: float = 4.0
    spelling: float = 4.0
    familiar: float = 5.0
    max_share: float = 0.5

    def __post_init__(self) -> None:
        for key in ("min_score", "word_cost", "spelling"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 or more")
        if self.max_words < 1:
            raise ValueError(f"max_words = {self.max_words}: expected at least 1")
        if self.familiar <= 0:
            raise ValueError(f"familiar = {self.familiar}: expected more than 0")
        if not 0 < self.max_share <= 1:
            raise ValueError(f"max_share = {self.max_share}: expected a share in (0, 1]")


class Descriptions:
    """The words of the codes' descriptions as further labels, which codes share: `kidney`, `left`.

    What a word of the notes means is then learned from all codes whose description has it, in
    whatever two languages notes and descriptions are written.
    """

    def __init__(self, table: Mapping[str, str], codes: Sequence[str]) -> None:
        """Takes the words of some codes.

        Args:
          table: code → description; a code that it lacks has that of the nearest code above it.
          codes: whose descriptions count.
        """
        # Without a description, codes share their category instead.
        self._words = {
            code: description_words(_nearest(table, code)) or (roll_up(code, "category").lower(),)
            for code in codes
        }
        codes_with = collections.Counter(word for words in self._words.values() for word in words)
        self.index = {word: number for number, word in enumerate(sorted(codes_with))}
        # Rarity: minus the log of the share of codes whose description has the word.
        self.rarity = np.array([np.log(len(codes) / codes_with[word]) for word in self.index])

    def of(self, code: str) -> np.ndarray:
        """Numbers int32 of a code's description words; none for an unknown code."""
        return np.array([self.index[word] for word in self._words.get(code, ())], np.int32)

    def alike(self, words: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """Likeness times rarity of words and description words, float64[words, labels]."""
        names = list(self.index)
        begins = collections.defaultdict(list)
        for column, label in enumerate(labels.tolist()):
            begins[names[label][:SHORTEST]].append((column, names[label]))
        values = np.zeros((len(words), len(labels)))
        for row, word in enumerate(words):
            one = spelled(word)
            for column, other in begins.get(one[:SHORTEST], ()):
                values[row, column] = likeness(one, other) * self.rarity[labels[column]]
        return values


@dataclasses.dataclass(frozen=True, eq=False)
class Aligner:
    """Finds the span of a document that explains a code best.

    The worth of a span for a code is the strongest association of an n-gram inside it with the
    code, plus, for each word of the code's description, the strongest association of a word inside
    it, minus a cost a word. A word that training has not seen elsewhere counts as seen here.

    Attributes:
      grams: n-grams against codes.
      words: words against description words.
      code_documents: int64[codes], training documents with the code.
      word_documents: int64[description words], training documents with a code so described.
      documents: training documents counted.
      descriptions: of the codes.
      longest: words in the longest n-gram of `grams`.
    """

    grams: Counts
    words: Counts
    code_documents: np.ndarray
    word_documents: np.ndarray
    documents: int
    descriptions: Descriptions
    longest: int

    def align(
        self,
        text: str,
        found: stems.Words,
        codes: Sequence[tuple[str, int]],
        options: SilverOptions,
    ) -> list[tuple[str, int, int, float]]:
        """Aligns the codes of a document.

        Args:
          text: the document.
          found: its words.
          codes: its codes with their numbers in `grams`, −1 for one that it does not know.
          options: what a span is worth.

        Returns:
          (code, first word, last word, score): the best span of each code that has one worth more
          than 0; of equals the shortest, and of these the first.
        """
        count = len(found.hashes)
        if not count or not codes:
            return []
        unique, at, back = np.unique(found.hashes, return_index=True, return_inverse=True)
        rows = self.words.rows(unique)
        # A word that training has in no other document is held by one: this.
        holding = np.append(self.words.documents, 1)[rows]
        by_code = self._code_worth(found, holding[back], [number for _, number in codes])
        of_code = [self.descriptions.of(code) for code, _ in codes]
        labels = np.unique(np.concatenate(of_code))
        hits = self.words.hits_of(rows, labels, missing=1)
        by_word = association(hits, holding[:, None], self.word_documents[labels], self.documents)
        strings = [text[found.starts[place] : found.ends[place]] for place in at]
        alike = options.spelling * self.descriptions.alike(strings, labels)
        allowed = self._allowed(found, holding[back], options)
        spans = []
        for column, (code, number) in enumerate(codes):
            mine = np.searchsorted(labels, of_code[column])
            known = self.code_documents[number] if number >= 0 else 0
            weight = options.familiar / (options.familiar + known) / (1 + len(mine))
            described = (weight * by_word[:, mine] + alike[:, mine])[back]
            worth = self._spans(by_code[:, :, column], described, options) + allowed
            length, first = divmod(int(worth.argmax()), count)
            if worth[length, first] > 0:
                spans.append((code, first, first + length, float(worth[length, first])))
        return spans

    def _code_worth(
        self, found: stems.Words, holding: np.ndarray, numbers: Sequence[int]
    ) -> np.ndarray:
        """Association [length − 1, first word, code] of every n-gram of the document.

        Args:
          found: its words.
          holding: [word], training documents that hold the word.
          numbers: of the codes; −1 for one that training does not have, which nothing attracts.
        """
        worth = np.zeros((self.longest, len(found.hashes), len(numbers)))
        column = {number: place for place, number in enumerate(numbers) if number >= 0}
        labels = np.array(sorted(column), np.int32)
        columns = np.array([column[number] for number in labels.tolist()], np.int64)
        having = self.code_documents[labels]
        hashes, firsts, lasts = stems.ngrams(found, self.longest)
        rows, back = np.unique(self.grams.rows(hashes), return_inverse=True)
        # n-gram and code of a training document occur together at least here.
        hits = self.grams.hits_of(rows, labels, missing=1)
        documents = np.append(self.grams.documents, 1)[rows][:, None]
        values = association(hits, documents, having, self.documents)
        values[rows < 0] = 0
        worth[(lasts - firsts)[:, None], firsts[:, None], columns] = values[back]
        once = association(np.ones(()), holding[:, None], having, self.documents)
        worth[0][:, columns] = np.maximum(worth[0][:, columns], once)
        return worth

    def _allowed(
        self, found: stems.Words, holding: np.ndarray, options: SilverOptions
    ) -> np.ndarray:
        """0 where a span [length − 1, first word] may be, −inf where not."""
        edge = holding <= options.max_share * self.documents
        count = len(found.hashes)
        allowed = np.full((options.max_words, count), -np.inf)
        for length in range(1, min(options.max_words, count) + 1):
            begin, end = slice(0, count - length + 1), slice(length - 1, count)
            whole = found.sentences[begin] == found.sentences[end]
            allowed[length - 1, begin][edge[begin] & edge[end] & whole] = 0
        return allowed

    def _spans(
        self, by_code: np.ndarray, described: np.ndarray, options: SilverOptions
    ) -> np.ndarray:
        """Worth [length − 1, first word] of every span for one code.

        Args:
          by_code: [n-gram length − 1, first word], association of n-grams with the code.
          described: [word, description word], worth of words for its description.
          options: cost of a word, longest span.
        """
        count = len(described)
        worth = np.zeros((options.max_words, count))
        code, words = by_code[0], described
        for length in range(1, min(options.max_words, count) + 1):
            # The best inside a span is its own, or that of the two spans that are a word shorter.
            if length > 1:
                code = np.maximum(code[:-1], code[1:])
                if length <= len(by_code):
                    code = np.maximum(code, by_code[length - 1, : len(code)])
                words = np.maximum(words[:-1], described[length - 1 :])
            worth[length - 1, : len(code)] = code + words.sum(1) - options.word_cost * length
        return worth


def _nearest(table: Mapping[str, str], code: str) -> str:
    if "-" in code:  # a chapter, A00-B99, which no code stands above
        return table.get(code, "")
    while code and code not in table:
        code = code[:-1].rstrip(".")
    return table.get(code, "")
