"""An experiment: everything that a config file says, checked, as frozen dataclasses."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, overload

from etils import epath

from jaxcoder.batches import BatchOptions
from jaxcoder.errors import UserError
from jaxcoder.fusion import FusionOptions
from jaxcoder.losses import LossOptions
from jaxcoder.masking import MaskingOptions
from jaxcoder.models.coder import CoderOptions
from jaxcoder.models.masked_lm import MaskedLMOptions
from jaxcoder.optim import OptimOptions
from jaxcoder.packing import PackingOptions
from jaxcoder.records.builder import RecordsOptions
from jaxcoder.settings import build
from jaxcoder.tokens.builder import TokensOptions

_DURATION = re.compile(r"^\s*([0-9]*\.?[0-9]+)\s*(steps?|epochs?|examples?|%)\s*$")


DECISIVE = (
    *("micro_f1", "micro_precision", "micro_recall", "macro_f1", "map", "r_precision"),
    *("recall_at_5", "recall_at_10", "recall_at_15"),
    *("precision_at_5", "precision_at_8", "precision_at_15"),
    *("exact_match", "jaccard", "auc_micro", "auc_macro", "loss"),
)
"""Validation metrics that may decide which checkpoint is best."""


@dataclasses.dataclass(frozen=True)
class MeshOptions:
    """Shape of the device mesh; -1 takes the devices that the other axes leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class DurationOptions:
    """Durations of a run.

    A duration is a number and a unit: `500 steps`, `12 epochs` (passes over the contacts that are
    trained on), `100000 examples`, or `5 %` of the whole run.

    Attributes:
      total: length of the run.
      warmup: length of the learning rate's rise from zero.
      evaluate_every: between evaluations on the validation split; each saves a checkpoint.
      checkpoint_every: between further checkpoints; empty for none.
      log_every: between lines of `train_metrics.jsonl`.
      patience: evaluations without improvement before the run stops; 0 never stops early.
    """

    total: str = "10 epochs"
    warmup: str = "5 %"
    evaluate_every: str = "1 epoch"
    checkpoint_every: str = ""
    log_every: str = "20 steps"
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("total", "warmup", "evaluate_every", "checkpoint_every", "log_every"):
            value = getattr(self, name)
            if not (_DURATION.match(value) or (name == "checkpoint_every" and not value)):
                raise ValueError(
                    f"{name} = {value!r}: expected a duration such as '500 steps', '2 epochs'"
                )
            if value and float(_DURATION.match(value)[1]) <= 0:  # type: ignore[index]
                raise ValueError(f"{name} = {value!r}: expected more than none")
        if "%" in self.total:
            raise ValueError(f"total = {self.total!r}: expected steps, epochs or examples")


@dataclasses.dataclass(frozen=True)
class TrainOptions(DurationOptions):
    """Durations and decisions of a training run.

    Attributes:
      metric: which of `DECISIVE` decides which checkpoint is best; the loss by its least value.
    """

    metric: str = "micro_f1"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in DECISIVE:
            raise ValueError(f"metric = {self.metric!r}: expected one of {', '.join(DECISIVE)}")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One config file of `jaxcoder train`; each group is the options of what does the work.

    Attributes:
      seed: of initial weights, dropout and the order of batches.
      data_dir: where contact records and token records lie or are built.
    """

    seed: int = 0
    data_dir: str = "data"
    records: RecordsOptions = RecordsOptions()
    tokens: TokensOptions = TokensOptions()
    batches: BatchOptions = BatchOptions()
    model: CoderOptions = CoderOptions()
    loss: LossOptions = LossOptions()
    optim: OptimOptions = OptimOptions()
    fusion: FusionOptions = FusionOptions()
    train: TrainOptions = TrainOptions()
    mesh: MeshOptions = MeshOptions()


@dataclasses.dataclass(frozen=True)
class PretrainExperiment:
    """One config file of `jaxcoder pretrain`; groups of the same name are those of `Experiment`.

    Attributes:
      seed: of initial weights, masks, dropout and the order of batches.
      data_dir: where contact records and token records lie or are built.
    """

    seed: int = 0
    data_dir: str = "data"
    records: RecordsOptions = RecordsOptions()
    tokens: TokensOptions = TokensOptions()
    packing: PackingOptions = PackingOptions()
    masking: MaskingOptions = MaskingOptions()
    model: MaskedLMOptions = MaskedLMOptions()
    optim: OptimOptions = OptimOptions()
    train: DurationOptions = DurationOptions()
    mesh: MeshOptions = MeshOptions()

    def __post_init__(self) -> None:
        tokenizer = self.tokens.tokenizer
        if not tokenizer.path and set(tokenizer.splits) != set(self.packing.splits):
            raise ValueError(
                f"tokens.tokenizer.splits = {list(tokenizer.splits)}: expected what is pretrained "
                f"on, packing.splits = {list(self.packing.splits)}"
            )


Kind = TypeVar("Kind", Experiment, PretrainExperiment)
_COMMANDS: dict[type, str] = {Experiment: "train", PretrainExperiment: "pretrain"}


@overload
def read(config: Mapping[str, Any]) -> Experiment: ...


@overload
def read(config: Mapping[str, Any], kind: type[Kind]) -> Kind: ...


def read(config: Mapping[str, Any], kind: type[Any] = Experiment) -> Any:
    """Checks the mapping that a config file returns.

    Args:
      config: the mapping.
      kind: what it should be, `Experiment` or `PretrainExperiment`.

    Raises:
      UserError: an unknown key or a value of the wrong type or range.
    """
    for other, command in _COMMANDS.items():
        if foreign := sorted(config.keys() & (_groups(other) - _groups(kind))):
            raise UserError(
                f"config.{foreign[0]}: this experiment is one of `jaxcoder {command}`, which alone "
                f"knows this key; expected one of `jaxcoder {_COMMANDS[kind]}`"
            )
    return build(kind, config, "config")


def _groups(kind: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@overload
def load(path: epath.PathLike) -> Experiment: ...


@overload
def load(path: epath.PathLike, kind: type[Kind]) -> Kind: ...


def load(path: epath.PathLike, kind: type[Any] = Experiment) -> Any:
    """Reads the `config.json` of a workdir.

    Args:
      path: the file.
      kind: of `read`.

    Raises:
      UserError: there is none, it is not readable, or one of another command.
    """
    path = epath.Path(path)
    command = f"jaxcoder {_COMMANDS[kind]}"
    if not path.exists():
        raise UserError(
            f"{path}: not found; --workdir must name a folder that `{command}` has written"
        )
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise UserError(f"{path}: not an experiment; restore it or train in a new workdir")
        if ("packing" in content) != (kind is PretrainExperiment):
            raise UserError(f"{path}: is not of a run of `{command}`; choose another --workdir")
        return read(content, kind)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not JSON (line {error.lineno}); restore it or train in a new workdir"
        ) from None


def fitted_model(
    options: Experiment, vocab_size: int, pad_id: int, num_labels: int
) -> CoderOptions:
    """The config's model with the sizes that tokenizer and label space decide.

    Where the encoder starts from a checkpoint, the rows of its word table are the checkpoint's, and
    may be some more than the tokenizer has tokens: see `start.resolved`.
    """
    encoder = options.model.encoder
    if not encoder.init:
        encoder = dataclasses.replace(encoder, vocab_size=vocab_size, pad_id=pad_id)
    head = dataclasses.replace(options.model.head, num_labels=num_labels)
    return CoderOptions(encoder, head)


class Schedule(NamedTuple):
    """Durations in optimiser steps; see `DurationOptions`."""

    total: int
    warmup: int
    evaluate_every: int
    checkpoint_every: int
    log_every: int


def schedule(options: DurationOptions, *, per_epoch: int, batch: float) -> Schedule:
    """Converts the durations of a run to steps; arguments as of `steps`."""
    convert = functools.partial(steps, per_epoch=per_epoch, batch=batch)
    total = convert(options.total)
    return Schedule(
        total,
        min(total, convert(options.warmup, total=total)),
        convert(options.evaluate_every, total=total),
        convert(options.checkpoint_every or options.evaluate_every, total=total),
        convert(options.log_every, total=total),
    )


def steps(duration: str, *, per_epoch: int, batch: float, total: int = 0) -> int:
    """Converts a duration to optimiser steps, at least one.

    Args:
      duration: a number and a unit, as in `DurationOptions`.
      per_epoch: optimiser steps in one pass over the training contacts.
      batch: contacts in a step, on average.
      total: steps of the whole run, for `%`.
    """
    match = _DURATION.match(duration)
    if not match:
        raise UserError(f"{duration!r}: expected a duration such as '500 steps', '2 epochs', '5 %'")
    number, unit = float(match[1]), match[2].rstrip("s")
    scale = {"step": 1.0, "epoch": per_epoch, "example": 1 / batch, "%": total / 100}[unit]
    return max(1, round(number * scale))
