"""Encoders on disk: folders of Hugging Face, `jaxcoder pretrain` and `jaxcoder export`.

Read and written without PyTorch, as safetensors; pickles are not opened.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from etils import epath

from jaxcoder import architectures, hub, weights
from jaxcoder.errors import UserError
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.records.codes import LabelSpace
from jaxcoder.tokens.tokenizer import Tokenizer
from jaxcoder.whole_file import as_json, write_bytes

Params = dict[str, Any]
_KEY = "config.model.encoder"
_WORD_TABLES = ("embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight")
# Of masked-LM heads: the word table once more.
_LAST_LAYERS = ("cls.predictions.decoder.weight", "lm_head.decoder.weight", "decoder.weight")
_LONGEST_WINDOW = 512


def shape(name: str) -> dict[str, Any]:
    """The shape of a checkpoint's encoder, by the keys in `architectures.SHAPE`.

    Args:
      name: a folder, or a name on the Hugging Face hub.

    Raises:
      UserError: no such checkpoint, or an architecture that the encoder cannot be.
    """
    folder = hub.folder(name)
    return architectures.read(hub.read_config(folder), str(folder / hub.CONFIG))


def options_of(name: str, **given: Any) -> EncoderOptions:
    """Options of an encoder that starts from a checkpoint.

    Args:
      name: as of `shape`.
      **given: other options, such as `dropout`; of the shape only what the checkpoint has too.
        Without `window` that of bert is the folder's own, or 512 tokens, or what its position
        table has.

    Raises:
      UserError: as `shape`; or an option that contradicts the checkpoint, or is none.
    """
    return with_shape(shape(name), name, given)


def with_shape(found: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> EncoderOptions:
    """As `options_of`, of a shape that is known already."""
    found, window = {**found}, found.get("window", _LONGEST_WINDOW)
    found.pop("window", None)  # a choice, not a shape: other windows fit the same weights
    for key in found.keys() & given.keys():
        if given[key] != found[key]:
            raise UserError(
                f"{_KEY}.{key} = {given[key]!r}: {name} has {found[key]!r}; leave the key out, "
                "the checkpoint decides it"
            )
    values = {"init": name, **found, **given}
    if found["family"] == "bert":
        room = found["max_positions"] - found["position_offset"]
        values.setdefault("window", min(window, room))
        if values["window"] > room:
            raise UserError(
                f"{_KEY}.window = {values['window']}: the position table of {name} has "
                f"{found['max_positions']} rows, for windows of {room} tokens; set at most {room}"
            )
    try:
        return EncoderOptions(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{_KEY} with init = {name}: {error}") from None


def load(
    name: str, options: EncoderOptions, say: Callable[[str], None] = lambda line: None
) -> Params:
    """Reads the weights of an encoder.

    Args:
      name: as of `shape`.
      options: the encoder, as from `options_of`.
      say: takes one line about what was read.

    Returns:
      The group `encoder`, NumPy float32.

    Raises:
      UserError: no weights, or others than the encoder needs.
    """
    folder = hub.folder(name)
    tensors, prefix = _named(folder)
    params = _fitted(folder, lambda: weights.from_torch(tensors, options, None, prefix)["encoder"])
    left = weights.unused(tensors, options, None, prefix)
    taken = [array for name, array in tensors.items() if name not in left]
    parts = sorted({_part(name.removeprefix(prefix)) for name in left})
    say(
        f"encoder from {name}: {len(taken)} arrays, "
        f"{sum(array.size for array in taken):,} parameters of {options.family}"
        + (f"; {len(left)} arrays are of no encoder: {', '.join(parts)}" if left else "")
    )
    return params


def load_masked_lm(name: str, options: EncoderOptions) -> Params | None:
    """Reads what predicts masked tokens; None where the checkpoint has none.

    Args:
      name: as of `shape`.
      options: the encoder, as from `options_of`.

    Raises:
      UserError: the checkpoint has another one than ours, for instance one with an own last layer.
    """
    folder = hub.folder(name)
    tensors, prefix = _named(folder)
    if not weights.has_masked_lm(tensors, options):
        return None
    activation = hub.read_config(folder).get("classifier_activation", "gelu")
    if options.family == "modernbert" and activation != "gelu":
        raise UserError(
            f"{folder / hub.CONFIG}: classifier_activation = {activation!r}: expected 'gelu', what "
            "predicts masked tokens here has no other; choose another checkpoint"
        )
    params = _fitted(
        folder, lambda: weights.from_torch(tensors, options, None, prefix, masked_lm=True)
    )
    word = params["encoder"]["embedding"]["word"][: options.vocab_size]
    for last in _LAST_LAYERS:
        if last in tensors and not np.array_equal(np.asarray(tensors[last], np.float32), word):
            raise UserError(
                f"{folder}: {last} is not the word table, as it is in the encoders that can be "
                "pretrained further; choose another checkpoint"
            )
    return params["masked_lm"]


def load_head(name: str, encoder: EncoderOptions, head: HeadOptions) -> tuple[Params, LabelSpace]:
    """Reads the label attention of a folder of `jaxcoder export`.

    Args:
      name: the folder.
      encoder: the encoder that stands before it.
      head: the label attention, of any label space.

    Returns:
      The group `head`, NumPy float32, unpadded, and what its labels are.

    Raises:
      UserError: not such a folder, or a label attention of another kind or width.
    """
    key = "config.model.head.init"
    folder = hub.folder(name, key)
    file = folder / hub.CONFIG
    config = hub.read_config(folder)
    theirs = config.get("head")
    if config["model_type"] != architectures.OWN or not isinstance(theirs, Mapping):
        raise UserError(f"{key} = {name}: {file} has no head; expected a folder of jaxcoder export")
    own = with_shape(architectures.read(config, str(file)), name, {})
    width = own.width
    for what, have, want in (
        ("kind", theirs.get("kind"), head.kind),
        ("width", theirs.get("width") or width, head.width or encoder.width),
        ("encoder width", width, encoder.width),
    ):
        if have != want:
            raise UserError(
                f"{key} = {name}: its head has {what} {have!r}, config.model has {want!r}; "
                "set the same, or leave head.init out"
            )
    space = LabelSpace.load(folder / "label_space.json")
    plain = HeadOptions(
        kind=head.kind, num_labels=len(space), width=head.width or encoder.width, label_multiple=1
    )
    tensors, prefix = _named(folder)
    params = _fitted(folder, lambda: weights.from_torch(tensors, own, plain, prefix)["head"])
    return params, space


def save(
    folder: epath.PathLike, options: EncoderOptions, params: Params, tokenizer: Tokenizer
) -> None:
    """Writes an encoder so that `load`, and AutoModel of transformers, read it.

    An encoder that is there already is replaced at one stroke where the weights alone are others,
    as in the course of a run. Another one goes first, its `config.json`, without which a folder is
    none, before the rest, and that of the new one comes last.

    Args:
      folder: where.
      options: the encoder.
      params: the group `encoder`, and `masked_lm` where there is one.
      tokenizer: that of the encoder.
    """
    folder = epath.Path(folder)
    kind, masked_lm = architectures.model_type(options), "masked_lm" in params
    prefix = {"modernbert": "model.", architectures.OWN: "encoder."}.get(kind, f"{kind}.")
    if not masked_lm and kind != architectures.OWN:
        prefix = ""
    tensors = weights.to_torch(params, options, None, prefix)
    if options.family == "bert" and not options.token_types and kind != architectures.OWN:
        # transformers always has this table; of zeros it changes nothing.
        row = np.zeros((1, options.width), np.float32)
        tensors[f"{prefix}embeddings.token_type_embeddings.weight"] = row
    config = architectures.write(options, masked_lm, tokenizer.start_id, tokenizer.end_id)
    beside = tokenizer.files() | {hub.CONFIG: as_json(config)}
    same = all(_holds(folder / name, content) for name, content in beside.items())
    if not same:
        (folder / hub.CONFIG).unlink(missing_ok=True)
    for left in folder.glob(".*.tmp"):  # by a process that was killed while it wrote
        left.unlink()
    content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    write_bytes(folder / hub.WEIGHTS, content)
    if not same:
        for name, content in beside.items():
            write_bytes(folder / name, content)


def _holds(file: epath.Path, content: bytes) -> bool:
    return file.exists() and file.read_bytes() == content


def _fitted(folder: epath.Path, read: Callable[[], Params]) -> Params:
    try:
        return read()
    except UserError as error:
        raise UserError(f"{folder / hub.WEIGHTS}: {error}") from None


def _part(name: str) -> str:
    """The part of a model that an array belongs to, such as `pooler` or `cls`."""
    return name.split(".")[0] if not name.startswith("embeddings.") else name


def _named(folder: epath.Path) -> tuple[dict[str, np.ndarray], str]:
    """All arrays of a folder, and what stands before the names of its encoder."""
    tensors = hub.read_tensors(folder)
    for name in tensors:
        for table in _WORD_TABLES:
            if name.endswith(table):
                return tensors, name.removesuffix(table)
    return tensors, ""
