"""Measures speed and memory of a part, as ratios within one run.

  jaxcoder bench attention         self-attention by length: time and peak memory of each way
  jaxcoder bench epoch             an epoch of a corpus: real tokens/s, against padded PyTorch
  jaxcoder bench export            an exported coder: documents/s in JAX, PyTorch and onnxruntime
  jaxcoder bench input             token records to batches: records/s a core, against the floor
  jaxcoder bench label_attention   the label head: peak memory and time against the naive form
  jaxcoder bench labs              a large laboratory relation: time and peak memory
  jaxcoder bench metrics           metrics, streamed: time and memory, against scikit-learn
  jaxcoder bench parity            the encoder against transformers in PyTorch: the max difference
  jaxcoder bench planted           what the synthetic cohort planted, and what a run found of it
  jaxcoder bench population        contact records at two sizes, and a projection for 5.8 million
  jaxcoder bench records           contact records: two layouts, and from tables on all cores
  jaxcoder bench synthetic         the synthetic cohort: contacts a second, memory at two sizes
  jaxcoder bench tokens            token records: contacts a second, against the bare tokenizer
  jaxcoder bench train_step        a training step: tokens/s, use of the machine, against PyTorch

Options of one: jaxcoder bench NAME --help
"""

import difflib
import importlib
from collections.abc import Sequence

from jaxcoder import entry
from jaxcoder.errors import UserError

# In the order of the docstring, which describes each.
NAMES = (
    *("attention", "epoch", "export", "input", "label_attention", "labs", "metrics", "parity"),
    *("planted", "population", "records", "synthetic", "tokens", "train_step"),
)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark that the first argument names."""
    if not argv or argv[0] in ("-h", "--help", "--helpfull", "--helpshort"):
        print((__doc__ or "").strip())
        return
    if argv[0] not in NAMES:
        near = difflib.get_close_matches(argv[0], NAMES, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(NAMES)}"
        raise UserError(f"{argv[0]!r}: no such benchmark; {remedy}")
    importlib.import_module(f"jaxcoder.bench.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    entry.run(main)
