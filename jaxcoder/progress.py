"""Progress: what a training run knows beside its arrays."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is, and how well it has done; kept with each checkpoint.

    Attributes:
      step: optimiser steps done. The position in the data follows from it alone.
      label_space: hash of the label space that the arrays were made for.
      best_value: best value so far of the metric that decides; None before the first evaluation.
      best_step: step of `best_value`.
      evaluations_since_best: evaluations without improvement, for early stopping.
      threshold: probability threshold tuned at the last evaluation, in (0, 1).
      metric: the metric that decides.
      pending: whether this step has yet to be evaluated: a run that is told to end saves first.
    """

    step: int
    label_space: str
    best_value: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    threshold: float = 0.5
    metric: str = "micro_f1"
    pending: bool = False

    def judged(self, value: float, larger: bool, threshold: float = 0.5) -> "Progress":
        """The progress after an evaluation: is this the best so far?

        Args:
          value: of the metric that decides.
          larger: whether a larger one is better.
          threshold: tuned at this evaluation.
        """
        best = self.best_value
        better = best is None or (value > best if larger else value < best)
        return dataclasses.replace(
            self,
            pending=False,
            threshold=threshold,
            best_value=value if better else best,
            best_step=self.step if better else self.best_step,
            evaluations_since_best=0 if better else self.evaluations_since_best + 1,
        )
