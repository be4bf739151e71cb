"""The table of names: what PyTorch calls an array, what we call it, and its axes on both sides.

Names and layouts are those of the published models, as Hugging Face transformers 5 writes them:
BertModel, RobertaModel and XLMRobertaModel for `bert`, ModernBertModel for `modernbert`, and their
...ForMaskedLM. A linear layer of PyTorch holds [out, in], ours [in, out]. The label attention has
names of our own.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions


class Rule(NamedTuple):
    """One row of the table.

    Axes are letters: V vocabulary, S positions, N token types, D width (E where there are two), H
    heads, K head width, F feed-forward width, C taps, L labels, P the label attention's width, G
    the names in braces. Letters that stand together are one axis.

    Attributes:
      name: PyTorch's; `#` stands for the number of a layer.
      torch: the axes of the array there.
      path: ours. Several names in braces lie in one array there.
      ours: the axes of the array here; those of a layer are stacked, and the layer comes before.
      first: the first layer that has it.
    """

    name: str
    torch: str
    path: str
    ours: str
    first: int = 0

    @property
    def paths(self) -> list[str]:
        """Ours, each alone: of `a/{b,c}/d` two."""
        match = re.fullmatch(r"(.*)\{(.*)\}(.*)", self.path)
        return (
            [match[1] + name + match[3] for name in match[2].split(",")] if match else [self.path]
        )

    def names(self, encoder: EncoderOptions) -> list[tuple[tuple[int, ...], str]]:
        """PyTorch's, each alone, with its index in ours: (layer,), or ()."""
        if "#" not in self.name:
            return [((), self.name)]
        layers = range(self.first, encoder.layers)
        return [((layer,), self.name.replace("#", str(layer))) for layer in layers]


def _affine(name: str, path: str) -> list[Rule]:
    """Scale and shift of a layer norm."""
    rows = (("weight", "scale"), ("bias", "bias"))
    return [Rule(f"{name}.{theirs}", "D", f"{path}/{ours}", "D") for theirs, ours in rows]


def _linear(name: str, torch: str, path: str, ours: str, bias: str) -> list[Rule]:
    """Kernel and bias of a linear layer; the bias's axes are the last of `ours`."""
    return [
        Rule(f"{name}.weight", torch, f"{path}/kernel", ours),
        Rule(f"{name}.bias", torch.split()[0], f"{path}/bias", bias),
    ]


_LAYER = "encoder/layers/"
_BERT = [
    Rule("embeddings.word_embeddings.weight", "V D", "encoder/embedding/word", "V D"),
    Rule("embeddings.position_embeddings.weight", "S D", "encoder/embedding/position", "S D"),
    *_affine("embeddings.LayerNorm", "encoder/embedding/norm"),
    *(
        rule
        for name in ("query", "key", "value")
        for rule in _linear(
            f"encoder.layer.#.attention.self.{name}",
            *("HK D", f"{_LAYER}attention/{name}", "D H K", "H K"),
        )
    ),
    *_linear(
        "encoder.layer.#.attention.output.dense", "D HK", f"{_LAYER}attention/output", "H K D", "D"
    ),
    *_affine("encoder.layer.#.attention.output.LayerNorm", f"{_LAYER}attention_norm"),
    *_linear("encoder.layer.#.intermediate.dense", "F D", f"{_LAYER}feedforward_in", "D F", "F"),
    *_linear("encoder.layer.#.output.dense", "D F", f"{_LAYER}feedforward_out", "F D", "D"),
    *_affine("encoder.layer.#.output.LayerNorm", f"{_LAYER}output_norm"),
]
_TOKEN_TYPES = [
    Rule("embeddings.token_type_embeddings.weight", "N D", "encoder/embedding/token_type", "N D"),
]
_CONVOLUTION = [
    Rule("convolution.weight", "E D C", "encoder/convolution/kernel", "C D E"),
    Rule("convolution.bias", "E", "encoder/convolution/bias", "E"),
]
_MODERNBERT = [
    Rule("embeddings.tok_embeddings.weight", "V D", "encoder/embedding/word", "V D"),
    Rule("embeddings.norm.weight", "D", "encoder/embedding/norm/scale", "D"),
    Rule("layers.#.attn_norm.weight", "D", f"{_LAYER}attention_norm/scale", "D", first=1),
    Rule(
        "layers.#.attn.Wqkv.weight",
        "GHK D",
        f"{_LAYER}attention/{{query,key,value}}/kernel",
        "D H K",
    ),
    Rule("layers.#.attn.Wo.weight", "D HK", f"{_LAYER}attention/output/kernel", "H K D"),
    Rule("layers.#.mlp_norm.weight", "D", f"{_LAYER}feedforward_norm/scale", "D"),
    Rule("layers.#.mlp.Wi.weight", "GF D", f"{_LAYER}feedforward_{{in,gate}}/kernel", "D F"),
    Rule("layers.#.mlp.Wo.weight", "D F", f"{_LAYER}feedforward_out/kernel", "F D"),
    Rule("final_norm.weight", "D", "encoder/final_norm/scale", "D"),
]
# What predicts masked tokens. The word table is its last layer, here and there.
_MASKED_LM = {
    "bert": [
        *_linear("cls.predictions.transform.dense", "E D", "masked_lm/dense", "D E", "E"),
        *_affine("cls.predictions.transform.LayerNorm", "masked_lm/norm"),
        Rule("cls.predictions.bias", "V", "masked_lm/bias", "V"),
    ],
    "roberta": [
        *_linear("lm_head.dense", "E D", "masked_lm/dense", "D E", "E"),
        *_affine("lm_head.layer_norm", "masked_lm/norm"),
        Rule("lm_head.bias", "V", "masked_lm/bias", "V"),
    ],
    "modernbert": [
        Rule("head.dense.weight", "E D", "masked_lm/dense/kernel", "D E"),
        Rule("head.norm.weight", "D", "masked_lm/norm/scale", "D"),
        Rule("decoder.bias", "V", "masked_lm/bias", "V"),
    ],
}
_HEAD = {
    "laat": [
        Rule("head.projection.weight", "P D", "head/projection/kernel", "D P"),
        Rule("head.query.weight", "L P", "head/query", "L P"),
        Rule("head.output.weight", "L D", "head/output", "L D"),
        Rule("head.output.bias", "L", "head/bias", "L"),
    ],
    "cross": [
        Rule("head.key.weight", "P D", "head/key/kernel", "D P"),
        *_linear("head.value", "P D", "head/value", "D P", "P"),
        Rule("head.query.weight", "L P", "head/query", "L P"),
        Rule("head.norm.weight", "P", "head/norm_scale", "P"),
        Rule("head.norm.bias", "P", "head/norm_bias", "P"),
        Rule("head.output.weight", "1 P", "head/output", "P"),
        Rule("head.output.bias", "1", "head/bias", "1"),
    ],
}


def language_model(encoder: EncoderOptions) -> str:
    """Whose names the masked-LM head has: `bert`, `roberta` or `modernbert`."""
    return "roberta" if encoder.family == "bert" and encoder.position_offset else encoder.family


def rules(
    encoder: EncoderOptions, head: HeadOptions | None, masked_lm: bool, prefix: str
) -> Iterator[Rule]:
    """The rows that hold for a model.

    Args:
      encoder: the encoder's shape.
      head: the label attention's; None leaves it out.
      masked_lm: whether with what predicts masked tokens.
      prefix: before the names of the encoder.
    """
    rows = [*(_BERT if encoder.family == "bert" else _MODERNBERT)]
    rows += _TOKEN_TYPES if encoder.token_types else []
    rows += _CONVOLUTION if encoder.convolution else []
    for rule in rows:
        if encoder.layers or "#" not in rule.name:
            yield rule._replace(name=prefix + rule.name)
    yield from _MASKED_LM[language_model(encoder)] if masked_lm else []
    yield from _HEAD[head.kind] if head else []


def masked_lm_names(encoder: EncoderOptions) -> set[str]:
    """Names of what predicts masked tokens."""
    return {rule.name for rule in _MASKED_LM[language_model(encoder)]}


def label_tables(head: HeadOptions) -> set[str]:
    """Our names of the label attention's arrays that have a row for each label."""
    return {rule.path.split("/")[1] for rule in _HEAD[head.kind] if rule.ours.startswith("L")}
