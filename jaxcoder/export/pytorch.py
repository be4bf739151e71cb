"""The PyTorch format: a folder that transformers loads, with its own readable code."""

import json
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from transformers.utils import logging as transformers_logging

from jaxcoder import weights
from jaxcoder.export import bundle, side_files
from jaxcoder.export.modeling import CODE
from jaxcoder.export.parity import Logits, Reference
from jaxcoder.export.reader import CONFIG
from jaxcoder.export.written import Written
from jaxcoder.whole_file import write_bytes

WEIGHTS = "model.safetensors"
_USAGE = """\
From the folder that holds this one:

```python
from transformers import AutoModel

model = AutoModel.from_pretrained("{folder}", trust_remote_code=True)
for contact in model.predict(["Woman of 62 with chest pain and fever."], top=5):
    print(contact["codes"])
```

A contact is a text, or an object with `contact_id`, `notes`, `medications`, `labs`, `age`, `sex`.
`{code}` is all the code there is; with this folder on the path,
`from modeling_jaxcoder import {root}` and `{root}.from_pretrained("{folder}")` do the same
without `trust_remote_code`. Needs Python 3.11, torch and transformers."""


def write(folder: pathlib.Path, reference: Reference, name: str) -> Written:
    """Writes the folder's files, loads what was written, and compares it with the coder in JAX.

    Args:
      folder: where.
      reference: the coder, and the contacts to compare on.
      name: of the folder, for the example in its README.

    Raises:
      UserError: the two are further apart than is allowed.
    """
    coder = reference.coder
    root = "FusedJaxcoderModel" if coder.lexicon else "JaxcoderModel"
    classes = {"AutoConfig": "JaxcoderConfig", "AutoModel": root}
    files = side_files.write(
        folder,
        coder,
        {
            "architectures": [root],
            "auto_map": {
                key: f"{CODE.removesuffix('.py')}.{each}" for key, each in classes.items()
            },
            "dtype": "float32",
        },
    )
    write_bytes(folder / CODE, bundle.modeling_source(coder.lexicon is not None).encode())
    tensors = weights.to_torch(reference.params, coder.model.encoder, coder.model.head)
    write_bytes(folder / WEIGHTS, safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    model = load(folder)
    parity = reference.compare(model.reader, _logits_of(model), model.predict)
    own = {CODE: "the model, all of its code", WEIGHTS: "weights, float32"}
    return Written("PyTorch", own | files, _USAGE.format(folder=name, code=CODE, root=root), parity)


def load(folder: pathlib.Path) -> Any:
    """The model of an exported folder, by its own code."""
    transformers_logging.disable_progress_bar()  # it does not ask whether this is a terminal
    root = json.loads((folder / CONFIG).read_text())["architectures"][0]
    return getattr(bundle.load(folder / CODE), root).from_pretrained(folder)


def logits_of(folder: pathlib.Path) -> Logits:
    """What an exported folder computes."""
    return _logits_of(load(folder))


def _logits_of(model: Any) -> Logits:
    def logits(tokens_BxT: np.ndarray, length_B: np.ndarray) -> np.ndarray:
        mask_BxT = np.arange(tokens_BxT.shape[1]) < length_B[:, None]
        with torch.inference_mode():
            result = model(torch.from_numpy(tokens_BxT).long(), torch.from_numpy(mask_BxT).long())
        array: np.ndarray = result.logits.numpy()
        return array

    return logits
