"""Parity: an exported coder and the one in JAX say the same of the same contacts."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcoder import contact_lines
from jaxcoder.errors import UserError
from jaxcoder.models import coder as model
from jaxcoder.predict import predictor_of
from jaxcoder.tokens.documents import DocumentEncoder
from jaxcoder.trained import TrainedCoder

TOLERANCE = 1e-4
"""The most that a logit may differ, in float32."""
BATCH = 8
"""Documents computed at a time, of several lengths."""

Logits = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From tokens int32 [B, T] and lengths int32 [B] to logits float32 [B, L]."""


class Parity(NamedTuple):
    """How far the two are apart.

    Attributes:
      logits: the greatest difference of a logit of the network.
      greatest: the greatest absolute value among these logits.
      documents: how many were compared.
      probabilities: the greatest difference of a probability, from the contact to the code; None
        where the export has no such way.
    """

    logits: float
    greatest: float
    documents: int
    probabilities: float | None = None


class Reference:
    """The coder in JAX, in float32, with the weights that are exported.

    Attributes:
      coder: as restored.
      params: NumPy float32.
      documents: int32 [n], tokens of each contact of the sample.
    """

    def __init__(self, coder: TrainedCoder, contacts: Sequence[Mapping[str, Any]]) -> None:
        """Reads the contacts as `jaxcoder predict` does."""
        sections = coder.experiment.tokens.serialise.sections
        self.coder = coder
        self.params = jax.device_get(coder.params)
        self._contacts = [contact_lines.parse(json.dumps(each), sections) for each in contacts]
        encoder = DocumentEncoder(coder.tokenizer, coder.experiment.tokens.serialise)
        self.documents = [each.tokens for each in encoder(self._contacts)]
        self._apply = jax.jit(functools.partial(model.apply, coder.model))

    def logits(
        self, tokens_BxT: np.ndarray, length_B: np.ndarray, params: Any = None
    ) -> np.ndarray:
        """Logits of documents, float32 [B, L]; `params` where they lie on a device already."""
        logits_BxL, _ = self._apply(params or self.params, tokens_BxT, length_B)
        return np.asarray(logits_BxL)

    def predictions(self) -> list[dict[str, Any]]:
        """What `jaxcoder predict` says of the contacts, of all labels."""
        coder = self.coder
        predictor = predictor_of(coder, coder.threshold, len(coder.label_space))
        return [
            {"contact_id": each.contact_id, "codes": each.codes(coder.label_space)}
            for each in predictor.predict(self._contacts)
        ]

    def batches(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Tokens and lengths of the documents, long and short ones together."""
        order = sorted(range(len(self.documents)), key=lambda row: len(self.documents[row]))
        count = -(-len(order) // BATCH)
        return [
            padded([self.documents[row] for row in order[start::count]]) for start in range(count)
        ]

    def compare(self, logits: Logits) -> Parity:
        """Compares an exported network with this one.

        Raises:
          UserError: a logit differs by more than `TOLERANCE`, or is no number.
        """
        differences, greatest = [0.0], [0.0]
        for tokens_BxT, length_B in self.batches():
            ours, theirs = self.logits(tokens_BxT, length_B), logits(tokens_BxT, length_B)
            differences.append(_apart(ours, theirs))
            greatest.append(float(np.abs(ours).max()))
        parity = Parity(max(differences), max(greatest), len(self.documents))
        _check(parity.logits, "logits", "compute")
        return parity

    def compare_predictions(self, predictions: Sequence[Mapping[str, Any]]) -> float:
        """Compares predictions of the sample's contacts, of all labels.

        Returns:
          The greatest difference of a probability.

        Raises:
          UserError: another contact or code, or a probability that differs by more than
            `TOLERANCE`, or is no number.
        """

        def table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
            return [
                {code["code"]: code["probability"] for code in row["codes"]}
                for row in sorted(rows, key=lambda row: row["contact_id"])
            ]

        ours, theirs = table(self.predictions()), table(predictions)
        codes = [row.keys() for row in ours]
        if codes != [row.keys() for row in theirs]:
            raise UserError(f"the export has other contacts or codes than the coder; {_FAULT}")
        difference = max(
            _apart(np.array([row[code] for code in row]), np.array([other[code] for code in row]))
            for row, other in zip(ours, theirs, strict=True)
        )
        _check(difference, "probabilities", "predict")
        return difference

    def check_tokens(self, documents: Sequence[Sequence[int]]) -> None:
        """Checks that the sample's contacts have become the same tokens.

        Raises:
          UserError: they have not.
        """
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


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    difference = np.abs(ours.astype(np.float64) - theirs).max()
    return float(difference) if np.isfinite(difference) else float("inf")


def _check(difference: float, what: str, verb: str) -> None:
    if difference > TOLERANCE:
        raise UserError(
            f"the {what} that export and coder {verb} differ by {difference:.2g}, expected at most "
            f"{TOLERANCE:g}; {_FAULT}"
        )
