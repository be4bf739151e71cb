"""Weights from PyTorch's names and layouts to ours, and back."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcoder.errors import UserError
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.weight_names import Rule, masked_lm_names, rules

Params = dict[str, Any]

# Parts of published models that a coder does not use: poolers and the heads of other tasks, the
# tied copies of word table and bias in a masked-LM head, and buffers of older versions.
_UNUSED = re.compile(
    r"(.+\.)?(pooler|cls|lm_head|head|decoder|classifier|score|qa_outputs)\..+"
    r"|(.+\.)?embeddings\.(position_ids|token_type_ids)|(.+\.)?rotary_emb\.inv_freq"
)
_SPELT_TODAY = {"gamma": "weight", "beta": "bias"}


def _sizes(encoder: EncoderOptions, head: HeadOptions | None) -> dict[str, int]:
    """The length of each axis, unpadded."""
    sizes = {
        "V": encoder.vocab_size,
        "S": encoder.max_positions or encoder.window + encoder.position_offset,
        "N": encoder.token_types,
        "D": encoder.width,
        "E": encoder.width,
        "H": encoder.heads,
        "K": encoder.width // encoder.heads,
        "F": encoder.feedforward,
        "C": encoder.convolution,
        "1": 1,
    }
    if head:
        sizes |= {"L": head.num_labels, "P": head.width or encoder.width}
    return sizes


def _padded(encoder: EncoderOptions, head: HeadOptions | None) -> dict[str, int]:
    """The length of the axes that are padded here, so that a mesh can split them."""
    rows = -(-encoder.vocab_size // encoder.vocab_multiple) * encoder.vocab_multiple
    return {"V": rows, "L": head.rows if head else 0}


def _letters(axes: str, *leave: str) -> str:
    return "".join(letter for letter in axes if letter not in (" ", "1", *leave))


def _torch_shape(rule: Rule, sizes: Mapping[str, int]) -> tuple[int, ...]:
    lengths = {**sizes, "G": len(rule.paths)}
    return tuple(int(np.prod([lengths[x] for x in axis])) for axis in rule.torch.split())


def _to_torch(arrays: Sequence[np.ndarray], rule: Rule, sizes: Mapping[str, int]) -> np.ndarray:
    """Our arrays of a rule (one, or one for each name in braces) as PyTorch's."""
    ours, theirs = _letters(rule.ours), _letters(rule.torch, "G")
    order = [ours.index(letter) for letter in theirs]
    parts = [
        array[tuple(slice(sizes[axis]) for axis in rule.ours.split())]  # without padding
        .reshape([sizes[letter] for letter in ours])
        .transpose(order)
        for array in arrays
    ]
    return np.ascontiguousarray(
        np.stack(parts).reshape(_torch_shape(rule, sizes)), dtype=np.float32
    )


def _from_torch(array: np.ndarray, rule: Rule, sizes: Mapping[str, int]) -> list[np.ndarray]:
    """PyTorch's array as ours, without padding: one for each name in braces."""
    ours, theirs = _letters(rule.ours), _letters(rule.torch, "G")
    parts = array.reshape([len(rule.paths), *(sizes[letter] for letter in theirs)])
    shape = [sizes[axis] for axis in rule.ours.split()]
    return [part.transpose([theirs.index(x) for x in ours]).reshape(shape) for part in parts]


def to_torch(
    params: Params,
    encoder: EncoderOptions,
    head: HeadOptions | None = None,
    prefix: str = "encoder.",
) -> dict[str, np.ndarray]:
    """Returns parameters under PyTorch's names, contiguous float32, without rows of padding.

    Args:
      params: the group `encoder`, with `masked_lm` where it is wanted too, and with `head` where
        its options are given.
      encoder: the encoder's shape.
      head: the label attention's.
      prefix: before the names of the encoder.
    """
    sizes = _sizes(encoder, head)
    result = {}
    for rule in rules(encoder, head, "masked_lm" in params, prefix):
        arrays = [np.asarray(_leaf(params, path)) for path in rule.paths]
        for layer, name in rule.names(encoder):
            result[name] = _to_torch([array[layer] for array in arrays], rule, sizes)
    return result


def from_torch(
    tensors: Mapping[str, np.ndarray],
    encoder: EncoderOptions,
    head: HeadOptions | None = None,
    prefix: str = "encoder.",
    masked_lm: bool = False,
) -> Params:
    """Returns parameters as NumPy arrays, float32; their rows of padding are zeros.

    Args:
      tensors: arrays by PyTorch's names; what `unused` names may stand among them.
      encoder: the encoder's shape.
      head: the label attention's, to have the group `head` beside `encoder`.
      prefix: before the names of the encoder.
      masked_lm: to have the group `masked_lm` too.

    Raises:
      UserError: arrays that are missing, that nothing takes, or of another shape: all of them.
    """
    tensors = {_current(name): array for name, array in tensors.items()}
    sizes, padded = _sizes(encoder, head), _padded(encoder, head)
    rows = list(rules(encoder, head, masked_lm, prefix))
    expected = {name: _torch_shape(rule, sizes) for rule in rows for _, name in rule.names(encoder)}
    known = expected.keys() | set(unused(tensors, encoder, head, prefix, masked_lm))
    if problems := _mismatches(tensors, expected, known):
        raise UserError(
            f"{'; '.join(problems)}. The config beside them describes other arrays: copy both again"
        )
    params: Params = {}
    for rule in rows:
        stacked = (encoder.layers,) if "#" in rule.name else ()
        shape = [*stacked, *(padded.get(axis, sizes[axis]) for axis in rule.ours.split())]
        # The norm that modernbert's first layer lacks keeps the scale it begins with, 1.
        fill = float(rule.first > 0)
        arrays = [np.full(shape, fill, np.float32) for _ in rule.paths]
        inside = tuple(slice(sizes[axis]) for axis in rule.ours.split())
        for layer, name in rule.names(encoder):
            parts = _from_torch(tensors[name], rule, sizes)
            for array, part in zip(arrays, parts, strict=True):
                index: tuple[int | slice, ...] = (*layer, *inside)
                array[index] = part
        for path, array in zip(rule.paths, arrays, strict=True):
            *groups, leaf = path.split("/")
            place = params
            for group in groups:
                place = place.setdefault(group, {})
            place[leaf] = array
    return params


def unused(
    names: Iterable[str],
    encoder: EncoderOptions,
    head: HeadOptions | None = None,
    prefix: str = "encoder.",
    masked_lm: bool = False,
) -> list[str]:
    """Of these names those that `from_torch` leaves out: poolers, heads of other tasks, buffers."""
    rows = list(rules(encoder, head, masked_lm, prefix))
    wanted = {name for rule in rows for _, name in rule.names(encoder)}
    # A part of which one array is wanted has no other, but for the tied word table.
    parts = {name.rpartition(".")[0] for name in wanted}
    return [
        name
        for name in names
        if _UNUSED.fullmatch(_current(name))
        and (name.rpartition(".")[0] not in parts or name == "decoder.weight")
    ]


def has_masked_lm(names: Iterable[str], encoder: EncoderOptions) -> bool:
    """Whether arrays of these names are all that a masked-LM head has."""
    return masked_lm_names(encoder) <= set(map(_current, names))


def _leaf(params: Params, path: str) -> Any:
    place: Any = params
    for name in path.split("/"):
        place = place[name]
    return place


def _current(name: str) -> str:
    """A name as it is spelt today: checkpoints made from TensorFlow's have gamma and beta."""
    return re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda old: _SPELT_TODAY[old[0]], name)


def _mismatches(
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    known: Iterable[str],
) -> list[str]:
    """What is missing, wrong or unknown, with shapes; the layers of one kind of array together."""
    found: dict[tuple[str, str], list[str]] = {}

    def note(name: str, text: str) -> None:
        layer = re.search(r"(?<=\.)\d+(?=\.)", name)
        kind = name.replace(f".{layer[0]}.", ".#.", 1) if layer else name
        found.setdefault((kind, text), []).append(layer[0] if layer else "")

    for name, shape in expected.items():
        if name not in tensors:
            note(name, f"is missing, expected {list(shape)}")
        elif tensors[name].shape != shape:
            note(name, f"is {list(tensors[name].shape)}, expected {list(shape)}")
    for name in sorted(tensors.keys() - set(known)):
        note(name, f"{list(tensors[name].shape)} is unknown")
    return [
        f"{kind}{' (# = ' + ', '.join(layers) + ')' if layers[0] else ''} {text}"
        for (kind, text), layers in found.items()
    ]
