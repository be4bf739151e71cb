"""Contact records on disk, and how they are read."""

import copy
import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records import store
from jaxcoder.records.contact_features import decode
from jaxcoder.records.schema import Contact
from jaxcoder.records.subset import Subset, of_patients

T = TypeVar("T")
REPORT = "records_report.json"
DATA_SET, VERSION = "contact_records", "1.4.0"


class ContactData:
    """Contact records on disk.

    Attributes:
      name: the data set's name, such as `codiesp_es_D`.
      path: its folder, `DATA_DIR/contact_records/NAME/VERSION`.
      report: the content of `records_report.json`.
      splits: names of its splits; one that has no contacts is not there.
      train_share: of the training patients whose contacts the training split has.
    """

    def __init__(self, path: epath.PathLike) -> None:
        self.train_share = 1.0
        data_dir = epath.Path(path).parent.parent.parent
        self._store = store.Store(
            path, REPORT, lambda report: f"build it with `{rebuilding(report, data_dir)}`"
        )
        self.path = self._store.path
        self.report = self._store.report
        self.name: str = self.report["name"]
        self.splits = self._store.splits

    @property
    def identity(self) -> dict[str, Any]:
        """What decided every record: source, options, state of its files, version; JSON values."""
        return self.report["identity"]

    def split(self, name: str) -> Sequence[Contact]:
        """Random access to the contacts of a split, in the source's order.

        Raises:
          UserError: an unknown split, or a share that leaves nobody to train on.
        """
        return self._part(name, self._store.split(name, decode))

    def patients(self, name: str) -> Sequence[str]:
        """Random access to the patient_id of each contact of a split.

        Raises:
          UserError: as `split`.
        """
        return self._part(name, self._store.split(name, _patient, only=("patient_id",)))

    def _part(self, name: str, records: Sequence[T]) -> Sequence[T]:
        if name != "train" or self.train_share == 1:
            return records
        files = json.dumps(self.report["files"])  # others may have been built in their place
        return Subset(records, _training(self.path, files, self.train_share))

    def taking(self, train_share: float) -> "ContactData":
        """The same contacts, with a share of the training patients.

        Args:
          train_share: in (0, 1].
        """
        other = copy.copy(self)
        other.train_share = train_share
        return other


@functools.lru_cache(maxsize=2)
def _training(path: epath.Path, files: str, share: float) -> np.ndarray:
    """The training contacts of a share of the patients; read once a process."""
    numbers = of_patients(ContactData(path).patients("train"), share)
    if not len(numbers):
        raise UserError(
            f"config.tokens.train_share = {share}: no patient of {path} is among them; "
            "choose a larger share"
        )
    return numbers


def _patient(record: Mapping[str, Any]) -> str:
    return str(record["patient_id"].decode())


def open_contacts(folder: epath.PathLike) -> ContactData:
    """Opens contact records.

    Args:
      folder: of the data set, as `contacts_folder` has it.

    Raises:
      UserError: a data set that is not there, half built or truncated.
    """
    return ContactData(folder)


def contacts_folder(data_dir: epath.PathLike, name: str) -> epath.Path:
    """Where the contact records of a name lie, `DATA_DIR/contact_records/NAME/VERSION`."""
    return epath.Path(data_dir) / DATA_SET / name / VERSION


def rebuilding(report: Mapping[str, Any], data_dir: epath.Path) -> str:
    """The command that builds contact records anew.

    Args:
      report: theirs, or as much as there is of it.
      data_dir: where they lie.
    """
    identity = report.get("identity", {})
    words = [f"jaxcoder records --source {identity.get('source', 'NAME')}"]
    if identity.get("source") != "synthetic":
        words.append(f"--source_dir {shlex.quote(report.get('source_dir') or 'DIR')}")
    for key, value in identity.get("options", {}).items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words.append(f"--option {shlex.quote(f'{key}={text}')}")
    return " ".join([*words, f"--data_dir {shlex.quote(str(data_dir))} --rebuild"])
