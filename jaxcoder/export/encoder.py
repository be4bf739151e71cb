"""The encoder in PyTorch: token ids of documents in, a state for each token out.

Axes, as suffixes of names: B contacts, T tokens, W window, D width, H heads, K head width,
F feed-forward width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def mask_of(seen: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Returns what is added to scores: 0 where true, a large negative number where false.

    It is finite, so that a row of padding alone has no NaN, and of the dtype of the states.
    """
    return torch.where(seen, 0.0, torch.finfo(states.dtype).min / 2).to(states.dtype)


class SelfAttention(nn.Module):
    """What computes attention once queries, keys and values [B, H, T, K] are there."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, width // heads

    def split(self, x_BxTxD: torch.Tensor) -> torch.Tensor:
        """Returns the heads apart, [B, H, T, K]."""
        return x_BxTxD.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


# ---------------------------------------------------------------------------------------- BERT


class BertSelfAttention(SelfAttention):
    """Queries, keys and values, and what they come to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x_BxWxD: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Takes windows as rows, and a mask [B, 1, 1, W]."""
        query, key, value = (
            self.split(each(x_BxWxD)) for each in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """A product that is added to what was there before, and normalised."""

    def __init__(self, inner: int, width: int, epsilon: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, epsilon)

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Returns LayerNorm(x + dense(y))."""
        return self.LayerNorm(x + self.dense(y))


class BertAttention(nn.Module):
    """The first half of a layer."""

    def __init__(self, width: int, heads: int, epsilon: float) -> None:
        super().__init__()
        self.self = BertSelfAttention(width, heads)
        self.output = Residual(width, width, epsilon)


class Intermediate(nn.Module):
    """The wide product of the second half; the name is that of published weights."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, inner)


class BertLayer(nn.Module):
    """Attention, then feed-forward, each with residual and layer norm."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        width, inner, epsilon = shape["width"], shape["feedforward"], shape["norm_epsilon"]
        self.attention = BertAttention(width, shape["heads"], epsilon)
        self.intermediate = Intermediate(width, inner)
        self.output = Residual(inner, width, epsilon)

    def forward(self, x_BxWxD: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns the next states."""
        attended = self.attention.self(x_BxWxD, mask)
        x_BxWxD = self.attention.output(attended, x_BxWxD)
        return self.output(F.gelu(self.intermediate.dense(x_BxWxD)), x_BxWxD)


class BertEmbeddings(nn.Module):
    """Tables of tokens, of positions, and of token types where the model has them."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        width = shape["width"]
        self.window, self.offset = shape["window"], shape["position_offset"]
        rows = shape["max_positions"] or self.window + self.offset
        self.word_embeddings = nn.Embedding(shape["vocab_size"], width)
        self.position_embeddings = nn.Embedding(rows, width)
        if shape["token_types"]:
            self.token_type_embeddings = nn.Embedding(shape["token_types"], width)
        self.LayerNorm = nn.LayerNorm(width, shape["norm_epsilon"])

    def forward(self, tokens_BxT: torch.Tensor) -> torch.Tensor:
        """Returns states; positions start anew with each window."""
        index_T = torch.arange(tokens_BxT.shape[1], device=tokens_BxT.device) % self.window
        x_BxTxD = self.word_embeddings(tokens_BxT)
        x_BxTxD = x_BxTxD + self.position_embeddings(index_T + self.offset)
        if hasattr(self, "token_type_embeddings"):
            x_BxTxD = x_BxTxD + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x_BxTxD)


class Layers(nn.Module):
    """The layers, under the name that published weights have."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(shape) for _ in range(shape["layers"]))


class BertEncoder(nn.Module):
    """BERT or RoBERTa, whose documents are cut in windows that see only themselves."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.window = shape["window"]
        self.embeddings = BertEmbeddings(shape)
        if shape["convolution"]:
            width, taps = shape["width"], shape["convolution"]
            self.convolution = nn.Conv1d(width, width, taps, padding=taps // 2)
        self.encoder = Layers(shape)

    def forward(self, tokens_BxT: torch.Tensor, real_BxT: torch.Tensor) -> torch.Tensor:
        """Returns states [B, T, D]; `real_BxT` is false on padding, which stands at the end."""
        length = tokens_BxT.shape[1]
        x_BxTxD = self.embeddings(tokens_BxT)
        if hasattr(self, "convolution"):
            # The one part that sees over window borders; padding does not enter it.
            inner = torch.where(real_BxT[..., None], x_BxTxD, 0.0).transpose(1, 2)
            x_BxTxD = x_BxTxD + F.gelu(self.convolution(inner).transpose(1, 2))
        window = torch.sym_min(self.window, length)
        spare = -length % window
        x = F.pad(x_BxTxD, (0, 0, 0, spare)).reshape(-1, window, x_BxTxD.shape[2])
        mask = mask_of(F.pad(real_BxT, (0, spare)).reshape(-1, 1, 1, window), x)
        for layer in self.encoder.layer:
            x = layer(x, mask)
        return x.reshape(x_BxTxD.shape[0], -1, x.shape[2])[:, :length]


# ---------------------------------------------------------------------------------- ModernBERT


class RotaryAttention(SelfAttention):
    """Attention with rotary positions, over the whole document or a neighbourhood of the token."""

    def __init__(self, shape: dict[str, Any], layer: int) -> None:
        super().__init__(shape["width"], shape["heads"])
        width = shape["width"]
        local = layer % shape["global_every"] > 0
        self.radius = shape["local_attention"] // 2 if local else 0
        self.theta = shape["theta_local" if local else "theta_global"]
        self.Wqkv = nn.Linear(width, 3 * width, bias=False)
        self.Wo = nn.Linear(width, width, bias=False)

    def forward(self, x_BxTxD: torch.Tensor, real_BxT: torch.Tensor) -> torch.Tensor:
        """Returns the attended states."""
        query, key, value = (self.split(each) for each in self.Wqkv(x_BxTxD).chunk(3, dim=-1))
        query, key = self._turned(query, key)
        if self.radius:
            mixed = self._local(query, key, value, real_BxT)
        else:
            mask = mask_of(real_BxT, x_BxTxD)[:, None, None]
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.Wo(mixed.transpose(1, 2).flatten(2))

    def _turned(self, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Turns pairs (k, k + K/2) by angles that grow with the position (arXiv:2104.09864)."""
        length, width, device = states[0].shape[2], self.head_width, states[0].device
        powers = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
        positions = torch.arange(length, device=device).float()
        angles = (positions[:, None] * self.theta**-powers).repeat(1, 2)
        cosine, sine = (each.to(states[0].dtype) for each in (angles.cos(), angles.sin()))

        def turned(x: torch.Tensor) -> torch.Tensor:
            first, second = x.chunk(2, dim=-1)
            return x * cosine + torch.cat([-second, first], dim=-1) * sine

        return tuple(turned(x) for x in states)

    def _local(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, real_BxT: torch.Tensor
    ) -> torch.Tensor:
        """A token sees those at most `radius` away: blocks of so many, each with its neighbours."""
        batch, heads, length, width = query.shape
        radius = self.radius
        spare = -length % radius

        def blocks(x: torch.Tensor) -> torch.Tensor:
            x = F.pad(x, (0, 0, 0, spare)).unflatten(2, (-1, radius))
            return x.transpose(1, 2).flatten(0, 1)

        def around(x: torch.Tensor) -> torch.Tensor:
            x = F.pad(x, (0, 0, radius, radius + spare)).unflatten(2, (-1, radius))
            x = torch.cat([x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]], dim=3)
            return x.transpose(1, 2).flatten(0, 1)

        real = around(real_BxT[:, None, :, None].float())[..., 0] > 0  # [blocks, 1, 3 radius]
        place = torch.arange(radius, device=query.device)
        other = torch.arange(-radius, 2 * radius, device=query.device)
        near = (other[None] - place[:, None]).abs() <= radius
        mask = mask_of(real[:, :, None] & near, query)
        mixed = F.scaled_dot_product_attention(
            blocks(query), around(key), around(value), attn_mask=mask
        )
        mixed = mixed.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)
        return mixed[:, :, :length]


class GatedFeedForward(nn.Module):
    """GeGLU: one half of the wide states is activated, and scales the other."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.Wi = nn.Linear(width, 2 * inner, bias=False)
        self.Wo = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what is added to the states."""
        active, gate = self.Wi(x).chunk(2, dim=-1)
        return self.Wo(F.gelu(active) * gate)


class ModernBertLayer(nn.Module):
    """Norm, attention, norm, feed-forward; the first layer has no norm before its attention."""

    def __init__(self, shape: dict[str, Any], layer: int) -> None:
        super().__init__()
        width, epsilon = shape["width"], shape["norm_epsilon"]
        self.attn_norm = nn.LayerNorm(width, epsilon, bias=False) if layer else nn.Identity()
        self.attn = RotaryAttention(shape, layer)
        self.mlp_norm = nn.LayerNorm(width, epsilon, bias=False)
        self.mlp = GatedFeedForward(width, shape["feedforward"])

    def forward(self, x_BxTxD: torch.Tensor, real_BxT: torch.Tensor) -> torch.Tensor:
        """Returns the next states."""
        x_BxTxD = x_BxTxD + self.attn(self.attn_norm(x_BxTxD), real_BxT)
        return x_BxTxD + self.mlp(self.mlp_norm(x_BxTxD))


class ModernBertEmbeddings(nn.Module):
    """The table of tokens; positions come with the attention."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(shape["vocab_size"], shape["width"])
        self.norm = nn.LayerNorm(shape["width"], shape["norm_epsilon"], bias=False)


class ModernBertEncoder(nn.Module):
    """ModernBERT (Warner et al., arXiv:2412.13663): some layers see all of a document."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = ModernBertEmbeddings(shape)
        self.layers = nn.ModuleList(
            ModernBertLayer(shape, layer) for layer in range(shape["layers"])
        )
        self.final_norm = nn.LayerNorm(shape["width"], shape["norm_epsilon"], bias=False)

    def forward(self, tokens_BxT: torch.Tensor, real_BxT: torch.Tensor) -> torch.Tensor:
        """Returns states [B, T, D]; `real_BxT` is false on padding, which stands at the end."""
        x_BxTxD = self.embeddings.norm(self.embeddings.tok_embeddings(tokens_BxT))
        for layer in self.layers:
            x_BxTxD = layer(x_BxTxD, real_BxT)
        return self.final_norm(x_BxTxD)


ENCODERS = {"bert": BertEncoder, "modernbert": ModernBertEncoder}
