"""Which published architectures the encoder can be: from Hugging Face's config to ours and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxcoder.errors import UserError
from jaxcoder.models.encoder_options import EncoderOptions

OWN = "jaxcoder"
"""The model type of what transformers has no counterpart for."""

SHAPE = (
    *("family", "vocab_size", "width", "layers", "heads", "feedforward", "max_positions"),
    *("position_offset", "token_types", "pad_id", "norm_epsilon", "convolution"),
    *("local_attention", "global_every", "theta_global", "theta_local"),
)
"""The keys of `EncoderOptions` that a checkpoint decides."""

_BERT = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "feedforward": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "pad_id": "pad_token_id",
    "token_types": "type_vocab_size",
    "norm_epsilon": "layer_norm_eps",
}
_MODERNBERT = {key: name for key, name in _BERT.items() if key != "token_types"} | {
    "norm_epsilon": "norm_eps",
    "local_attention": "local_attention",
}
# Keys with the one value that the encoder has; what a config leaves out has it.
_BERT_NEEDS = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
_MODERNBERT_NEEDS = {
    "hidden_activation": "gelu",
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
}
TYPES = ("bert", "roberta", "xlm-roberta", "modernbert")
_PUBLISHED_POSITIONS = 8192  # of ModernBERT, for an encoder without a limit of its own
_FULL, _LOCAL = "full_attention", "sliding_attention"


def read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The shape of the encoder that a config describes, by the keys in `SHAPE`.

    Args:
      config: the content of a `config.json`.
      where: that file, for messages.

    Raises:
      UserError: an architecture that is not known, or a value that the encoder cannot do.
    """
    kind = config["model_type"]
    if kind == OWN:
        return _own(config, where)
    if kind not in TYPES:
        raise UserError(
            f"{where}: model_type = {kind!r}: expected one of {', '.join((*TYPES, OWN))}; "
            "choose a checkpoint of such an encoder"
        )
    from transformers import AutoConfig  # takes seconds

    rest = {key: value for key, value in config.items() if key != "model_type"}
    try:
        full = AutoConfig.for_model(kind, **rest)
    except Exception as error:  # transformers checks keys and types by its own means
        reason = " ".join(str(error).split())
        raise UserError(f"{where}: not a config of {kind}: {reason}") from None
    modern = kind == "modernbert"
    for key, value in (_MODERNBERT_NEEDS if modern else _BERT_NEEDS).items():
        _need(where, key, getattr(full, key, value), value)
    names = _MODERNBERT if modern else _BERT
    shape = _defaults() | {key: getattr(full, name) for key, name in names.items()}
    if shape["pad_id"] is None:
        raise UserError(f"{where}: pad_token_id = None: expected the id of the padding token")
    shape["norm_epsilon"] = float(shape["norm_epsilon"])
    if modern:
        return shape | {"family": "modernbert"} | _modernbert(full, where)
    # RoBERTa counts its positions from the padding token's id on.
    return shape | {"position_offset": 0 if kind == "bert" else shape["pad_id"] + 1}


def _defaults() -> dict[str, Any]:
    plain = EncoderOptions()
    return {key: getattr(plain, key) for key in SHAPE}


def _need(where: str, key: str, value: Any, expected: Any) -> None:
    if value != expected:
        raise UserError(
            f"{where}: {key} = {value!r}: expected {expected!r}, the encoder has no other; "
            "choose another checkpoint"
        )


def _modernbert(full: Any, where: str) -> dict[str, Any]:
    """What is ModernBERT's alone: which layers see all, and the wavelengths of its positions."""
    kinds: list[str] = list(full.layer_types)
    again = [index for index, each in enumerate(kinds) if index and each == _FULL]
    every = again[0] if again else max(len(kinds), 3)
    pattern = [_LOCAL if index % every else _FULL for index in range(len(kinds))]
    _need(where, "layer_types", kinds, pattern)
    _need(where, "head_dim", getattr(full, "head_dim", None), None)
    bases = {}
    for kind in (_FULL, _LOCAL):
        rope = full.rope_parameters[kind]
        _need(where, f"rope_parameters.{kind}.rope_type", rope["rope_type"], "default")
        bases[kind] = float(rope["rope_theta"])
    return {"global_every": every, "theta_global": bases[_FULL], "theta_local": bases[_LOCAL]}


def _own(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    encoder = config.get("encoder")
    if not isinstance(encoder, Mapping):
        encoder = {}
    missing = [key for key in (*SHAPE, "window") if key not in encoder]
    if missing:
        raise UserError(
            f"{where}: encoder has no {', '.join(missing)}; expected what `jaxcoder export` or "
            "`pretrain` wrote: write it again"
        )
    found = {key: encoder[key] for key in SHAPE}
    plain = dataclasses.asdict(EncoderOptions())
    for key in (*SHAPE, "window"):
        kind = (int, float) if isinstance(plain[key], float) else type(plain[key])
        if not isinstance(encoder[key], kind) or isinstance(encoder[key], bool):
            raise UserError(
                f"{where}: encoder.{key} = {encoder[key]!r}: expected a value such as "
                f"{plain[key]!r}, as `jaxcoder export` or `pretrain` wrote: write it again"
            )
    if found["family"] == "bert" and not found["max_positions"]:  # then the window decides
        found["max_positions"] = encoder["window"] + found["position_offset"]
    return found | {"window": encoder["window"]}


def write(encoder: EncoderOptions, masked_lm: bool, start_id: int, end_id: int) -> dict[str, Any]:
    """The `config.json` of an encoder, such that transformers computes the same with it.

    Args:
      encoder: the encoder.
      masked_lm: whether what predicts masked tokens belongs to it.
      start_id: the token that a document starts with.
      end_id: the token that it ends with.

    Returns:
      A config of BertModel, RobertaModel or ModernBertModel (or their ...ForMaskedLM); where none
      of them is the same, one of model type `jaxcoder`, which transformers refuses to read.
    """
    kind = model_type(encoder)
    if kind == OWN:
        return {"model_type": OWN, "encoder": own(encoder)}
    modern = kind == "modernbert"
    names = _MODERNBERT if modern else _BERT
    config = {name: getattr(encoder, key) for key, name in names.items()}
    class_name = {"bert": "Bert", "roberta": "Roberta", "modernbert": "ModernBert"}[kind]
    config |= _MODERNBERT_NEEDS if modern else _BERT_NEEDS
    config |= {
        "model_type": kind,
        "architectures": [class_name + ("ForMaskedLM" if masked_lm else "Model")],
        "tie_word_embeddings": True,
        "dtype": "float32",
        "bos_token_id": start_id,
        "eos_token_id": end_id,
    }
    if not modern:
        rows = encoder.window + encoder.position_offset
        return config | {
            "max_position_embeddings": encoder.max_positions or rows,
            "type_vocab_size": max(encoder.token_types, 1),
            "hidden_dropout_prob": encoder.dropout,
            "attention_probs_dropout_prob": encoder.attention_rate,
        }
    rope = {_FULL: encoder.theta_global, _LOCAL: encoder.theta_local}
    return config | {
        "cls_token_id": start_id,
        "sep_token_id": end_id,
        "max_position_embeddings": encoder.max_positions or _PUBLISHED_POSITIONS,
        "layer_types": [
            _LOCAL if index % encoder.global_every else _FULL for index in range(encoder.layers)
        ],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in rope.items()
        },
    }


def own(encoder: EncoderOptions) -> dict[str, Any]:
    """What a config of model type `jaxcoder` says of an encoder: its shape and its window."""
    return {key: getattr(encoder, key) for key in (*SHAPE, "window")}


def model_type(encoder: EncoderOptions) -> str:
    """Which of transformers' models computes the same: a type in `TYPES`, or `OWN` for none."""
    if encoder.convolution:
        return OWN
    if encoder.family == "modernbert":
        return "modernbert"
    if not encoder.position_offset:
        return "bert"
    return "roberta" if encoder.position_offset == encoder.pad_id + 1 else OWN
