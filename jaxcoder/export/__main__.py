"""Exports a trained coder, to be served without jaxcoder.

    jaxcoder export --workdir runs/demo --format pytorch --output coder
    jaxcoder export --workdir runs/demo --format onnx --output coder_onnx
    jaxcoder export --workdir runs/demo --format stablehlo --output coder_stablehlo

The folder holds weights, tokenizer, label space, threshold, the code that reads contacts, and a
model card, README.md. pytorch needs torch and transformers where it is served, onnx onnxruntime,
stablehlo jax alone. The best checkpoint is exported, in float32. What was written is read back and
compared with the coder on contacts of the validation split, where the records are there; a logit
that differs by more than 1e-4 stops the export. The folder appears whole or not at all, and
replaces an earlier export alone.
"""

import importlib
import importlib.util
import pathlib
import sys
import time

from absl import flags

from jaxcoder import entry, trained
from jaxcoder.errors import UserError
from jaxcoder.export import sample
from jaxcoder.export.card import model_card
from jaxcoder.export.folder import check_replaceable, whole_folder, write_record
from jaxcoder.export.parity import Reference
from jaxcoder.predict import check_fused
from jaxcoder.trained import TrainedCoder
from jaxcoder.whole_file import write_bytes
from jaxcoder.workdir import Workdir

FORMATS = {"pytorch": ("torch",), "onnx": ("torch", "onnx", "onnxscript", "onnxruntime")}
FORMATS |= {"stablehlo": ()}
"""From each format to what it needs beyond jaxcoder's own dependencies."""
README = "README.md"


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder that `jaxcoder train` has written.", required=True)
    flags.DEFINE_string("output", None, "Folder to write.", required=True)
    flags.DEFINE_enum("format", "pytorch", list(FORMATS), "What it is to be served with.")
    flags.DEFINE_string("data_dir", "", "Where the records lie, if not where the config says.")


def main() -> None:
    """Exports.

    Raises:
      UserError: a mistake in the flags or the workdir, or an export that is not the coder.
    """
    wanted = flags.FLAGS
    started = time.monotonic()
    check_replaceable(wanted.output)  # before the long part
    output = pathlib.Path(wanted.output)
    if library := missing_library(wanted.format):
        extra = "torch" if wanted.format == "pytorch" else "onnx"
        raise UserError(
            f"--format {wanted.format}: needs {library}, which is not installed; "
            f"pip install 'jaxcoder[{extra}]'"
        )
    workdir = Workdir(wanted.workdir)
    coder = restore(workdir)
    drawn = sample.draw(workdir, coder, wanted.data_dir)
    if drawn.without:
        print(f"compared on {drawn.origin}: {drawn.without}", file=sys.stderr)
    reference = Reference(coder, drawn.contacts)
    writer = importlib.import_module(f"jaxcoder.export.{wanted.format}")
    name = output.absolute().name
    with whole_folder(wanted.output) as folder:
        written = writer.write(folder, reference, name)
        card = model_card(name, workdir, coder, drawn, written)
        write_bytes(folder / README, card.encode())
        parity = written.parity
        write_record(
            folder,
            {
                "format": wanted.format,
                "step": coder.step,
                "label_space": coder.label_space.hash,
                "parity": parity._asdict(),
            },
        )
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(
        f"{wanted.output}: {size / 2**20:.1f} MiB in {time.monotonic() - started:.0f} s; on "
        f"{parity.documents} {drawn.origin} logits differ by at most {parity.logits:.1g}"
    )


def restore(workdir: Workdir) -> TrainedCoder:
    """Reads the best checkpoint of a workdir, to compute in float32.

    Raises:
      UserError: there is none, or its threshold has yet to be tuned.
    """
    coder = trained.restore(workdir, exact=True)
    check_fused(coder, workdir.path, "best")
    if coder.tuned is None:
        raise UserError(
            f"{workdir.checkpoints}: no best checkpoint yet, only that of step {coder.step}, which "
            "no evaluation has chosen; train until the first evaluation"
        )
    return coder


def missing_library(name: str) -> str:
    """The first library that a format needs and that is not installed; empty for none."""
    absent = (each for each in FORMATS[name] if importlib.util.find_spec(each) is None)
    return next(absent, "")


if __name__ == "__main__":
    entry.launch(define_flags, main, __doc__)
