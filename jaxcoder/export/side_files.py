"""What stands beside the network in every format: how contacts are read, and what labels are."""

import dataclasses
import pathlib
from typing import Any

from jaxcoder import architectures
from jaxcoder.export import bundle
from jaxcoder.export.fused_reader import LEXICON
from jaxcoder.export.reader import CONFIG, LABEL_SPACE, Reader
from jaxcoder.trained import TrainedCoder
from jaxcoder.whole_file import write_bytes, write_json

FILES = {
    CONFIG: "shape of the network, what is read of a contact, threshold",
    LABEL_SPACE: "the codes in the order of the logits, with descriptions",
    "tokenizer.json": "tokenizer",
    "tokenizer_config.json": "the same, for transformers",
}
"""From the name of a file to what it holds."""
READER_CODE = "reading_jaxcoder.py"
"""The code of the reader, in the formats whose network is not code."""
LEXICON_FILE = {LEXICON: "lexicon: hashes of stems that stood for a code in training, no text"}


def write(folder: pathlib.Path, coder: TrainedCoder, more: dict[str, Any]) -> dict[str, str]:
    """Writes config, tokenizer, label space and, of a fused coder, the lexicon.

    Args:
      folder: of the export.
      coder: what is exported.
      more: further keys of `config.json`.

    Returns:
      From the name of each file to what it holds.
    """
    encoder, head = coder.model.encoder, coder.model.head
    fusion = coder.tuned.fusion if coder.tuned and coder.lexicon else None
    config = {
        "model_type": architectures.OWN,
        "encoder": architectures.own(encoder),
        "head": {key: getattr(head, key) for key in ("kind", "num_labels", "width")},
        "reading": dataclasses.asdict(coder.experiment.tokens.serialise),
        "special": {"start_id": coder.tokenizer.start_id, "end_id": coder.tokenizer.end_id},
        "threshold": coder.threshold,
        "fusion": fusion and dataclasses.asdict(fusion),
    }
    write_json(folder / CONFIG, config | more)
    coder.tokenizer.save(folder)
    coder.label_space.save(folder / LABEL_SPACE)
    if coder.lexicon is None:
        return FILES
    write_bytes(folder / LEXICON, coder.lexicon.to_bytes())
    return FILES | LEXICON_FILE


def write_with_reader(folder: pathlib.Path, coder: TrainedCoder) -> dict[str, str]:
    """As `write`, and the code of the reader, for a network that is not code itself."""
    source = bundle.reader_source(coder.lexicon is not None)
    write_bytes(folder / READER_CODE, source.encode())
    read = {READER_CODE: "from contacts to tokens, and from logits to codes"}
    return read | write(folder, coder, {})


def reader(folder: pathlib.Path) -> Reader:
    """The reader of an exported folder, by the folder's own code."""
    fused = (folder / LEXICON).exists()
    found: Reader = getattr(bundle.load(folder / READER_CODE), bundle.reader_class(fused)).of(
        folder
    )
    return found
