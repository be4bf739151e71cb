"""Records on disk: TFDS data sets of ArrayRecord files, written whole or not at all.

Both contact records and token records are kept this way. A folder `DATA_DIR/DATA_SET/NAME/VERSION`
counts as whole once its report (`records_report.json`, say) is there: it is written last.
TensorFlow is not needed.
"""

import bisect
import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import multiprocessing
import sys
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import IO, Any, Generic, TypeVar, overload

import tensorflow_datasets as tfds
import tqdm
from etils import epath
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from jaxcoder.errors import UserError
from jaxcoder.lock import lock, locked_folder, remove_locked
from jaxcoder.records.runner import Local, Runner

T = TypeVar("T")
P = TypeVar("P")
_UNFINISHED, _REPLACED, _PARTS = "unfinished", "replaced", "parts"
_SHARD = 16_384  # records a file: 100 MB to 200 MB of contacts with a few notes each
_CHUNK = 256  # records handed to TFDS at a time

Stream = Generator[dict[str, Any], None, Any]
"""Records of a part, each as its features want it; at its end it returns JSON values."""


def write(
    folder: epath.PathLike,
    features: Callable[[], tfds.features.FeaturesDict],
    splits: Mapping[str, Sequence[P]],
    records: Callable[[P], Stream],
    report: Callable[[epath.Path, dict[str, list[Any]]], dict[str, Any]],
    report_name: str,
    runner: Runner | None = None,
) -> epath.Path:
    """Writes every split, part by part, then the report, then puts the data set in its place.

    Records keep the order of the parts and of their streams; memory does not grow with their
    number. A data set that was in the place stays whole until the new one is, so that there must be
    room for both. Each process writes into a folder of its own, and locks it where it lies on a
    disk; what a killed one left, the next to write there removes. In a bucket it stays.

    Args:
      folder: `DATA_DIR/DATA_SET/NAME/VERSION`.
      features: gives those of a record; picklable.
      splits: from a split's name to its parts in order; a split without records is left out.
      records: makes the records of a part; like the parts picklable where several processes run.
      report: called after the last record, with the folder that is being written, where it may
        add files, and with what the parts of each split returned; what it returns gets the key
        `files` (name to bytes) added.
      report_name: file name of the report.
      runner: makes the parts; None for this process.

    Returns:
      The folder.

    Raises:
      UserError: whatever a stream raises, no records at all, or no space to write.
    """
    folder = epath.Path(folder)
    own = folder.parent / f"{_UNFINISHED}.{uuid.uuid4().hex[:12]}"
    staged = own / folder.name
    held = None
    try:
        with _writing(folder):
            held = locked_folder(own)
            staged.mkdir()
            _remove_abandoned(folder)
        parts = [
            _Part(own / _PARTS / f"{split}-{number:05d}", folder, split, part)
            for split, mine in splits.items()
            for number, part in enumerate(mine)
        ]
        apart = any(len(mine) > 1 for mine in splits.values())
        task = functools.partial(_write_part, records=records, features=features)
        results = (runner or Local()).map(task, parts, apart)
        with _writing(folder):
            returned: dict[str, list[Any]] = {split: [] for split in splits}
            for part, result in zip(parts, results, strict=True):
                returned[part.split].append(result["returned"])
            content = report(staged, returned)
            _join(parts, results, staged, features())
            files = sorted(_shards(staged))
            content["files"] = {path.name: path.stat().length for path in files}
            text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
            (staged / report_name).write_text(text)
            if folder.exists():
                folder.rename(own / _REPLACED)
            staged.rename(folder)
    finally:
        _remove(own, folder, held)
    return folder


@dataclasses.dataclass(frozen=True)
class _Part:
    """Records that are written one after another.

    Attributes:
      path: folder of its files.
      folder: where the data set will lie.
      split: its split.
      content: the part as it was given.
    """

    path: epath.Path
    folder: epath.Path
    split: str
    content: Any


def _write_part(
    part: _Part,
    records: Callable[[Any], Stream],
    features: Callable[[], tfds.features.FeaturesDict],
) -> dict[str, Any]:
    """Writes a part.

    Returns:
      `path` (folder of its files), `shards` (records of each file), `bytes`, and what its stream
      `returned`.
    """
    # Beam may give the same part to a second worker while the first is still at it.
    path = part.path / uuid.uuid4().hex[:12]
    returned: list[Any] = []
    stream = _watched(records(part.content), part.split, returned)
    writer = None
    while chunk := list(itertools.islice(stream, _CHUNK)):
        with _writing(part.folder), _unseen():
            if writer is None:
                path.mkdir(parents=True)
                info = _info(path, part.folder, features())
                writer = tfds.core.SequentialWriter(info, _SHARD, file_format="array_record")
                writer.initialize_splits([part.split])
            writer.add_examples({part.split: chunk})
    if writer is None:
        return {"path": str(path), "shards": [], "bytes": 0, "returned": returned[0]}
    with _writing(part.folder):
        writer.close_splits([part.split])
    written = info.splits[part.split]
    return {
        "path": str(path),
        "shards": [int(length) for length in written.shard_lengths],
        "bytes": int(written.num_bytes),
        "returned": returned[0],
    }


def _join(
    parts: Sequence[_Part],
    results: Sequence[Mapping[str, Any]],
    staged: epath.Path,
    features: tfds.features.FeaturesDict,
) -> None:
    """Makes one data set of the files of the parts."""
    info = _info(staged, parts[0].folder, features)
    info.set_file_format("array_record")
    held: dict[str, list[tuple[epath.Path, int]]] = {}
    size: collections.Counter[str] = collections.Counter()
    for part, result in zip(parts, results, strict=True):
        if result["shards"]:
            files = sorted(_shards(epath.Path(result["path"])))
            held.setdefault(part.split, []).extend(zip(files, result["shards"], strict=True))
            size[part.split] += result["bytes"]
    if not held:
        raise UserError(f"{parts[0].folder}: no records to write; expected some")
    infos = []
    for split, shards in held.items():
        template = tfds.core.ShardedFileTemplate(
            data_dir=staged, dataset_name=info.name, split=split, filetype_suffix="array_record"
        )
        for index, (file, _) in enumerate(shards):
            file.rename(template.sharded_filepath(shard_index=index, num_shards=len(shards)))
        lengths = [length for _, length in shards]
        infos.append(tfds.core.SplitInfo(split, lengths, size[split], template))
    info.set_splits(tfds.core.SplitDict(infos))
    info.write_to_directory(staged)


def _info(
    path: epath.Path, folder: epath.Path, features: tfds.features.FeaturesDict
) -> tfds.core.DatasetInfo:
    # No TFDS builder: it holds up to 1,000 MiB of records before it writes the first, sorts what
    # is beyond by key, asks Google's servers about a data set of that name, and leaves an empty
    # folder in /tmp each time.
    return tfds.core.DatasetInfo(
        builder=DatasetIdentity(
            name=folder.parent.parent.name,
            config_name=folder.parent.name,
            version=tfds.core.Version(folder.name),
            data_dir=str(path),
            module_name=__name__,
        ),
        features=features,
        disable_shuffling=True,
    )


class Store:
    """A data set on disk, checked: its report and every file are there, in their whole length."""

    def __init__(
        self,
        folder: epath.PathLike,
        report_name: str,
        remedy: Callable[[Mapping[str, Any]], str],
    ) -> None:
        """Opens a folder that `write` made.

        Args:
          folder: `…/NAME/VERSION`.
          report_name: file name of its report.
          remedy: from the report, empty where it cannot be read, to what a user does to get a whole
            data set, for messages.

        Raises:
          UserError: a folder that is not there, not whole, or has a truncated file.
        """
        self.path = epath.Path(folder)
        self._remedy = remedy({})
        report = self.path / report_name
        if not report.exists():
            what = "is not whole: no" if self.path.exists() else "is not there: no"
            raise UserError(f"{self.path}: the data set {what} {report_name}; {self._remedy}")
        try:
            self.report: dict[str, Any] = json.loads(report.read_text())
            files: dict[str, int] = self.report["files"]
        except (ValueError, KeyError):
            raise UserError(f"{report}: not a report of a data set; {self._remedy}") from None
        self._remedy = remedy(self.report)
        for name, length in files.items():
            path = self.path / name
            found = path.stat().length if path.exists() else None
            if found != length:
                state = (
                    "missing"
                    if found is None
                    else f"{found} bytes, expected {length}: truncated or replaced"
                )
                raise UserError(f"{path}: {state}; {self._remedy}")
        try:
            self._builder = tfds.builder_from_directory(self.path)
        except Exception as error:  # TFDS has no error of its own for a broken description.
            raise UserError(
                f"{self.path}: dataset_info.json or features.json cannot be read "
                f"({type(error).__name__}); {self._remedy}"
            ) from None
        self.splits = tuple(self._builder.info.splits)

    def split(self, name: str, decode: Callable[[dict[str, Any]], T]) -> "Records[T]":
        """The records of a split.

        Args:
          name: one of `splits`.
          decode: from the features of a record, as NumPy, to what the caller wants.

        Raises:
          UserError: an unknown split.
        """
        if name not in self.splits:
            raise UserError(f"split {name!r}: {self.path} has {', '.join(self.splits)}")
        info = self._builder.info.splits[name]
        ends = list(itertools.accumulate(info.shard_lengths))
        return Records(
            self._builder.as_data_source(name),
            decode,
            [str(path) for path in info.filepaths],
            ends,
            self._remedy,
        )


class Records(Sequence[T], Generic[T]):
    """Random access to the records of one split."""

    def __init__(
        self,
        source: Any,
        decode: Callable[[dict[str, Any]], T],
        files: Sequence[str],
        ends: Sequence[int],
        remedy: str,
    ) -> None:
        self._source, self._decode = source, decode
        self._files, self._ends, self._remedy = files, ends, remedy

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        """A record, or a list of them.

        Raises:
          IndexError: there is no such record.
          UserError: its file is corrupt.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = index.__index__()
        number += len(self) if number < 0 else 0
        if not 0 <= number < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            record = self._source[number]
        except Exception as error:  # ArrayRecord raises whatever its C++ side has.
            path = self._files[bisect.bisect_right(self._ends, number)]
            raise UserError(
                f"{path}: record {number} of the split cannot be read ({type(error).__name__}): "
                f"the file is corrupt; {self._remedy}"
            ) from None
        return self._decode(record)

    def __getitems__(self, indices: Sequence[int]) -> list[T]:
        """The records of a batch, as PyTorch and Grain ask for them."""
        return [self[index] for index in indices]


def evenly(records: Sequence[T], most: int) -> Iterator[T]:
    """At most `most` of the records, evenly spaced; all where `most` is 0."""
    count = len(records)
    if not most or count <= most:
        return iter(records[number] for number in range(count))
    return iter(records[number * count // most] for number in range(most))


def below(path: epath.PathLike, root: epath.PathLike) -> str:
    """A path as seen from a folder above it; elsewhere whole, which a join keeps as it is."""
    try:
        return str(epath.Path(path).relative_to(root))
    except ValueError:
        return str(path)


def _shards(folder: epath.Path) -> Iterator[epath.Path]:
    return (path for path in folder.iterdir() if ".array_record-" in path.name)


def _watched(stream: Stream, split: str, returned: list[Any]) -> Iterator[dict[str, Any]]:
    """The same stream with a progress bar on a terminal; what it returns is put into a list."""

    def kept() -> Iterator[dict[str, Any]]:
        returned.append((yield from stream))

    # Several processes would write over each other's bars.
    hidden = not sys.stderr.isatty() or multiprocessing.parent_process() is not None
    return iter(tqdm.tqdm(kept(), desc=split, unit=" records", disable=hidden))


@contextlib.contextmanager
def _writing(folder: epath.Path) -> Iterator[None]:
    """A folder that cannot be written to, as an error that says so."""
    try:
        yield
    except Exception as error:
        if "No space left" in str(error):  # ArrayRecord has no error of its own for it.
            raise UserError(
                f"{folder}: no space left on its device; make room, or give another --data_dir"
            ) from None
        if isinstance(error, OSError):
            raise UserError(f"{folder}: cannot be written ({error.strerror or error})") from None
        raise


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    """Without the record in the message: TFDS shows one that it cannot encode, notes and all."""
    try:
        yield
    except Exception as error:
        if "Failed to encode example" in str(error):
            kind = type(error).__name__
            raise RuntimeError(f"a record does not fit its features ({kind})") from None
        raise


def _remove_abandoned(folder: epath.Path) -> None:
    """Removes what processes that are no more were writing beside a data set."""
    for own in folder.parent.glob(f"{_UNFINISHED}.*"):
        with contextlib.suppress(BlockingIOError):  # it is still at work
            held = lock(own)
            if held is not None:
                _remove(own, folder, held)


def _remove(own: epath.Path, folder: epath.Path, held: IO[bytes] | None) -> None:
    """Removes a folder of unfinished writing; what was about to be replaced goes back."""
    if (own / _REPLACED).exists() and not folder.exists():
        (own / _REPLACED).rename(folder)
    remove_locked(own, held)
