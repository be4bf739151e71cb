"""Fusion: what the network and the evidence lexicon say of a label, as one probability.

The two lines of the formula, `fusion_weights.fused`, are logistic regressions, fitted on the
validation split when training is done. On the training split they would trust the network too much:
it knows that by heart. Small data gain: see configs/codiesp.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxcoder.fusion_weights import Weights, fused
from jaxcoder.tokens.evidence_scores import EvidenceLexiconOptions

__all__ = ["FusionOptions", "Sample", "Weights", "fuse"]

# Keeps the weights finite where network or lexicon tell all labels apart.
_RIDGE = 1e-3


@dataclasses.dataclass(frozen=True)
class FusionOptions:
    """Whether the network is fused with the evidence lexicon, and how.

    Attributes:
      enabled: whether it is; the workdir then holds the lexicon.
      lexicon: how it is counted.
      candidates: labels of a contact, the network's most probable ones, that the weights are fitted
        on beside those that the lexicon finds. Gold labels are not added to them: improbable labels
        that are all gold would turn the line over.
      max_contacts: validation contacts that they are fitted on at most, evenly spaced.
    """

    enabled: bool = False
    lexicon: EvidenceLexiconOptions = EvidenceLexiconOptions()
    candidates: int = 100
    max_contacts: int = 10_000

    def __post_init__(self) -> None:
        for key in ("candidates", "max_contacts"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} = {getattr(self, key)}: expected at least 1")


_fused = jax.jit(functools.partial(fused, jnp))


def fuse(logits_BxL: jax.Array, scores_BxL: jax.Array, weights: Weights) -> jax.Array:
    """Returns fused logits float32 [B, L].

    Args:
      logits_BxL: the network's.
      scores_BxL: the lexicon's, in (0, 1], 0 where it does not find the label.
      weights: as from `Sample.fit`.
    """
    lines = (np.array(line, np.float32) for line in (weights.found, weights.other))
    result: jax.Array = _fused(logits_BxL, scores_BxL, *map(jax.device_put, lines))
    return result


class Sample:
    """The labels of validation contacts that weights are fitted on."""

    def __init__(self, options: FusionOptions) -> None:
        """Starts empty."""
        self._candidates = options.candidates
        self._rows: list[np.ndarray] = []

    def add(self, logits_BxL: np.ndarray, scores_BxL: np.ndarray, labels_BxK: np.ndarray) -> None:
        """Adds contacts.

        Args:
          logits_BxL: the network's, float32.
          scores_BxL: the lexicon's, float32, 0 where it does not find the label.
          labels_BxK: gold labels, −1 for padding.
        """
        for logits_L, scores_L, labels_K in zip(logits_BxL, scores_BxL, labels_BxK, strict=True):
            gold = labels_K[labels_K >= 0]
            count = min(self._candidates, len(logits_L))
            top = np.argpartition(-logits_L, count - 1)[:count]
            chosen = np.union1d(top, np.flatnonzero(scores_L > 0))
            columns = (logits_L[chosen], scores_L[chosen], np.isin(chosen, gold))
            self._rows.append(np.stack(columns, axis=1).astype(np.float32))

    def fit(self) -> Weights:
        """Fits both lines; one that has no labels stays the network's own logit."""
        rows = np.concatenate([np.zeros((0, 3), np.float32), *self._rows]).astype(np.float64)
        found, other = rows[rows[:, 1] > 0], rows[rows[:, 1] == 0]
        weights = Weights()
        if len(found):
            logits, scores, targets = found.T
            features = np.stack([logits, np.log(scores), scores, np.ones(len(found))], axis=1)
            weights = dataclasses.replace(weights, found=_logistic(features, targets))
        if len(other):
            features = np.stack([other[:, 0], np.ones(len(other))], axis=1)
            weights = dataclasses.replace(weights, other=_logistic(features, other[:, 2]))
        return weights


def _logistic(x_NxF: np.ndarray, y_N: np.ndarray) -> tuple[float, ...]:
    """Weights of a logistic regression with a small ridge, by Newton's method, halved where worse.

    Args:
      x_NxF: features.
      y_N: targets in {0, 1}.
    """
    weights = np.zeros(x_NxF.shape[1])

    def cost(at: np.ndarray) -> float:
        z_N = x_NxF @ at
        return float(np.sum(np.logaddexp(0, z_N) - y_N * z_N) + _RIDGE / 2 * at @ at)

    for _ in range(100):
        p_N = 1 / (1 + np.exp(-np.clip(x_NxF @ weights, -500, 500)))
        slope = x_NxF.T @ (p_N - y_N) + _RIDGE * weights
        curve = (x_NxF * (p_N * (1 - p_N))[:, None]).T @ x_NxF + _RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curve, slope)
        before = cost(weights)
        while cost(weights - step) > before and np.abs(step).max() > 1e-9:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    return tuple(float(weight) for weight in weights)
