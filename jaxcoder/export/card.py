"""The model card: README.md of an exported folder, for the one who is to serve the coder."""

import json
from collections.abc import Iterator
from typing import Any

from jaxcoder import __version__
from jaxcoder.export.parity import TOLERANCE
from jaxcoder.export.sample import Sample
from jaxcoder.export.written import Written
from jaxcoder.records.schema import SPLITS
from jaxcoder.trained import TrainedCoder
from jaxcoder.workdir import Workdir

_METRICS = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "micro_precision": "precision",
    "micro_recall": "recall",
    "recall_at_10": "recall@10",
    "map": "MAP",
}
_LIMITS = """\
- Probabilities are for a person who codes, not instead of one. Nobody has validated this model for
  clinical use.
- It learnt what was *coded*, which is less than what the patients *had*, at the place and time of
  its training data. Elsewhere, measure it anew before it is used.
- Codes that are not in `label_space.json` are never predicted.
- Weights that were learnt from patients' texts may give some of these away: share them as the
  data's owner allows.
"""


def model_card(
    name: str, workdir: Workdir, coder: TrainedCoder, sample: Sample, written: Written
) -> str:
    """Writes the card; it holds no text of a contact and no path of this machine.

    Args:
      name: of the folder.
      workdir: of the coder; its evaluations are the metrics.
      coder: what was exported.
      sample: what it was compared on.
      written: what the format tells.
    """
    parity = written.parity
    files = "\n".join(f"| `{file}` | {text} |" for file, text in written.files.items())
    return f"""\
# {name}

A medical coding model: from a patient's hospital contact (notes, medications, laboratory results)
to ICD codes with probabilities. Exported as {written.format} by jaxcoder {__version__}, from the
checkpoint of training step {coder.step}.

## Use

{written.usage}

## Model

{_model(coder)}

## Data

{_data(coder, sample)}

## Scores

{_scores(workdir, coder)}

## Parity

On {parity.documents} {sample.origin}, the logits of this folder and those of the coder in JAX
differ by at most {parity.logits:.1g} (the greatest is {parity.greatest:.1f}); probabilities, all
the way from the contacts, by at most {parity.probabilities:.1g}. Both computed in float32, this
folder on a CPU and JAX on {parity.platform}. With more than {TOLERANCE:g}, an export is refused.

## Intended use, and limits

For people who code hospital contacts, as suggestions to confirm, and for research.

{_LIMITS}
## Files

| | |
|---|---|
{files}
"""


def _model(coder: TrainedCoder) -> str:
    encoder, head = coder.model.encoder, coder.model.head
    reading = coder.experiment.tokens.serialise
    sight = f"windows of {encoder.window} tokens"
    if encoder.family == "modernbert":
        sight = f"1 layer in {encoder.global_every} global, others {encoder.local_attention} tokens"
    convolution = f", convolution over {encoder.convolution} tokens" if encoder.convolution else ""
    lines = [
        f"- encoder: {encoder.family}, {encoder.layers} layers of width {encoder.width}, {sight}"
        f"{convolution}",
        f"- label attention: {head.kind}, {head.num_labels:,} labels",
        f"- reads {', '.join(reading.sections)}, at most {reading.max_tokens:,} tokens a contact; "
        f"of longer ones the {reading.keep} of each section",
        f"- a code is assigned where its probability exceeds {coder.threshold:.4g}",
    ]
    if (trained_in := coder.experiment.model.encoder.dtype) != "float32":
        lines.append(
            f"- computes in float32; it was trained, and its scores below measured, in {trained_in}"
        )
    if coder.lexicon is not None:
        lines.insert(2, "- fused with a lexicon of strings that were evidence in training")
    return "\n".join(lines)


def _data(coder: TrainedCoder, sample: Sample) -> str:
    space, source = coder.label_space, coder.experiment.records.source
    counted = f", {sample.trained_on:,} training contacts" if sample.trained_on else ""
    return (
        f"Source `{source}`{counted}. Codes at granularity `{space.granularity}`, of at least "
        f"{space.min_count} training contact{'s' * (space.min_count > 1)} each."
    )


def _scores(workdir: Workdir, coder: TrainedCoder) -> str:
    rows = list(_rows(workdir, coder))
    if not rows:
        return "Not evaluated yet: `jaxcoder evaluate` before the export writes them here."
    head = " | ".join(["split", "contacts", *_METRICS.values()])
    return "\n".join([f"| {head} |", f"|{'---|' * (2 + len(_METRICS))}", *rows])


def _rows(workdir: Workdir, coder: TrainedCoder) -> Iterator[str]:
    """A row for each split that this very checkpoint was evaluated on."""
    for split in SPLITS:
        folder = workdir.evaluation(split)
        try:
            metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
            step = json.loads((folder / "details.json").read_text()).get("step")
        except (OSError, ValueError):
            continue
        if step == coder.step:
            cells = [f"{metrics[key]:.3f}" for key in _METRICS]
            yield f"| {' | '.join([split, format(metrics['num_contacts'], ','), *cells])} |"
