"""Predicts the codes of new contacts; labels are never needed.

    jaxcoder predict --workdir runs/demo --input contacts.jsonl --output codes.jsonl --top 15
    jaxcoder predict --workdir runs/demo --text "Woman of 62 with chest pain ..."
    jaxcoder predict --workdir runs/demo --text - < note.txt

A line of the input is {"contact_id": ..., "notes": [{"kind", "time", "text"}] or "text",
"medications": [...], "labs": [...]}; a line of the output is {"contact_id", "codes": [{"code",
"description", "probability", "assigned"}]}: the --top most probable codes in falling order, and
every assigned one. Lines that are no contact, or hold nothing to code, are named on standard error
by their number and left out; the rest is predicted, in the order of the input, and the exit status
is then 1. The output file appears whole or not at all.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from etils import epath
from tqdm import tqdm

from jaxcoder import contact_lines, entry, sharding, trained
from jaxcoder.baseline import dense_scores
from jaxcoder.contact_lines import BrokenLine
from jaxcoder.errors import UserError
from jaxcoder.fusion import fuse
from jaxcoder.predictions import top_labels
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.findings import Findings
from jaxcoder.records.schema import Contact, Note
from jaxcoder.tokens.documents import DocumentEncoder
from jaxcoder.tokens.serialise import serialise
from jaxcoder.whole_file import whole_file
from jaxcoder.workdir import Workdir

LOOK_AHEAD = 1024
"""Contacts read before the first is predicted, to put those of like length together."""
LENGTHS = 8
"""Padded lengths, each of which compiles once."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The codes of one contact, most probable first."""

    contact_id: str
    labels: np.ndarray
    probabilities: np.ndarray
    assigned: np.ndarray

    def codes(self, label_space: LabelSpace) -> list[dict[str, Any]]:
        """Returns code, description, probability in [0, 1] and whether assigned, for each."""
        return [
            {
                "code": label_space.codes[label],
                "description": label_space.descriptions[label],
                "probability": float(f"{probability:.6g}"),
                "assigned": bool(assigned),
            }
            for label, probability, assigned in zip(
                self.labels, self.probabilities, self.assigned, strict=True
            )
        ]


class Predictor:
    """Predicts the codes of contacts, in bounded memory and in their order."""

    def __init__(
        self,
        encode: Callable[[Sequence[Contact]], Sequence[np.ndarray]],
        probabilities: Callable[[np.ndarray, np.ndarray, Sequence[Contact]], jax.Array],
        *,
        threshold: float,
        top: int,
        documents: int,
        max_tokens: int,
    ) -> None:
        """Joins the parts.

        Args:
          encode: from contacts to the tokens of each, int32 [n], 1 ≤ n ≤ `max_tokens`.
          probabilities: from tokens int32 [B, T], lengths int32 [B] and the contacts of the first
            rows to float32 [B, L].
          threshold: that an assigned code's probability exceeds.
          top: codes a contact, beside further assigned ones.
          documents: rows of a batch, B.
          max_tokens: the most tokens of a contact.
        """
        self._encode, self._probabilities = encode, probabilities
        self._threshold, self._top, self._documents = threshold, top, documents
        halves = [-(-max_tokens // 2**power) for power in range(LENGTHS)]
        self._lengths = np.array(sorted({-(-half // 32) * 32 for half in halves}))

    def predict(self, contacts: Iterable[Contact]) -> Iterator[Prediction]:
        """Yields a prediction for each contact, in their order."""
        contacts = iter(contacts)
        while window := list(itertools.islice(contacts, LOOK_AHEAD)):
            tokens = self._encode(window)
            found: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
            for rows in self._batches([len(each) for each in tokens]):
                codes = self._codes([tokens[row] for row in rows], [window[row] for row in rows])
                found.update(zip(rows, codes, strict=False))
            for row, contact in enumerate(window):
                yield Prediction(contact.contact_id, *found[row])

    def _batches(self, lengths: Sequence[int]) -> Iterator[Sequence[int]]:
        """Rows of like length together."""
        buckets = np.searchsorted(self._lengths, lengths)
        for bucket in np.unique(buckets):
            rows = np.flatnonzero(buckets == bucket).tolist()
            for start in range(0, len(rows), self._documents):
                yield rows[start : start + self._documents]

    def _codes(
        self, tokens: Sequence[np.ndarray], contacts: Sequence[Contact]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        longest = max(len(each) for each in tokens)
        padded = self._lengths[np.searchsorted(self._lengths, longest)]
        tokens_BxT = np.zeros((self._documents, padded), np.int32)
        length_B = np.zeros(self._documents, np.int32)
        for row, each in enumerate(tokens):
            tokens_BxT[row, : len(each)] = each
            length_B[row] = len(each)
        probabilities_BxL = self._probabilities(tokens_BxT, length_B, contacts)
        found = top_labels(probabilities_BxL, self._threshold, self._top)
        return itertools.islice(found, len(tokens))


def predict_lines(
    lines: Iterable[bytes],
    predictor: Predictor,
    label_space: LabelSpace,
    sections: Sequence[str],
    write: Callable[[str], Any],
    say: Callable[[BrokenLine], None],
    dropped: Findings,
) -> tuple[int, int]:
    """Predicts JSONL.

    Args:
      lines: contacts.
      predictor: the coder.
      label_space: what its labels are.
      sections: what it reads.
      write: takes each line of output.
      say: takes each broken line, as soon as it is read.
      dropped: counts, by reason, what else is not read.

    Returns:
      Number of contacts predicted, and of broken lines.
    """
    broken = 0

    def contacts() -> Iterator[Contact]:
        nonlocal broken
        for item in contact_lines.read(lines, sections, dropped):
            if isinstance(item, BrokenLine):
                broken += 1
                say(item)
            else:
                yield item[1]

    done = 0
    for prediction in predictor.predict(contacts()):
        content = {"contact_id": prediction.contact_id, "codes": prediction.codes(label_space)}
        write(json.dumps(content, ensure_ascii=False) + "\n")
        done += 1
    return done, broken


def table(codes: Sequence[dict[str, Any]]) -> str:
    """Prints codes as a text table, assigned ones marked."""
    lines = [f"{'':1} {'code':<10} {'probability':>11}  description"]
    for code in codes:
        mark = "*" if code["assigned"] else ""
        lines.append(
            f"{mark:1} {code['code']:<10} {code['probability']:>11.3f}  {code['description']}"
        )
    return "\n".join([*lines, "* assigned"])


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder that `jaxcoder train` has written.", required=True)
    flags.DEFINE_string("input", "", "JSONL of contacts; - reads standard input.")
    flags.DEFINE_string("output", "", "JSONL of codes to write; - writes to standard output.")
    flags.DEFINE_string("text", None, "One text to code instead; - reads it from standard input.")
    flags.DEFINE_integer("top", 15, "Codes a contact, at least.", lower_bound=1)
    flags.DEFINE_float("threshold", None, "Probability that an assigned code exceeds, in [0, 1].")
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "Which checkpoint.")


def main() -> None:
    """Predicts.

    Raises:
      SystemExit: with status 1 when lines of the input could not be predicted.
      UserError: a mistake in the flags or the workdir.
    """
    wanted = flags.FLAGS
    if wanted.threshold is not None and not 0 <= wanted.threshold <= 1:
        raise UserError(f"--threshold = {wanted.threshold}: expected a probability in [0, 1]")
    if (wanted.text is None) == (not wanted.input):
        raise UserError("expected either --text TEXT or --input FILE with --output FILE")
    if wanted.text is not None:
        _predict_text(_read_stdin() if wanted.text == "-" else wanted.text, wanted)
    elif not wanted.output:
        raise UserError("--output is missing: the JSONL file to write, or - for standard output")
    else:
        _predict_file(wanted)


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--text -: not UTF-8 at byte {error.start + 1}; convert it") from None


def _predict_text(text: str, wanted: Any) -> None:
    coder = trained.restore(Workdir(wanted.workdir), wanted.checkpoint)
    if "notes" not in coder.experiment.tokens.serialise.sections:
        raise UserError("--text: this coder reads no notes; give contacts with --input")
    if not text.strip():
        raise UserError("--text is empty: expected the text of a contact")
    contact = Contact(contact_id="text", patient_id="", notes=(Note(text=text),))
    (prediction,) = _predictor(coder, wanted).predict([contact])
    print(table(prediction.codes(coder.label_space)))


def _predict_file(wanted: Any) -> None:
    source = epath.Path(wanted.input)
    if wanted.input != "-" and (not source.exists() or source.is_dir()):
        found = "a folder" if source.is_dir() else "not found"
        raise UserError(f"--input {source}: {found}; expected a JSONL file, one contact a line")
    if wanted.output == wanted.input != "-":
        raise UserError(f"--output {wanted.output}: is the input too; expected another file")
    if wanted.output != "-" and epath.Path(wanted.output).is_dir():
        raise UserError(f"--output {wanted.output}: a folder; expected a JSONL file to write")
    coder = trained.restore(Workdir(wanted.workdir), wanted.checkpoint)
    predictor = _predictor(coder, wanted)
    sections = coder.experiment.tokens.serialise.sections

    dropped = Findings()

    def say(item: BrokenLine) -> None:
        print(f"{wanted.input}, line {item.line}: {item.reason}; left out", file=sys.stderr)

    with contextlib.ExitStack() as stack:
        lines: Iterable[bytes] = sys.stdin.buffer
        if wanted.input != "-":
            lines = stack.enter_context(source.open("rb"))
        write = sys.stdout.write
        if wanted.output != "-":
            write = stack.enter_context(whole_file(wanted.output)).write
        bar = stack.enter_context(tqdm(unit="line", disable=not sys.stderr.isatty()))
        lines = (line for line in lines if bar.update() or True)
        done, broken = predict_lines(
            lines, predictor, coder.label_space, sections, write, say, dropped
        )
    where = "standard output" if wanted.output == "-" else wanted.output
    print(
        f"{done:,} contact{'s' * (done != 1)} predicted to {where}; "
        f"{broken:,} line{'s' * (broken != 1)} left out",
        *dropped.lines(),
        sep="\n",
        file=sys.stderr,
    )
    if broken:
        sys.exit(1)


def _predictor(coder: trained.TrainedCoder, wanted: Any) -> Predictor:
    threshold = coder.threshold if wanted.threshold is None else wanted.threshold
    check_fused(coder, wanted.workdir, wanted.checkpoint)
    if wanted.threshold is None and not coder.tuned:
        logging.info(
            "threshold %.4g was tuned for an earlier checkpoint; "
            "`jaxcoder evaluate --workdir %s --checkpoint %s` tunes it for this one",
            *(threshold, wanted.workdir, wanted.checkpoint),
        )
    return predictor_of(coder, threshold, wanted.top)


def check_fused(coder: trained.TrainedCoder, workdir: epath.PathLike, checkpoint: str) -> None:
    """Checks that it is known how network and lexicon are fused, where they are.

    Raises:
      UserError: it is not.
    """
    if coder.lexicon is not None and coder.tuned is None:
        raise UserError(
            f"{workdir}: network and lexicon have yet to be fused; run `jaxcoder evaluate "
            f"--workdir {workdir} --split validation --checkpoint {checkpoint}` once"
        )


def predictor_of(coder: trained.TrainedCoder, threshold: float, top: int) -> Predictor:
    """Makes what predicts the codes of contacts.

    Args:
      coder: a trained one.
      threshold: probability that an assigned code exceeds.
      top: codes a contact, beside further assigned ones.
    """
    options = coder.experiment.tokens.serialise
    documents = DocumentEncoder(coder.tokenizer, options)

    def encode(contacts: Sequence[Contact]) -> list[np.ndarray]:
        return [document.tokens for document in documents(contacts)]

    return Predictor(
        encode,
        functools.partial(_probabilities, coder),
        threshold=threshold,
        top=top,
        documents=coder.experiment.batches.rows(options.max_tokens),
        max_tokens=options.max_tokens,
    )


def _probabilities(
    coder: trained.TrainedCoder,
    tokens_BxT: np.ndarray,
    length_B: np.ndarray,
    contacts: Sequence[Contact],
) -> jax.Array:
    batch = {"tokens": tokens_BxT, "length": length_B, "_mask": length_B > 0}
    placed = sharding.put_batch(batch, coder.steps.batch_sharding)
    logits_BxL = coder.steps.evaluate(coder.params, placed)["logits"]
    if coder.lexicon is not None and coder.tuned and coder.tuned.fusion:
        options = coder.experiment.tokens.serialise
        texts = [serialise(contact, options).text for contact in contacts]
        texts += [""] * (len(length_B) - len(texts))
        scores = {"scores": dense_scores(coder.lexicon, texts, coder.label_space)}
        placed = sharding.put_batch(scores, coder.steps.batch_sharding)
        logits_BxL = fuse(logits_BxL, placed["scores"], coder.tuned.fusion)
    return jax.nn.sigmoid(logits_BxL)


if __name__ == "__main__":
    entry.launch(define_flags, main, __doc__)
