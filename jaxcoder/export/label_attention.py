"""The label attention in PyTorch: states of tokens in, one logit a label out.

Axes, as suffixes of names: B contacts, T tokens, D width, L labels, C some of them, P the width in
which labels and tokens are compared.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from jaxcoder.export.encoder import mask_of

CHUNK_BYTES = 64 * 2**20
"""Of one array [B, labels, T or P]: so many labels look over the documents at a time."""


class Table(nn.Module):
    """One row a label."""

    def __init__(self, rows: int, width: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, width))
        if bias:
            self.bias = nn.Parameter(torch.zeros(rows))


class LabelAttention(nn.Module):
    """Every label's own look over the document, some labels at a time."""

    def __init__(self, chunk: int = 0) -> None:
        super().__init__()
        self.chunk = chunk  # labels at a time; 0 to choose by memory

    def looks(
        self, query_LxP: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yields, chunk by chunk, Σ_t softmax_t(query_l · key_t + mask_t) value_t.

        A chunk's [B, chunk, P] has become logits before the next one is made.
        """
        labels = query_LxP.shape[0]
        size = self.chunk or self._fitting(keys.shape[0], max(keys.shape[1], values.shape[2]))
        for start in range(0, labels, size):
            chunk = slice(start, min(start + size, labels))
            yield chunk, self._look(query_LxP[chunk], keys, values, mask)

    def _fitting(self, batch: int, width: int) -> int:
        return max(128, CHUNK_BYTES // (4 * batch * width))

    def _look(
        self, query_CxP: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        query = query_CxP.expand(keys.shape[0], 1, -1, -1)
        return F.scaled_dot_product_attention(
            query, keys[:, None], values[:, None], attn_mask=mask[:, None, None], scale=1.0
        )[:, 0]


class Laat(LabelAttention):
    """Label attention of Vu et al. (2020, arXiv:2007.06351).

    z_t = tanh(W1 h_t);  a_lt = softmax_t(w2_l · z_t);  logit_l = w3_l · Σ_t a_lt h_t + b_l
    """

    def __init__(self, labels: int, width: int, inner: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, inner, bias=False)
        self.query = Table(labels, inner)
        self.output = Table(labels, width, bias=True)

    def forward(self, h_BxTxD: torch.Tensor, real_BxT: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, L]."""
        keys, output_LxD = torch.tanh(self.projection(h_BxTxD)), self.output.weight
        looks = self.looks(self.query.weight, keys, h_BxTxD, mask_of(real_BxT, keys))
        logits = [(mixed * output_LxD[chunk]).sum(-1) for chunk, mixed in looks]
        return torch.cat(logits, dim=1) + self.output.bias


class Cross(LabelAttention):
    """Label attention of Edin et al. (2024, arXiv:2406.08958).

    k_t = Wk h_t;  v_t = Wv h_t + bv;  a_lt = softmax_t(e_l · k_t)
    logit_l = w_o · LayerNorm(Σ_t a_lt v_t) + b_o
    """

    def __init__(self, labels: int, width: int, inner: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner)
        self.query = Table(labels, inner)
        self.norm = nn.LayerNorm(inner, 1e-5)
        self.output = nn.Linear(inner, 1)

    def forward(self, h_BxTxD: torch.Tensor, real_BxT: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, L]."""
        keys, values = self.key(h_BxTxD), self.value(h_BxTxD)
        looks = self.looks(self.query.weight, keys, values, mask_of(real_BxT, keys))
        return torch.cat([self.output(self.norm(mixed))[..., 0] for _, mixed in looks], dim=1)


HEADS = {"laat": Laat, "cross": Cross}
