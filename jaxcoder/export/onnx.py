"""The ONNX format: the network as one graph, for onnxruntime and whatever else reads ONNX."""

import logging
import pathlib
import warnings

import numpy as np
import onnxruntime
import torch
from torch import nn

from jaxcoder import architectures, weights
from jaxcoder.export import side_files
from jaxcoder.export.bundle import reader_class
from jaxcoder.export.modeling import JaxcoderConfig, JaxcoderModel
from jaxcoder.export.parity import Logits, Reference
from jaxcoder.export.written import Written
from jaxcoder.trained import TrainedCoder

GRAPH = "model.onnx"
CHUNK = 2048
"""Labels computed at a time. How many fit cannot be known here: batch and length are any."""

_USAGE = """\
With onnxruntime, numpy and tokenizers, from the folder that holds this one:

```python
import sys

import onnxruntime

sys.path.insert(0, "{folder}")
from reading_jaxcoder import {root}

reader = {root}.of("{folder}")
session = onnxruntime.InferenceSession("{folder}/{graph}")
documents = reader.documents(["Woman of 62 with chest pain and fever."])
tokens, mask = reader.batch(documents)
(logits,) = session.run(None, {{"input_ids": tokens, "attention_mask": mask}})
print(reader.predictions(documents, logits, top=5))
```

A contact is a text, or an object with `contact_id`, `notes`, `medications`, `labs`, `age`, `sex`.
Batch and length of `input_ids` and `attention_mask`, both int64, are any; padding stands at the
end of a row, with 0 in the mask. Documents of like length together cost least."""


class _Logits(nn.Module):
    """The network with plain arrays for inputs and output."""

    def __init__(self, model: JaxcoderModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids, attention_mask).logits


def write(folder: pathlib.Path, reference: Reference, name: str) -> Written:
    """Writes the graph, reads it back, and compares it with the coder in JAX.

    Args:
      folder: where.
      reference: the coder, and the contacts to compare on.
      name: of the folder, for the example in its README.

    Raises:
      UserError: the two are further apart than is allowed.
    """
    coder = reference.coder
    files = side_files.write_with_reader(folder, coder)
    write_graph(network(coder, reference), folder / GRAPH)
    parity = reference.compare(side_files.reader(folder), logits_of(folder))
    own = {GRAPH: "the network with its weights, float32"}
    usage = _USAGE.format(folder=name, graph=GRAPH, root=reader_class(coder.lexicon is not None))
    return Written("ONNX", own | files, usage, parity)


def logits_of(folder: pathlib.Path) -> Logits:
    """What an exported folder computes."""
    session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])

    def logits(tokens_BxT: np.ndarray, length_B: np.ndarray) -> np.ndarray:
        mask_BxT = np.arange(tokens_BxT.shape[1]) < length_B[:, None]
        inputs = {"input_ids": tokens_BxT, "attention_mask": mask_BxT}
        arrays = {key: array.astype(np.int64) for key, array in inputs.items()}
        result: np.ndarray = session.run(None, arrays)[0]
        return result

    return logits


def network(coder: TrainedCoder, reference: Reference) -> JaxcoderModel:
    """The coder's network in PyTorch, without what reads contacts."""
    encoder, head = coder.model.encoder, coder.model.head
    config = JaxcoderConfig(
        encoder={key: getattr(encoder, key) for key in (*architectures.SHAPE, "window")},
        head={"kind": head.kind, "num_labels": head.num_labels, "width": head.width},
    )
    model = JaxcoderModel(config)
    tensors = weights.to_torch(reference.params, encoder, head)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    return model.eval()


def write_graph(model: JaxcoderModel, path: pathlib.Path) -> None:
    """Writes a network as ONNX, with a batch and a length that are known when it runs."""
    model.head.chunk = CHUNK
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    example = torch.zeros((2, model.config.encoder["window"] + 3), dtype=torch.int64)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names libraries that nobody needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter calls what torch has deprecated
        torch.onnx.export(
            _Logits(model).eval(),
            (example, torch.ones_like(example)),
            path,
            dynamo=True,
            dynamic_shapes=(dynamic, dynamic),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
