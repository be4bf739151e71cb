"""The reader of a coder that is fused with a lexicon."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcoder.export.reader import LABEL_SPACE, TOKENIZER, Document, Reader
from jaxcoder.fusion_weights import Weights, fused
from jaxcoder.tokens.evidence_scores import EvidenceScores

LEXICON = "lexicon.npz"


class FusedReader(Reader):
    """Joins the network's logits with what a lexicon, counted in training, says of the text."""

    names = (TOKENIZER, LABEL_SPACE, LEXICON)
    fuses = True

    def __init__(self, files: Mapping[str, str], config: Mapping[str, Any]) -> None:
        """Reads the lexicon too; arguments as of `Reader`."""
        super().__init__(files, config)
        with open(self.files[LEXICON], "rb") as file:
            self._lexicon = EvidenceScores.from_bytes(file.read())
        self._weights = Weights(**config["fusion"])
        self._labels = {code: label for label, code in enumerate(self.codes)}

    def _fused(self, documents: Sequence[Document], logits_BxL: np.ndarray) -> np.ndarray:
        scores_BxL = np.zeros(logits_BxL.shape, np.float32)
        for row, document in enumerate(documents):
            for code, score in self._lexicon.scores(document.text).items():
                if code in self._labels:
                    scores_BxL[row, self._labels[code]] = score
        lines = (np.array(line, np.float32) for line in (self._weights.found, self._weights.other))
        result: np.ndarray = fused(np, logits_BxL, scores_BxL, *lines)
        return result
