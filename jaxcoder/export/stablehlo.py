"""The StableHLO format: the network as compiled programs for JAX or any other XLA runtime."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.export
import numpy as np
import safetensors.numpy

from jaxcoder.export import side_files
from jaxcoder.export.bundle import reader_class
from jaxcoder.export.parity import EXACT, Reference
from jaxcoder.export.written import Written
from jaxcoder.models import coder as model
from jaxcoder.models.layout import MIB, Layout
from jaxcoder.whole_file import write_bytes

PLATFORMS = ("cpu", "tpu", "cuda")
WEIGHTS = "params.safetensors"
LENGTHS, SHORTEST = 4, 128
"""Padded lengths of documents, each a program, at most so many; and the least."""
CHUNK = 512
"""Labels computed at a time. How many fit cannot be known here: the batch has any size."""

_USAGE = """\
With jax, numpy, safetensors and flatbuffers alone, on {platforms}, from the folder that holds
this one:

```python
import jax, numpy as np
from jax import export
from safetensors.numpy import load_file

params = {{}}
for name, array in load_file("{folder}/{weights}").items():
    *groups, leaf = name.split("/")
    place = params
    for group in groups:
        place = place.setdefault(group, {{}})
    place[leaf] = array
params = jax.device_put(params)


def logits_of(documents):  # lists of token ids; float32 [documents, labels]
    lengths = np.array([len(ids) for ids in documents], np.int32)
    padded = min(length for length in {lengths} if length >= lengths.max())
    tokens = np.zeros((len(documents), padded), np.int32)
    for row, ids in enumerate(documents):
        tokens[row, : len(ids)] = ids
    with open(f"{folder}/logits_{{padded}}.stablehlo", "rb") as file:
        program = export.deserialize(bytearray(file.read()))
    return np.asarray(jax.jit(program.call)(params, tokens, lengths))


print(logits_of([[{start}, 20, 21, {end}], [{start}, 30, {end}]]).shape)
```

And from contacts to codes, with tokenizers too:

```python
import sys

sys.path.insert(0, "{folder}")
from reading_jaxcoder import {root}

reader = {root}.of("{folder}")
documents = reader.documents(["Woman of 62 with chest pain and fever."])
print(reader.predictions(documents, logits_of([each.ids for each in documents]), top=5))
```"""


def padded_lengths(max_tokens: int) -> tuple[int, ...]:
    """The lengths that documents are padded to, rising; the last has room for the longest."""
    halves = [-(-max_tokens // 2**power) for power in range(LENGTHS)]
    return tuple(sorted({-(-half // SHORTEST) * SHORTEST for half in halves}))


def write(folder: pathlib.Path, reference: Reference, name: str) -> Written:
    """Writes a program for each length and the weights, reads them back, and compares.

    Args:
      folder: where.
      reference: the coder, and the contacts to compare on.
      name: of the folder, for the example in its README.

    Raises:
      UserError: what was written and the coder are further apart than is allowed.
    """
    coder = reference.coder
    files = side_files.write_with_reader(folder, coder)
    write_bytes(folder / WEIGHTS, safetensors.numpy.save(_flat(reference.params)))
    lengths = padded_lengths(coder.experiment.tokens.serialise.max_tokens)
    programs = {}
    for length in lengths:
        path = folder / f"logits_{length}.stablehlo"
        write_bytes(path, program(coder.model, reference.params, length))
        programs[length] = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)

    def logits(tokens_BxT: np.ndarray, length_B: np.ndarray) -> np.ndarray:
        padded = min(length for length in lengths if length >= tokens_BxT.shape[1])
        tokens_BxT = np.pad(tokens_BxT, ((0, 0), (0, padded - tokens_BxT.shape[1])))
        return np.asarray(programs[padded](reference.params, tokens_BxT, length_B))

    parity = reference.compare(side_files.reader(folder), logits)
    own = {
        **{f"logits_{each}.stablehlo": f"network, documents of {each} tokens" for each in lengths},
        WEIGHTS: "weights, float32",
    }
    usage = _USAGE.format(
        platforms=", ".join(PLATFORMS),
        folder=name,
        weights=WEIGHTS,
        lengths=lengths,
        start=coder.tokenizer.start_id,
        end=coder.tokenizer.end_id,
        root=reader_class(coder.lexicon is not None),
    )
    return Written("StableHLO", own | files, usage, parity)


def program(options: model.CoderOptions, params: Any, length: int) -> bytes:
    """Exports logits(params, tokens int32 [B, T], lengths int32 [B]), float32 [B, L], of any B.

    Args:
      options: the coder.
      params: its parameters, for their shapes.
      length: T.

    Returns:
      A serialised `jax.export.Exported` for `PLATFORMS`, with StableHLO inside.
    """
    head = dataclasses.replace(options.head, chunk=CHUNK)
    options = dataclasses.replace(options, head=head)
    layout = Layout(store_bytes=32 * MIB)  # of one document, for the batch has any size

    def logits(params: Any, tokens_BxT: jax.Array, length_B: jax.Array) -> jax.Array:
        def of_one(tokens_T: jax.Array, length: jax.Array) -> jax.Array:
            return model.apply(options, params, tokens_T[None], length[None], layout=layout)[0][0]

        with jax.default_matmul_precision(EXACT):
            return jax.vmap(of_one)(tokens_BxT, length_B)

    (batch,) = jax.export.symbolic_shape("b")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(
        shapes,
        jax.ShapeDtypeStruct((batch, length), np.int32),
        jax.ShapeDtypeStruct((batch,), np.int32),
    )
    return bytes(exported.serialize())


def _flat(params: Any) -> dict[str, np.ndarray]:
    leaves, _ = jax.tree.flatten_with_path(params)
    return {
        "/".join(str(part.key) for part in path): np.ascontiguousarray(leaf)
        for path, leaf in leaves
    }
