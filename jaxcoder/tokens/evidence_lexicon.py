"""The lexicon of evidence: strings that stood for a code in training, found again in any order."""

import collections
import dataclasses
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.settings import build
from jaxcoder.tokens import stems

_Bag = tuple[int, ...]
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


class EvidenceLexicon:
    """Bag of stems → code. A bag is found where its words stand close together in one sentence.

    The score of bag and code is (coded + evidence) / 2 / (found + smoothing), in documents: found
    has the bag, coded the code as well, evidence the bag as a whole mention of the code. On CodiEsp
    validation, micro-F1 / recall@10 / MAP: .688 / .561 / .595 from the annotated strings (Spanish;
    were pieces of mentions evidence too, .679 / .555 / .592, were they left out, .687 / .540 /
    .569); from silver evidence, of document labels and official descriptions, .623 / .507 / .523
    (Spanish) and .568 / .462 / .468 (English).
    """

    def __init__(
        self,
        options: EvidenceLexiconOptions,
        scores: Mapping[_Bag, Mapping[str, float]],
        rarest: Mapping[_Bag, int],
    ) -> None:
        """Holds scores; use `fit` or `load`.

        Args:
          options: what it was counted with.
          scores: of the codes that each bag stands for.
          rarest: the word of each bag that the fewest training documents have.
        """
        self.options = options
        self._scores, self._rarest = scores, rarest
        self._index = _Index(rarest, options.slack)

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        codes: Iterable[Sequence[str]],
        strings: Iterable[Sequence[tuple[str, str, bool]]],
        options: EvidenceLexiconOptions,
    ) -> "EvidenceLexicon":
        """Counts where evidence strings are found again.

        Args:
          texts: the training documents, `max_contacts` at most.
          codes: the codes of each.
          strings: the evidence of each, annotated or silver: string, code, and whether it is a
            whole mention. A piece of one (`of the lung`) is looked for, but proves nothing itself.
          options: how.

        Returns:
          The lexicon. The same documents in the same order give the same lexicon.
        """
        drawn = [
            (stems.words(text, options.stem), set(labels), evidence)
            for text, labels, evidence in zip(texts, codes, strings, strict=True)
        ]
        documents = collections.Counter(
            word for found, _, _ in drawn for word in np.unique(found.hashes).tolist()
        )
        common = {word for word, n in documents.items() if n > options.max_share * len(drawn)}
        evidence = collections.Counter[tuple[_Bag, str]]()
        for _, _, mentions in drawn:
            wholes: dict[tuple[_Bag, str], bool] = {}
            for string, code, whole in mentions:
                if bag := _bag(string, options.stem, common):
                    wholes[bag, code] = whole or wholes.get((bag, code), False)
            for pair, whole in wholes.items():
                evidence[pair] += whole
        meanings = collections.defaultdict(list)
        for bag, code in evidence:
            meanings[bag].append(code)
        rarest = {bag: min(bag, key=lambda word: (documents[word], word)) for bag in meanings}
        index = _Index(rarest, options.slack)

        seen, coded = collections.Counter[_Bag](), collections.Counter[tuple[_Bag, str]]()
        for found, labels, _ in drawn:
            for bag in index.find(found):
                seen[bag] += 1
                coded.update((bag, code) for code in meanings[bag] if code in labels)
        scores = {
            bag: {
                code: (coded[bag, code] + evidence[bag, code])
                / (2 * (max(seen[bag], evidence[bag, code]) + options.smoothing))
                for code in meanings[bag]
                if coded[bag, code] + evidence[bag, code]  # else no document says anything of it
            }
            for bag in meanings
        }
        return cls(options, scores, rarest)

    def to_bytes(self) -> bytes:
        """The content of a file that `load` reads: hashes of stems, no text."""
        codes = sorted({code for meanings in self._scores.values() for code in meanings})
        number = {code: place for place, code in enumerate(codes)}
        rows = [
            (bag, number[code], score)
            for bag, meanings in enumerate(self._scores.values())
            for code, score in meanings.items()
        ]
        words = [word for bag in self._scores for word in bag]
        content = {
            "options": np.array(json.dumps(dataclasses.asdict(self.options))),
            "codes": np.array(codes, dtype=str),
            "sizes": np.array([len(bag) for bag in self._scores], np.int32),
            "words": np.array(words, np.uint64),
            "rarest": np.array([self._rarest[bag] for bag in self._scores], np.uint64),
            "entries": np.array([row[:2] for row in rows], np.int32).reshape(-1, 2),
            "scores": np.array([row[2] for row in rows], np.float64),
        }
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **content)
        return file.getvalue()

    @classmethod
    def load(cls, path: epath.PathLike) -> "EvidenceLexicon":
        """Reads a file of what `to_bytes` gives.

        Raises:
          UserError: it is not there, or not such a file.
        """
        path = epath.Path(path)
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                content = {key: file[key] for key in file.files}
            ends = np.cumsum(content["sizes"])
            words = content["words"].tolist()
            bags = [
                tuple(words[end - size : end])
                for end, size in zip(ends.tolist(), content["sizes"].tolist(), strict=True)
            ]
            scores: dict[_Bag, dict[str, float]] = {bag: {} for bag in bags}
            codes = content["codes"].tolist()
            for (bag, code), score in zip(
                content["entries"].tolist(), content["scores"].tolist(), strict=True
            ):
                scores[bags[bag]][codes[code]] = score
            rarest = dict(zip(bags, content["rarest"].tolist(), strict=True))
            options = json.loads(str(content["options"]))
        except (
            *(OSError, EOFError, KeyError, IndexError, ValueError),
            *(zipfile.BadZipFile, zlib.error),
        ) as error:
            raise UserError(
                f"{path}: not a lexicon ({type(error).__name__}); run the same `jaxcoder train` "
                "again to restore it"
            ) from None
        return cls(build(EvidenceLexiconOptions, options, str(path)), scores, rarest)

    def scores(self, text: str) -> dict[str, float]:
        """Scores the codes of a document.

        Args:
          text: the document.

        Returns:
          For each code of a bag that is found in the text, its highest score, in (0, 1].
        """
        best: dict[str, float] = {}
        for bag in self._index.find(stems.words(text, self.options.stem)):
            for code, score in self._scores[bag].items():
                best[code] = max(score, best.get(code, 0.0))
        return dict(sorted(best.items()))


class _Index:
    """Bags by their rarest word, so that a document looks up few."""

    def __init__(self, rarest: Mapping[_Bag, int], slack: int) -> None:
        self._slack = slack
        self._by_rarest: dict[int, list[_Bag]] = collections.defaultdict(list)
        for bag, word in rarest.items():
            self._by_rarest[word].append(bag)

    def find(self, found: stems.Words) -> list[_Bag]:
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
        self, bag: _Bag, at: int, places: dict[int, list[int]], sentences: list[int]
    ) -> bool:
        """Whether the bag's words, where nearest to a place, stand close together."""
        here = [
            [place for place in places[word] if sentences[place] == sentences[at]] for word in bag
        ]
        if not all(here):
            return False
        nearest = [min(each, key=lambda place: abs(place - at)) for each in here]
        return max(nearest) - min(nearest) < len(bag) + self._slack


def _bag(string: str, stem: int, common: set[int]) -> _Bag:
    return tuple(sorted(set(stems.words(string, stem).hashes.tolist()) - common))
