"""Parity: an exported coder and the one in JAX say the same of the same contacts, in float32."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcoder import contact_lines
from jaxcoder.errors import UserError
from jaxcoder.export.reader import Reader
from jaxcoder.models import coder as model
from jaxcoder.predict import predictor_of
from jaxcoder.tokens.documents import DocumentEncoder
from jaxcoder.trained import TrainedCoder

TOLERANCE = 1e-4
"""The most that a logit may differ, in float32."""
BATCH = 8
"""Documents computed at a time, of several lengths."""

EXACT = "highest"
"""Precision of products: an accelerator's own default has fewer bits than float32."""

Logits = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From tokens int32 [B, T] and lengths int32 [B] to logits float32 [B, L]."""
Predictions = list[dict[str, Any]]


class Parity(NamedTuple):
    """How far the two are apart.

    Attributes:
      logits: the greatest difference of a logit of the network.
      greatest: the greatest absolute value among these logits.
      documents: how many were compared.
      probabilities: the greatest difference of a probability, from the contact to the code.
      platform: what JAX computed on: cpu, gpu or tpu.
    """

    logits: float
    greatest: float
    documents: int
    probabilities: float
    platform: str


class Reference:
    """The coder in JAX, in float32, with the weights that are exported.

    Attributes:
      coder: as restored, exact.
      params: NumPy float32.
      contacts: the sample.
      documents: int32 [n], tokens of each contact.
    """

    def __init__(self, coder: TrainedCoder, contacts: Sequence[Mapping[str, Any]]) -> None:
        """Reads the contacts, at least one, as `jaxcoder predict` does."""
        sections = coder.experiment.tokens.serialise.sections
        self.coder = coder
        self.params = jax.device_get(coder.params)
        self.contacts = contacts
        self._parsed = [contact_lines.parse(json.dumps(each), sections) for each in contacts]
        encoder = DocumentEncoder(coder.tokenizer, coder.experiment.tokens.serialise)
        self.documents = [each.tokens for each in encoder(self._parsed)]
        self._apply = jax.jit(functools.partial(model.apply, coder.model))

    def logits(
        self, tokens_BxT: np.ndarray, length_B: np.ndarray, params: Any = None
    ) -> np.ndarray:
        """Logits of documents, float32 [B, L]; `params` where they lie on a device already."""
        with jax.default_matmul_precision(EXACT):
            logits_BxL, _ = self._apply(params or self.params, tokens_BxT, length_B)
        return np.asarray(logits_BxL)

    def predictions(self) -> Predictions:
        """What `jaxcoder predict` says of the contacts, of all labels."""
        coder = self.coder
        predictor = predictor_of(coder, coder.threshold, len(coder.label_space))
        with jax.default_matmul_precision(EXACT):
            return [
                {"contact_id": each.contact_id, "codes": each.codes(coder.label_space)}
                for each in predictor.predict(self._parsed)
            ]

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokens and lengths of the documents, long and short ones together."""
        order = sorted(range(len(self.documents)), key=lambda row: len(self.documents[row]))
        count = -(-len(order) // BATCH)
        return [
            padded([self.documents[row] for row in order[start::count]]) for start in range(count)
        ]

    def compare(
        self, reader: Reader, logits: Logits, predict: Callable[..., Predictions] | None = None
    ) -> Parity:
        """Compares an export with this coder: tokens, logits, and codes of the sample.

        Args:
          reader: the export's.
          logits: what its network computes.
          predict: from contacts, and `top=`, to predictions; of `reader` and `logits` when None.

        Raises:
          UserError: another token or code, or a logit or probability that differs by more than
            `TOLERANCE` or is no number.
        """
        self._check_tokens([each.ids for each in reader.documents(self.contacts)])
        differences, greatest = [], []
        for tokens_BxT, length_B in self.batches():
            ours, theirs = self.logits(tokens_BxT, length_B), logits(tokens_BxT, length_B)
            differences.append(_apart(ours, theirs))
            greatest.append(float(np.abs(ours).max()))
        _check(max(differences), "logits", "compute")
        predict = predict or functools.partial(_predict, reader, logits)
        predictions = predict(self.contacts, top=len(self.coder.label_space))
        return Parity(
            max(differences),
            max(greatest),
            len(self.documents),
            self._compare_predictions(predictions),
            jax.default_backend(),
        )

    def _compare_predictions(self, predictions: Predictions) -> float:
        """The greatest difference of a probability; of all labels, for all contacts."""

        def table(rows: Predictions) -> list[dict[str, dict[str, Any]]]:
            rows = sorted(rows, key=lambda row: row["contact_id"])
            return [{code["code"]: code for code in row["codes"]} for row in rows]

        ours, theirs = table(self.predictions()), table(predictions)
        if [row.keys() for row in ours] != [row.keys() for row in theirs]:
            raise UserError(f"the export has other contacts or codes than the coder; {_FAULT}")
        pairs = [
            (row[code], other[code])
            for row, other in zip(ours, theirs, strict=True)
            for code in row
        ]
        probabilities = [[code["probability"] for code in pair] for pair in pairs]
        difference = _apart(*np.array(probabilities).T)
        _check(difference, "probabilities", "predict")
        for one, other in pairs:
            near = abs(one["probability"] - self.coder.threshold) <= TOLERANCE
            if one["assigned"] != other["assigned"] and not near:
                raise UserError(f"the export assigns other codes than the coder; {_FAULT}")
        return difference

    def _check_tokens(self, documents: Sequence[Sequence[int]]) -> None:
        for number, (ours, theirs) in enumerate(zip(self.documents, documents, strict=True)):
            if ours.tolist() != list(theirs):
                raise UserError(
                    f"contact {number} of the sample: {len(theirs)} tokens in the export, not the "
                    f"{len(ours)} of the coder; {_FAULT}"
                )


_FAULT = "nothing was written; this is a fault of jaxcoder, please report it"


def padded(documents: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Documents as tokens int32 [B, T] and lengths int32 [B]."""
    length_B = np.array([len(each) for each in documents], np.int32)
    tokens_BxT = np.zeros((len(documents), length_B.max()), np.int32)
    for row, each in enumerate(documents):
        tokens_BxT[row, : len(each)] = each
    return tokens_BxT, length_B


def _predict(
    reader: Reader, logits: Logits, contacts: Sequence[Mapping[str, Any]], top: int
) -> Predictions:
    """What an export predicts that is a reader and a network."""
    documents = reader.documents(contacts)
    predictions: Predictions = []
    for start in range(0, len(documents), BATCH):
        batch = documents[start : start + BATCH]
        tokens_BxT, length_B = padded([np.array(each.ids, np.int32) for each in batch])
        predictions += reader.predictions(batch, logits(tokens_BxT, length_B), top)
    return predictions


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    difference = np.abs(ours.astype(np.float64) - theirs).max()
    return float(difference) if np.isfinite(difference) else float("inf")


def _check(difference: float, what: str, verb: str) -> None:
    if difference > TOLERANCE:
        raise UserError(
            f"the {what} that export and coder {verb} differ by {difference:.2g}, expected at most "
            f"{TOLERANCE:g}; {_FAULT}"
        )
