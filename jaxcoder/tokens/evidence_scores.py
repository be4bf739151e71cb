"""What a lexicon of evidence says of a text: bags of stems, found again in any order."""

import collections
import dataclasses
import io
import json
from collections.abc import Mapping
from typing import Self

import numpy as np

from jaxcoder.tokens.stems import Words, words

Bag = tuple[int, ...]
"""Hashes of the stems of a string, rising, each once."""


@dataclasses.dataclass(frozen=True)
class EvidenceLexiconOptions:
    """How evidence strings are found again.

    Attributes:
      stem: characters a word is cut to; 0 for whole words.
      slack: words that may stand between the words of a string.
      max_share: words of more than this share of the documents are left out of strings.
      smoothing: added to the number of documents in which a string is found.
      max_contacts: training contacts that are counted at most, evenly spaced; 0 for all.
    """

    stem: int = 8
    slack: int = 6
    max_share: float = 0.5
    smoothing: float = 1.0
    max_contacts: int = 10_000

    def __post_init__(self) -> None:
        for key in ("stem", "slack", "smoothing", "max_contacts"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} = {getattr(self, key)}: expected 0 or more")
        if not 0 < self.max_share <= 1:
            raise ValueError(f"max_share = {self.max_share}: expected a share in (0, 1]")


class EvidenceScores:
    """Bag of stems → code. A bag is found where its words stand close together in one sentence."""

    def __init__(
        self,
        options: EvidenceLexiconOptions,
        scores: Mapping[Bag, Mapping[str, float]],
        rarest: Mapping[Bag, int],
    ) -> None:
        """Holds scores; use `from_bytes`.

        Args:
          options: what it was counted with.
          scores: of the codes that each bag stands for.
          rarest: the word of each bag that the fewest training documents have.
        """
        self.options = options
        self._scores, self._rarest = scores, rarest
        self._index = BagIndex(rarest, options.slack)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Reads the content of a `lexicon.npz`, of which nothing is unpickled.

        Raises:
          Exception: it is none; which one, depends on what is wrong with it.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        ends = np.cumsum(arrays["sizes"])
        members = arrays["words"].tolist()
        bags = [
            tuple(members[end - size : end])
            for end, size in zip(ends.tolist(), arrays["sizes"].tolist(), strict=True)
        ]
        scores: dict[Bag, dict[str, float]] = {bag: {} for bag in bags}
        codes = arrays["codes"].tolist()
        rows = zip(arrays["entries"].tolist(), arrays["scores"].tolist(), strict=True)
        for (bag, code), score in rows:
            scores[bags[bag]][codes[code]] = score
        rarest = dict(zip(bags, arrays["rarest"].tolist(), strict=True))
        options = EvidenceLexiconOptions(**json.loads(str(arrays["options"])))
        return cls(options, scores, rarest)

    def scores(self, text: str) -> dict[str, float]:
        """Scores the codes of a document.

        Args:
          text: the document.

        Returns:
          For each code of a bag that is found in the text, its highest score, in (0, 1].
        """
        best: dict[str, float] = {}
        for bag in self._index.find(words(text, self.options.stem)):
            for code, score in self._scores[bag].items():
                best[code] = max(score, best.get(code, 0.0))
        return dict(sorted(best.items()))


class BagIndex:
    """Bags by their rarest word, so that a document looks up few."""

    def __init__(self, rarest: Mapping[Bag, int], slack: int) -> None:
        self._slack = slack
        self._by_rarest: dict[int, list[Bag]] = collections.defaultdict(list)
        for bag, word in rarest.items():
            self._by_rarest[word].append(bag)

    def find(self, found: Words) -> list[Bag]:
        """The bags of a document, each once."""
        places = collections.defaultdict(list)
        for place, word in enumerate(found.hashes.tolist()):
            places[word].append(place)
        sentences = found.sentences.tolist()
        return [
            bag
            for word in places
            for bag in self._by_rarest.get(word, ())
            if all(other in places for other in bag)
            and any(self._together(bag, at, places, sentences) for at in places[word])
        ]

    def _together(
        self, bag: Bag, at: int, places: dict[int, list[int]], sentences: list[int]
    ) -> bool:
        """Whether the bag's words, where nearest to a place, stand close together."""
        here = [
            [place for place in places[word] if sentences[place] == sentences[at]] for word in bag
        ]
        if not all(here):
            return False
        nearest = [min(each, key=lambda place: abs(place - at)) for each in here]
        return max(nearest) - min(nearest) < len(bag) + self._slack
