"""The coder with its lexicon: network and lexicon as one probability."""

from collections.abc import Mapping, Sequence

import torch

from jaxcoder.export.modeling import FILES, JaxcoderModel
from jaxcoder.fusion_weights import Weights, fused
from jaxcoder.tokens.evidence_scores import EvidenceScores


class FusedJaxcoderModel(JaxcoderModel):
    """A coder that is fused with a lexicon of what stood for its codes in training."""

    files = (*FILES, "lexicon.npz")

    def _read(self, files: Mapping[str, str]) -> None:
        super()._read(files)
        with open(files["lexicon.npz"], "rb") as file:
            self._lexicon = EvidenceScores.from_bytes(file.read())
        self._weights = Weights(**self.config.fusion)

    def _logits(self, documents: Sequence[tuple[str, list[int]]]) -> torch.Tensor:
        logits_BxL = self.network_logits([ids for _, ids in documents])
        scores_BxL = torch.zeros(logits_BxL.shape)
        label = {code: place for place, code in enumerate(self.reader.codes)}
        for row, (text, _) in enumerate(documents):
            for code, score in self._lexicon.scores(text).items():
                if code in label:
                    scores_BxL[row, label[code]] = score
        scores_BxL = scores_BxL.to(logits_BxL)
        return fused(torch, logits_BxL, scores_BxL, self._weights.found, self._weights.other)
