"""The folder of a run: what lies where, and how it is read back."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import IO, Any

from etils import epath

from jaxcoder import experiment
from jaxcoder.errors import UserError
from jaxcoder.experiment import Experiment
from jaxcoder.lock import lock
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.store import below
from jaxcoder.settings import changes
from jaxcoder.tokens.builder import TokenData, open_tokens
from jaxcoder.tokens.evidence_lexicon import EvidenceLexicon
from jaxcoder.tuned import TunedFiles
from jaxcoder.whole_file import write_bytes, write_json


class Workdir:
    """A workdir is self-contained: prediction needs nothing else, evaluation only the records.

    Attributes:
      path: the folder.
      config: `config.json`, the experiment.
      label_space: `label_space.json`.
      tokenizer: `tokenizer/`.
      checkpoints: `checkpoints/`.
      train_metrics: `train_metrics.jsonl`.
      tensorboard: `tensorboard/`.
      profile: `profile/`, traces of steps.
      encoder: `encoder/`, what pretraining makes.
      tuned: what is tuned on the validation split, and for which checkpoint: `threshold.json`,
        `thresholds_code.json`, `thresholds_specialty.json`.
      lexicon: `lexicon.npz`, where the config fuses network and lexicon.
      finished: `finished.json`, written last by a run that has reached its end.
      data: `data.json`, which data sets below `data_dir` the run was made from.
    """

    def __init__(self, path: epath.PathLike, kind: type[Any] = Experiment) -> None:
        """Names the folder; reads and creates nothing.

        Args:
          path: the folder.
          kind: of the run, `Experiment` or `PretrainExperiment`.
        """
        self.path, self.kind = epath.Path(path), kind
        self.config = self.path / "config.json"
        self.label_space = self.path / "label_space.json"
        self.tokenizer = self.path / "tokenizer"
        self.checkpoints = self.path / "checkpoints"
        self.train_metrics = self.path / "train_metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"
        self.encoder = self.path / "encoder"
        self.tuned = TunedFiles(self.path, lambda: self.read_label_space().hash)
        self.lexicon = self.path / "lexicon.npz"
        self.finished = self.path / "finished.json"
        self.data = self.path / "data.json"

    def evaluation(
        self, split: str, baseline: str = "", without: Sequence[str] = (), by: str = ""
    ) -> epath.Path:
        """The folder of a split's evaluation, or of another one on it.

        Args:
          split: the split.
          baseline: which one is scored in place of the coder.
          without: inputs that it is not given.
          by: `code` or `specialty`, which have thresholds of their own.
        """
        names = [f"baseline_{baseline}"] if baseline else []
        names += [f"without_{'_'.join(sorted(without))}"] if without else []
        names += [f"thresholds_{by}"] if by else []
        return (self.path / "eval" / split).joinpath(*names)

    @property
    def begun(self) -> bool:
        """Whether it holds a run with checkpoints, which goes on."""
        return self.checkpoints.exists() and any(
            path.name.isdigit() for path in self.checkpoints.iterdir()
        )

    def check(self, config: Mapping[str, Any], data: TokenData) -> list[str]:
        """Checks that a run that has checkpoints can go on; writes nothing.

        Args:
          config: the experiment, as plain values.
          data: its token records.

        Returns:
          What it does otherwise from here, such as `config.optim.eps: was 1e-8, now 1e-6`.

        Raises:
          UserError: its checkpoints were made with another label space, another tokenizer, or
            another `model` or `tokens.serialise` in the config.
        """
        if not self.begun:
            return []
        self._check_same(config, data)
        before, now = self._read_tokens(), _tokens(config, data)
        other = [f"the token records: were {before}, now {now}"] if before != now else []
        return other + [
            f"{key}: was {old!r}, now {new!r}"
            for key, old, new in changes(
                self._whole(self.read_config()), self._whole(config), "config"
            )
        ]

    def lock(self) -> IO[bytes] | None:
        """Keeps other runs out, until the file that is returned is closed or the process ends.

        Raises:
          UserError: another one is at work.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            return lock(self.path)
        except BlockingIOError:
            raise UserError(
                f"{self.path}: another process trains here; wait for it, or stop it first"
            ) from None

    def create(self, config: Mapping[str, Any], data: TokenData) -> None:
        """Writes what does not change during a run.

        Args:
          config: the experiment, as plain values.
          data: its token records.

        Raises:
          UserError: as `check`.
        """
        self.check(config, data)
        config = json.loads(json.dumps(config))
        tokens = _tokens(config, data)
        if not self._tuned_for(config, tokens):
            self.tuned.forget()
        self.path.mkdir(parents=True, exist_ok=True)
        for file in epath.Path(data.tokenizer_dir).iterdir():
            write_bytes(self.tokenizer / file.name, file.read_bytes())
        data.label_space.save(self.label_space)
        write_json(self.data, {"tokens": tokens})
        write_json(self.config, config)
        self.finished.unlink(missing_ok=True)

    def finish(self, step: int) -> None:
        """Says that the run has reached its end."""
        write_json(self.finished, {"step": step})

    def _tuned_for(self, config: Mapping[str, Any], tokens: str) -> bool:
        """Whether what was tuned here was tuned with these checkpoints, records and options."""
        if not self.begun:
            return False
        before = self.read_config().get("fusion", {})
        return before == config.get("fusion", {}) and self._read_tokens() == tokens

    def _check_same(self, config: Mapping[str, Any], data: TokenData) -> None:
        mine = self.read_label_space()
        now = data.label_space.hash
        if mine.hash != now:
            raise UserError(
                f"{self.label_space}: hash {mine.hash}, but the data now give {now}; restore "
                "the records that this run was trained on, or train in a new workdir"
            )
        for file in epath.Path(data.tokenizer_dir).iterdir():
            kept = self.tokenizer / file.name
            if not kept.exists() or kept.read_bytes() != file.read_bytes():
                raise UserError(
                    f"{kept}: is not the tokenizer that the data now have; "
                    "restore the records that this run was trained on, or train in a new workdir"
                )
        before, config = self._whole(self.read_config()), self._whole(config)
        different = [
            *changes(before["model"], config["model"], "model"),
            *changes(
                before["tokens"]["serialise"], config["tokens"]["serialise"], "tokens.serialise"
            ),
        ]
        for key, old, new in different:
            # Where the weights came from once, a folder that may move; and what changes no weight.
            if key.endswith((".init", ".attention")):
                continue
            raise UserError(
                f"config.{key} = {new!r}: this workdir was trained with {old!r}; "
                "set it back, or train in a new workdir"
            )

    def read_config(self) -> dict[str, Any]:
        """Reads `config.json` as it is written.

        Raises:
          UserError: as `read_experiment`.
        """
        self.read_experiment()  # which says what is wrong with the file
        content: dict[str, Any] = json.loads(self.config.read_text())
        return content

    def _whole(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A config with the defaults of what it leaves out, as where an option is newer."""
        options = dataclasses.asdict(experiment.read(config, self.kind))
        content: dict[str, Any] = json.loads(json.dumps(options))
        return content

    def read_experiment(self) -> Any:
        """Reads `config.json`, an experiment of the workdir's kind.

        Raises:
          UserError: it is missing or not an experiment.
        """
        return experiment.load(self.config, self.kind)

    def read_label_space(self) -> LabelSpace:
        """Reads `label_space.json`.

        Raises:
          UserError: it is missing or was changed.
        """
        return LabelSpace.load(self.label_space)

    def open_tokens(self, data_dir: str = "") -> TokenData:
        """Opens the token records that the run was made from.

        Args:
          data_dir: where they lie now; that of the config when empty.

        Raises:
          UserError: they are not there, or their label space is not the workdir's.
        """
        root = epath.Path(data_dir or self.read_experiment().data_dir)
        path = root / self._read_tokens()
        if not path.exists():
            raise UserError(
                f"{path}: no token records here; pass --data_dir with the folder that holds "
                "token_records/, or build them with `jaxcoder tokens`"
            )
        data = open_tokens(path)
        mine = self.read_label_space()
        if data.label_space.hash != mine.hash:
            raise UserError(
                f"{self.label_space}: hash {mine.hash}, but {path} has {data.label_space.hash}; "
                "restore the label space that this workdir was trained with"
            )
        return data

    def _read_tokens(self) -> str:
        try:
            return str(json.loads(self.data.read_text())["tokens"])
        except FileNotFoundError:
            raise UserError(
                f"{self.data}: not found; --workdir must name a folder of `jaxcoder train`"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{self.data}: cannot be read; run the same `jaxcoder train` again to restore it"
            ) from None

    def write_lexicon(self, lexicon: EvidenceLexicon) -> None:
        """Keeps the lexicon to be fused; what was tuned with another one is deleted before."""
        content = lexicon.to_bytes()
        if self.lexicon.exists() and self.lexicon.read_bytes() == content:
            return
        self.tuned.forget()
        write_bytes(self.lexicon, content)


def _tokens(config: Mapping[str, Any], data: TokenData) -> str:
    return below(data.path, config.get("data_dir", Experiment.data_dir))
