"""Published encoders: a folder in Hugging Face's format, or one fetched by name from their hub."""

import functools
import json
import os
import re
import tempfile
from typing import Any

import ml_dtypes  # noqa: F401  # teaches NumPy bfloat16
import numpy as np
import safetensors
import safetensors.numpy
from etils import epath

from jaxcoder.errors import UserError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_FILES = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors", "*.json", "vocab.txt", "merges.txt"]
_KEY = "config.model.encoder.init"


def folder(name: str, key: str = _KEY) -> epath.Path:
    """The folder that a name stands for; what is not here is fetched from the hub.

    Args:
      name: a folder, or a name on the hub such as `org/name`. A folder goes first.
      key: the key that has the name, for messages.

    Raises:
      UserError: neither a folder nor to be had from the hub.
    """
    path = epath.Path(name)
    if path.is_dir():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(
            f"{key} = {name!r}: no such folder; expected one with {CONFIG} and {WEIGHTS}, or a "
            "name on the Hugging Face hub, such as org/name"
        )
    try:
        return _fetched(name)
    except Exception as error:  # whatever network, hub or disk have to say
        raise UserError(
            f"{key} = {name!r}: no such folder, and not to be had from the Hugging Face hub "
            f"({type(error).__name__}); check the name, or download it where there is a network "
            "and name its folder"
        ) from None


@functools.cache  # so that config, tokenizer and weights are of one revision
def _fetched(name: str) -> epath.Path:
    import huggingface_hub  # takes a second, which --help need not wait for

    return epath.Path(huggingface_hub.snapshot_download(name, allow_patterns=_FILES))


def read_config(path: epath.Path) -> dict[str, Any]:
    """Reads the `config.json` of a folder.

    Raises:
      UserError: there is none, or it is not one of Hugging Face's.
    """
    file = path / CONFIG
    expected = "expected the folder of a Hugging Face model, or of `jaxcoder pretrain` or `export`"
    if not file.exists():
        raise UserError(f"{file}: not found; {expected}")
    try:
        content = json.loads(file.read_text())
    except ValueError:
        raise UserError(f"{file}: not JSON; {expected}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise UserError(f"{file}: has no model_type; {expected}")
    return content


def read_tensors(path: epath.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a folder's safetensors: of one file, or of those that an index names.

    Raises:
      UserError: there are none, or a file is not whole. Pickles are not opened.
    """
    tensors: dict[str, np.ndarray] = {}
    for file in _files(path):
        tensors |= _read(file)
    return tensors


def _files(folder: epath.Path) -> list[epath.Path]:
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            if not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
                raise ValueError  # a file elsewhere, or none that is opened
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{index}: not an index of safetensors; copy the folder again"
            ) from None
        for name in names:
            if not (folder / name).exists():
                raise UserError(f"{folder / name}: not found, though {INDEX} names it")
        return [folder / name for name in names]
    pickles = [path.name for path in folder.iterdir() if path.name.endswith((".bin", ".pt"))]
    if pickles:
        raise UserError(
            f"{folder}: has {pickles[0]} and no {WEIGHTS}; a pickle can run code when it is "
            "opened, and is not: convert it where you trust it, with AutoModel.from_pretrained"
            "(FOLDER).save_pretrained(OTHER) of transformers"
        )
    raise UserError(
        f"{folder}: no {WEIGHTS}; expected the weights of an encoder. Of a model on the hub that "
        "has pickles alone, make them where you trust it, with AutoModel.from_pretrained(NAME)"
        ".save_pretrained(FOLDER) of transformers"
    )


def _read(path: epath.Path) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        local = os.fspath(path)
        if not os.path.exists(local):  # in a bucket
            local = os.path.join(scratch, path.name)
            path.copy(local)
        try:
            return safetensors.numpy.load_file(local)
        except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
            raise UserError(f"{path}: cannot be read ({error}); copy the file again") from None
