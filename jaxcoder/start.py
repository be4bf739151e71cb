"""What a run starts from: a published or pretrained encoder, and labels of an exported coder."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxcoder import architectures, hub, pretrained, weight_names
from jaxcoder.errors import UserError
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.encoder_options import EncoderOptions
from jaxcoder.models.label_attention import HeadOptions
from jaxcoder.records.codes import LabelSpace
from jaxcoder.tokens.serialise import SerialiseOptions
from jaxcoder.tokens.tokenizer import load_tokenizer

Params = dict[str, Any]

_ENCODER = "model.encoder."
INIT = _ENCODER + "init"
"""The key that names a checkpoint."""
_SPARE_ROWS = 128  # word tables are often padded to a multiple of 64 or 128


def resolved(
    config: Mapping[str, Any], given: Collection[str], kept: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Fills in what a checkpoint decides of a config with `model.encoder.init`.

    That is the encoder's shape, the window of bert (512 tokens or what its position table has) and
    the tokenizer. The result is complete: what is done with it needs the checkpoint no more.

    Args:
      config: the experiment, as plain values.
      given: dotted keys that the user has set; the others are defaults and may be replaced.
      kept: the config of a run that goes on: what it was started with counts, and the checkpoint
        need not be there.

    Returns:
      The config; the same where no checkpoint is named.

    Raises:
      UserError: no such checkpoint, one that the encoder cannot be, a key that contradicts it,
        documents longer than it has positions for, or a tokenizer of another model.
    """
    encoder = config.get("model", {}).get("encoder", {})
    name = encoder.get("init", "")
    if not name:
        return dict(config)
    tokens = config.get("tokens", {})
    own = {key: value for key, value in encoder.items() if _ENCODER + key in given}
    before = kept["model"]["encoder"] if kept else {}
    if before.get("init"):
        shape = {key: before[key] for key in architectures.SHAPE}
        own.setdefault("window", before["window"])
        path = kept["tokens"]["tokenizer"]["path"] if kept else ""
    else:
        shape, path = pretrained.shape(name), str(hub.folder(name))
    options = pretrained.with_shape(shape, name, own)
    theirs, path = path, tokens.get("tokenizer", {}).get("path") or path
    if not kept or (epath.Path(path) / "tokenizer.json").exists():
        _check_tokenizer(path, options, path == theirs)
    longest = tokens.get("serialise", {}).get("max_tokens", SerialiseOptions.max_tokens)
    if options.family == "modernbert" and 0 < options.max_positions < longest:
        raise UserError(
            f"config.tokens.serialise.max_tokens = {longest}: {name} has positions for documents "
            f"of {options.max_positions} tokens; set at most that"
        )
    encoder = dataclasses.asdict(EncoderOptions()) | own
    encoder |= {key: getattr(options, key) for key in ("init", "window", *architectures.SHAPE)}
    tokenizer = tokens.get("tokenizer", {}) | {"path": path}
    return {
        **config,
        "model": config["model"] | {"encoder": encoder},
        "tokens": tokens | {"tokenizer": tokenizer},
    }


def _check_tokenizer(path: str, encoder: EncoderOptions, its_own: bool) -> None:
    """Raises UserError where a tokenizer does not belong to an encoder's weights.

    Some encoders have far more rows than their own tokenizer has tokens, left for more of them; of
    another tokenizer that is a sign that it belongs to another encoder.
    """
    tokenizer = load_tokenizer(path)
    rows, tokens = encoder.vocab_size, tokenizer.vocab_size
    here = f"config.tokens.tokenizer.path = {path}"
    remedy = f"it is another model's: leave the key out to have that of {encoder.init}"
    if its_own:
        here = str(epath.Path(path) / "tokenizer.json")
        remedy = "tokenizer and weights are not of one model: copy the folder again"
    least = 1 if its_own else max(rows - _SPARE_ROWS + 1, 1)
    if not least <= tokens <= rows:
        raise UserError(
            f"{here}: has {tokens} tokens, but the word table of {encoder.init} has {rows} rows; "
            f"expected {least} to {rows} tokens, {remedy}"
        )
    if tokenizer.pad_id != encoder.pad_id:
        raise UserError(
            f"{here}: its padding token is {tokenizer.pad_id}, expected {encoder.pad_id} as in "
            f"{encoder.init}; {remedy}"
        )


def initialised(
    params: Params,
    shapes: Params,
    model: CoderOptions,
    label_space: LabelSpace,
    say: Callable[[str], None],
) -> Params:
    """Puts the weights that a config names in the place of random ones.

    Args:
      params: random ones, on their devices.
      shapes: the same as `jax.ShapeDtypeStruct` with shardings.
      model: the coder.
      label_space: what its labels are.
      say: takes a line about what was read.

    Raises:
      UserError: weights that are not there or do not fit.
    """
    params = dict(params)
    if model.encoder.init:
        loaded = pretrained.load(model.encoder.init, model.encoder, say)
        params["encoder"] = jax.tree.map(put, loaded, shapes["encoder"])
    if model.head.init:
        theirs, labels = pretrained.load_head(model.head.init, model.encoder, model.head)
        params["head"] = _head(
            params["head"], shapes["head"], theirs, model.head, labels, label_space
        )
        shared = len(set(labels.codes) & set(label_space.codes))
        anew = len(label_space) - shared
        say(
            f"label attention from {model.head.init}: {shared} of {len(label_space)} labels are "
            f"among its {len(labels)}" + (f", {anew} start anew" if anew else "")
        )
    return params


def _head(
    params: Params,
    shapes: Params,
    theirs: Params,
    head: HeadOptions,
    labels: LabelSpace,
    label_space: LabelSpace,
) -> Params:
    """The label attention with the weights of another; labels that it lacks stay as they are."""
    place = {code: row for row, code in enumerate(labels.codes)}
    pairs = [(row, place[code]) for row, code in enumerate(label_space.codes) if code in place]
    mine, source = np.array(pairs, np.int32).reshape(-1, 2).T
    tables = weight_names.label_tables(head)
    result = {}
    for name, shape in shapes.items():
        if name not in tables:
            result[name] = jax.tree.map(put, theirs[name], shape)
            continue
        rows, known = np.zeros(shape.shape, np.float32), np.zeros(shape.shape, bool)
        rows[mine], known[mine] = theirs[name][source], True
        choose = jax.jit(jnp.where, out_shardings=shape.sharding)
        where = jax.ShapeDtypeStruct(shape.shape, bool, sharding=shape.sharding)
        result[name] = choose(put(known, where), put(rows, shape), params[name])
    return result


def put(array: np.ndarray, shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Places an array that every process holds whole on the devices that have its parts."""
    return jax.make_array_from_callback(shape.shape, shape.sharding, lambda index: array[index])
