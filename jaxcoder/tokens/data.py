"""Token records on disk: their features, and how they are read.

`tokens`, `labels` and `evidence` are flat integers. The way back to characters (`offsets`,
`segments`), which training does not read, is compressed into one value: as plain integers it would
double both the size of a record and the time to write it.
"""

import functools
import json
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from jaxcoder import settings
from jaxcoder.errors import UserError
from jaxcoder.records import store
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.data import ContactData, open_contacts
from jaxcoder.tokens.serialise import SerialiseOptions
from jaxcoder.tokens.tokenizer import Tokenizer, load_tokenizer

REPORT = "tokens_report.json"
LABEL_SPACE, TOKENIZER = "label_space.json", "tokenizer"
_DATA_SET, VERSION = "token_records", "1.3.0"
MINI = "mini"
"""The split of mini-documents: for training only."""

Record = dict[str, Any]
_OF_BATCHES = ("tokens", "labels", "missing", "evidence")
_TEXTS = ("contact_id", "patient_id", "specialty", "sex", "kind")
_OF_OUTCOMES = (*_TEXTS, "age", "year", "notes", "labels", "missing_codes")


class CodeCount(NamedTuple):
    """How often a code occurs in a split, in contacts.

    Attributes:
      occurrences: contacts that have it.
      secondary: those of them in which its role is secondary.
      known: those of them in which its role is known.
    """

    occurrences: int
    secondary: int
    known: int


NEVER = CodeCount(0, 0, 0)
"""The count of a code that does not occur."""


def features() -> tfds.features.FeaturesDict:
    """The features of a token record."""
    tensor, text = tfds.features.Tensor, tfds.features.Text
    # Arrays are stored as their bytes. As integers of a protobuf plain TFDS read 6,200 records/s a
    # core, so 12,600; the files were 16 % smaller (`jaxcoder bench input`).
    array = functools.partial(tensor, encoding=tfds.features.Encoding.BYTES)
    return tfds.features.FeaturesDict(
        {
            "tokens": array(shape=(None,), dtype=np.int32, doc="Start and end token included."),
            "labels": array(shape=(None,), dtype=np.int32, doc="In the label space, rising."),
            "roles": array(shape=(None,), dtype=np.uint8, doc="0 unknown, 1 primary, 2 secondary."),
            "missing": tensor(shape=(), dtype=np.int32, doc="Gold codes outside the label space."),
            "missing_codes": tensor(shape=(None,), dtype=np.str_, doc="Their names."),
            "contact_id": text(),
            "patient_id": text(),
            "specialty": text(),
            "sex": tensor(shape=(), dtype=np.str_, doc="F, M or U."),
            "kind": tensor(shape=(), dtype=np.str_, doc="Of contact; empty where unknown."),
            "age": tensor(shape=(), dtype=np.float32, doc="Years; −1 where unknown."),
            "year": tensor(shape=(), dtype=np.int32, doc="Of the start; 0 where unknown."),
            "notes": tensor(shape=(), dtype=np.int32, doc="Their number, before any cut."),
            "evidence": array(
                shape=(None, 4),
                dtype=np.int32,
                doc="Label, first token, token after the last, provenance (0 gold, 1 silver).",
            ),
            "characters": tensor(
                shape=(), dtype=np.str_, doc="Offsets and segments; see jaxcoder/tokens/data.py."
            ),
        }
    )


def pack_characters(offsets: np.ndarray, segments: np.ndarray) -> bytes:
    """Packs offsets int32 [n, 2] and segments int32 [s, 5]; the inverse of `unpack_characters`."""
    count = len(offsets)
    flat = np.empty(1 + 2 * count + segments.size, "<i4")
    flat[0] = count
    flat[1 : 1 + count] = offsets[:, 0]
    flat[2 : 1 + count] -= offsets[:-1, 0]  # small numbers, which compress well
    flat[1 + count : 1 + 2 * count] = offsets[:, 1] - offsets[:, 0]
    flat[1 + 2 * count :] = segments.ravel()
    return zlib.compress(flat.data, level=1)


def unpack_characters(packed: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int32 [n, 2] and segments int32 [s, 5] of a record."""
    flat = np.frombuffer(zlib.decompress(packed), "<i4").astype(np.int32)
    count = int(flat[0])
    starts = np.cumsum(flat[1 : 1 + count], dtype=np.int32)
    offsets = np.stack([starts, starts + flat[1 + count : 1 + 2 * count]], axis=1)
    return offsets, flat[1 + 2 * count :].reshape(-1, 5)


class TokenData:
    """Token records on disk.

    Attributes:
      name: of the data set: the contacts' name and a hash of what decided the records.
      path: its folder, `DATA_DIR/token_records/NAME/VERSION`.
      report: the content of `tokens_report.json`.
      splits: names of its splits, `mini` among them where there are mini-documents.
      label_space: the labels' codes.
      tokenizer_dir: folder of the tokenizer.
    """

    def __init__(self, path: epath.PathLike) -> None:
        self._remedy = f"delete {path} and give the same command of `train` or `tokens` again"
        self._store = store.Store(path, REPORT, lambda _: self._remedy)
        self.path = self._store.path
        self.report = self._store.report
        self.name: str = self.report["name"]
        self.splits = self._store.splits
        self.label_space = LabelSpace.load(self.path / LABEL_SPACE)
        self.tokenizer_dir = self.path / TOKENIZER
        if self.label_space.hash != self.report["label_space"]:
            raise UserError(
                f"{self.path / LABEL_SPACE}: hash {self.label_space.hash}, expected "
                f"{self.report['label_space']}: it is another one's; {self._remedy}"
            )

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the records were made with."""
        return load_tokenizer(self.tokenizer_dir)

    @property
    def serialise(self) -> SerialiseOptions:
        """What of a contact they were made from."""
        made = self.report["identity"]["options"]["serialise"]
        return settings.build(SerialiseOptions, made, f"{self.path / REPORT}: serialise")

    @property
    def contacts_path(self) -> epath.Path:
        """Folder of the contact records that they were made from."""
        return self.path.parent.parent.parent / self.report["contacts"]

    def contacts(self) -> ContactData:
        """The contact records that they were made from, in the same order.

        Raises:
          UserError: they are gone, not whole, or others have been built in their place.
        """
        contacts = open_contacts(self.contacts_path)
        if contacts.identity != self.report["identity"]["contacts"]:
            raise UserError(
                f"{self.contacts_path}: holds other contacts than those that {self.path} was made "
                f"from; {self._remedy}"
            )
        return contacts.taking(self.report["identity"]["options"]["train_share"])

    def split(self, name: str) -> Sequence[Record]:
        """Random access to the records of a split, in the order of the contacts.

        Each is a dict of `tokens` int32 [n], `labels` int32 [k], `roles` uint8 [k], `missing`
        int32, `missing_codes` (tuple of text), `contact_id`, `patient_id`, `specialty`, `sex`,
        `kind` (text), `age` float32 (−1 where unknown), `year` int32 (0 where unknown), `notes`
        int32 (their number), `evidence` int32 [m, 4], `offsets` int32 [n, 2] (characters in the
        serialised text) and `segments` int32 [s, 5] (see `serialise.Serialised`).

        Raises:
          UserError: an unknown split.
        """
        return self._store.split(name, _decode)

    def batch_source(self, name: str) -> Sequence[Record]:
        """The same records, `tokens`, `labels`, `missing` and `evidence` alone: what batches have.

        Arrays cannot be written to.
        """
        return self._store.split(name, dict, only=_OF_BATCHES)

    def outcome_source(self, name: str) -> Sequence[Record]:
        """The same records without what the coder reads: ids, codes, and what groups contacts."""
        return self._store.split(name, _decode_names, only=_OF_OUTCOMES)

    def code_counts(self, name: str) -> dict[str, CodeCount]:
        """How often each code of a split occurs, those outside the label space too.

        No record is read. The split `mini` has no counts.
        """
        path = self.path / f"codes_{name}.json"
        try:
            counts = json.loads(path.read_text())
            return {code: CodeCount(*map(int, count)) for code, count in counts.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: cannot be read ({type(error).__name__}); {self._remedy}"
            ) from None

    def sizes(self, name: str) -> np.ndarray:
        """int32 [N, 3]: tokens, labels and evidence spans of each record; no record is read."""
        path = self.path / f"sizes_{name}.npy"
        try:
            with path.open("rb") as file:
                return np.load(file, allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({type(error).__name__}); {self._remedy}"
            ) from None

    def lengths(self, name: str) -> np.ndarray:
        """int32 [N], tokens of each record; no record is read."""
        return self.sizes(name)[:, 0]


def tokens_folder(data_dir: epath.PathLike, name: str) -> epath.Path:
    """Where the token records of a name lie, `DATA_DIR/token_records/NAME/VERSION`."""
    return epath.Path(data_dir) / _DATA_SET / name / VERSION


def open_tokens(path: epath.PathLike) -> TokenData:
    """Opens token records.

    Args:
      path: the data set's folder, `DATA_DIR/token_records/NAME/VERSION`.

    Raises:
      UserError: a data set that is not there, half built or truncated.
    """
    return TokenData(path)


def _decode(record: Record) -> Record:
    offsets, segments = unpack_characters(record.pop("characters"))
    return {**_decode_names(record), "offsets": offsets, "segments": segments}


def _decode_names(record: Record) -> Record:
    missing = tuple(code.decode() for code in record["missing_codes"].tolist())
    texts = {key: record[key].decode() for key in _TEXTS}
    return {**record, **texts, "missing_codes": missing}
