"""The formula of fusion, for NumPy and JAX alike.

    the lexicon finds the label, with score s:   logit = a z + b log(s) + c s + d
    it does not:                                 logit = a' z + d'

z is the network's logit.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Weights:
    """The two lines.

    Attributes:
      found: of z, log(s), s and 1.
      other: of z and 1.
    """

    found: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0)
    other: tuple[float, ...] = (1.0, 0.0)

    def __post_init__(self) -> None:
        if (len(self.found), len(self.other)) != (4, 2):
            raise ValueError("found, other: expected 4 and 2 weights")


def fused(xp: Any, logits_BxL: Any, scores_BxL: Any, found: Any, other: Any) -> Any:
    """Returns fused logits [B, L].

    Args:
      xp: the library of the arrays: `numpy` or `jax.numpy`.
      logits_BxL: the network's.
      scores_BxL: the lexicon's, in (0, 1], 0 where it does not find the label.
      found: four weights, of `Weights`.
      other: two weights, of `Weights`.
    """
    is_found_BxL = scores_BxL > 0
    log_BxL = xp.log(xp.where(is_found_BxL, scores_BxL, 1.0))
    found_BxL = found[0] * logits_BxL + found[1] * log_BxL + found[2] * scores_BxL + found[3]
    return xp.where(is_found_BxL, found_BxL, other[0] * logits_BxL + other[1])
