"""The shape of an encoder."""

import dataclasses

import jax.numpy as jnp

from jaxcoder.models.attention import IMPLEMENTATIONS, Sight, choose
from jaxcoder.models.layout import Layout

FAMILIES = ("bert", "modernbert")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """The shape of an encoder, and how it is computed.

    Attributes:
      init: where its first weights come from: a folder in Hugging Face's format or a name on their
        hub, which then decides the shape; empty for random weights.
      family: `bert` (BERT, RoBERTa): learned positions, windows, norm after; or `modernbert`
        (Warner et al., arXiv:2412.13663): rotary positions, norm before, GeGLU, local attention
        with every third layer global. The GELU is exact in both.
      vocab_size: tokens of the tokenizer (V).
      width: of a token state (D).
      layers: number of blocks.
      heads: attention heads (H); they divide `width`.
      feedforward: inner width of the feed-forward part (F).
      window: W, of bert; longer documents are cut in windows of so many tokens that see only
        themselves.
      local_attention: of modernbert: a token of a local layer sees those at most half of it away.
      global_every: of modernbert: layer i sees the whole document where i is a multiple of it.
      theta_global: base of the rotary wavelengths in global layers.
      theta_local: the same in local ones.
      max_positions: in bert rows of the position table, 0 for `window + position_offset`; in
        modernbert tokens of the longest document, 0 for no limit.
      position_offset: position of a window's first token: 0 for BERT, pad_id + 1 for RoBERTa.
      token_types: rows of the token type table, of which row 0 is added; 0 for no table.
      pad_id: the token of padding. Masks come from lengths, never from it.
      norm_epsilon: 1e-12 in BERT, 1e-5 in RoBERTa and ModernBERT.
      dropout: share of states dropped, in [0, 1).
      attention_dropout: share of attention weights dropped; −1 for the same as `dropout`.
      convolution: width in tokens of a convolution over the document after the embedding, odd; 0
        for none. It is the one part that sees over window borders.
      frozen: bottom layers that stay as they are, and with them embedding and convolution; −1
        freezes nothing.
      attention: what computes it: `auto`, `xla`, `splash` (TPU) or `cudnn` (GPU, bfloat16). The
        last two have no dropout of attention weights: set `attention_dropout` to 0 to train with
        them.
      dtype: of activations, `float32` or `bfloat16`; parameters and softmax are float32.
      remat: recompute each layer in the backward pass instead of storing its activations.
      unroll: layers compiled one by one instead of as a loop; 0 for all where there are up to 4.
      vocab_multiple: the token table is padded to a multiple of it, so that a mesh can split it.
    """

    init: str = ""
    family: str = "bert"
    vocab_size: int = 8000
    width: int = 256
    layers: int = 2
    heads: int = 4
    feedforward: int = 1024
    window: int = 256
    local_attention: int = 128
    global_every: int = 3
    theta_global: float = 160_000.0
    theta_local: float = 10_000.0
    max_positions: int = 0
    position_offset: int = 0
    token_types: int = 0
    pad_id: int = 0
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = -1.0
    convolution: int = 0
    frozen: int = -1
    attention: str = "auto"
    dtype: str = "float32"
    remat: bool = False
    unroll: int = 0
    vocab_multiple: int = 8

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family = {self.family!r}: expected one of {', '.join(FAMILIES)}")
        if self.attention not in IMPLEMENTATIONS:
            raise ValueError(
                f"attention = {self.attention!r}: expected one of {', '.join(IMPLEMENTATIONS)}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype = {self.dtype!r}: expected one of {', '.join(DTYPES)}")
        for name in (
            "vocab_size",
            "width",
            "heads",
            "feedforward",
            "window",
            "vocab_multiple",
            "global_every",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        for name in ("layers", "position_offset", "token_types", "unroll", "max_positions"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 0")
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads}: expected a divisor of width = {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}: expected a share in [0, 1)")
        if self.attention_dropout != -1 and not 0 <= self.attention_dropout < 1:
            raise ValueError(
                f"attention_dropout = {self.attention_dropout}: expected a share in [0, 1), or -1"
            )
        if self.convolution < 0 or (self.convolution and self.convolution % 2 == 0):
            raise ValueError(f"convolution = {self.convolution}: expected an odd width, or 0")
        if self.frozen < -1 or self.frozen > self.layers:
            raise ValueError(
                f"frozen = {self.frozen}: expected -1 (none) to layers = {self.layers}"
            )
        if self.family == "bert":
            self._check_bert()
        else:
            self._check_modernbert()

    def _check_bert(self) -> None:
        needed = self.window + self.position_offset
        if self.max_positions and self.max_positions < needed:
            raise ValueError(
                f"max_positions = {self.max_positions}: expected at least window + "
                f"position_offset = {needed}; a shorter window fits"
            )

    def _check_modernbert(self) -> None:
        for name in ("convolution", "position_offset", "token_types"):
            if getattr(self, name):
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0, modernbert has none")
        if self.local_attention < 2:
            raise ValueError(f"local_attention = {self.local_attention}: expected at least 2")
        if self.width // self.heads % 2:
            raise ValueError(
                f"heads = {self.heads}: expected an even width / heads, for rotary positions"
            )

    @property
    def attention_rate(self) -> float:
        """Share of attention weights dropped."""
        return self.dropout if self.attention_dropout < 0 else self.attention_dropout

    @property
    def kinds(self) -> tuple[tuple[Sight, float], ...]:
        """What a token sees, and the base of its rotary positions (0: none), layer by layer.

        The layers repeat it: layer i is of kind i modulo its length.
        """
        if self.family == "bert":
            return ((Sight(window=self.window), 0.0),)
        local = (Sight(radius=self.local_attention // 2), self.theta_local)
        return ((Sight(), self.theta_global), *(local,) * (self.global_every - 1))

    def attends(self, layout: Layout, *, packed: bool, dropping: bool) -> tuple[str, str]:
        """Decides what computes the attention.

        Args:
          layout: the devices.
          packed: whether rows hold several documents.
          dropping: whether there is dropout: in training alone.

        Returns:
          The implementation, and why it is that one.

        Raises:
          ValueError: what `attention` wants is impossible there, with the reason.
        """
        return choose(
            *(self.attention, layout, self.dtype, self.width // self.heads),
            *(self.attention_rate if dropping else 0.0, packed),
        )

    def attention_in(self, layout: Layout, *, packed: bool = False) -> str:
        """Says what computes the attention, for people; arguments and errors as of `attends`."""
        (training, why), (plain, other) = (
            self.attends(layout, packed=packed, dropping=dropping) for dropping in (True, False)
        )
        said = f"{training} ({why})"
        return said if plain == training else f"{said}; in evaluation {plain} ({other})"
