"""What is tuned on the validation split for one checkpoint, and the files that keep it."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.fusion import Weights
from jaxcoder.settings import build
from jaxcoder.whole_file import write_json


@dataclasses.dataclass(frozen=True)
class Tuned:
    """What is tuned on the validation split for one checkpoint.

    Attributes:
      threshold: probability that an assigned code exceeds.
      fusion: how network and lexicon are fused; None where the network stands alone.
      comparable: the threshold of `metrics.comparable`; None where it has yet to be tuned.
      exact: whether no threshold at all is better on validation, not only none of the grid.
    """

    threshold: float
    fusion: Weights | None = None
    comparable: float | None = None
    exact: bool = False


class TunedFiles:
    """The files, each with the step and the label space that it is for.

    Attributes:
      threshold: `threshold.json`.
      own: `thresholds_code.json`, `thresholds_specialty.json`, by `code` and `specialty`.
    """

    def __init__(self, folder: epath.Path, label_space: Callable[[], str]) -> None:
        """Names the files; reads and creates nothing.

        Args:
          folder: of the run.
          label_space: gives the hash of its label space.
        """
        self._label_space = label_space
        self.threshold = folder / "threshold.json"
        self.own = {by: folder / f"thresholds_{by}.json" for by in ("code", "specialty")}

    def forget(self) -> None:
        """Deletes all of it."""
        for path in (self.threshold, *self.own.values()):
            path.unlink(missing_ok=True)

    def write(self, tuned: Tuned, step: int, micro_f1: float) -> None:
        """Keeps what was tuned on validation for the checkpoint of a step."""
        content = {"step": step, "micro_f1": micro_f1, "split": "validation"}
        content |= {"label_space": self._label_space()}
        write_json(self.threshold, content | dataclasses.asdict(tuned))

    def read(self, step: int) -> Tuned | None:
        """What was tuned for the checkpoint of a step; None when it was tuned for another."""
        if not self.threshold.exists():
            return None
        try:
            content = json.loads(self.threshold.read_text())
            if (content["step"], content["label_space"]) != (step, self._label_space()):
                return None
            # A file of an older version lacks what has come since.
            kept = {field.name for field in dataclasses.fields(Tuned)} & set(content)
            tuned = {"threshold": content["threshold"], **{key: content[key] for key in kept}}
            return build(Tuned, tuned, str(self.threshold))
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{self.threshold}: not a threshold; delete it and run `jaxcoder evaluate` again"
            ) from None

    def write_own(self, by: str, own: Mapping[str, float], step: int, tuned: Tuned) -> None:
        """Keeps thresholds by code or by specialty, in `own`.

        Args:
          by: `code` or `specialty`.
          own: thresholds by code or specialty; others have that of `tuned`.
          step: of the checkpoint that they were tuned for.
          tuned: what was tuned beside them; without it they are void.
        """
        content = self._belonging(step, tuned) | {"by": by, "own": dict(own)}
        write_json(self.own[by], content)

    def read_own(self, by: str, step: int, tuned: Tuned) -> dict[str, float] | None:
        """What `write_own` kept; None where nothing, or what belongs to something else.

        Raises:
          UserError: the file is not one of thresholds.
        """
        path = self.own[by]
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text())
            belonging = json.loads(json.dumps(self._belonging(step, tuned)))
            if any(content[key] != value for key, value in belonging.items()):
                return None
            return {name: float(value) for name, value in content["own"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{path}: not thresholds; delete it and run `jaxcoder evaluate` again"
            ) from None

    def _belonging(self, step: int, tuned: Tuned) -> dict[str, Any]:
        space = self._label_space()
        return {"step": step, "label_space": space, "tuned": dataclasses.asdict(tuned)}
