"""A data set on its way to the disk: made by part, whole or not there.

A folder `DATA_DIR/DATA_SET/NAME/VERSION` counts as whole once its report (`records_report.json`,
say) is there: it is written last. `store.py` reads it.
"""

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
from typing import IO, Any, TypeVar

import tensorflow_datasets as tfds
import tqdm
from etils import epath
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from jaxcoder.errors import UserError
from jaxcoder.lock import lock, locked_folder, remove_locked
from jaxcoder.records.runner import Local, Runner

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
        # An error on its way says more than that its traces could not be removed.
        with contextlib.suppress(OSError):
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
