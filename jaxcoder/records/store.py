"""Records on disk: TFDS data sets of ArrayRecord files, written whole or not at all.

Both contact records and token records are kept this way. A folder `DATA_DIR/DATA_SET/NAME/VERSION`
counts as whole once its report (`records_report.json`, say) is there: it is written last.
TensorFlow is not needed.
"""

import bisect
import contextlib
import io
import itertools
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import tensorflow_datasets as tfds
import tqdm
from etils import epath

from jaxcoder.errors import UserError

T = TypeVar("T")
Rows = Callable[[], Iterator[dict[str, Any]]]
"""Opens the stream of one split's records, each as its features want it."""


class RecordsBuilder(tfds.core.GeneratorBasedBuilder):
    """A TFDS builder whose records come from streams. Subclasses set `name` and `VERSION`."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, data_dir: epath.PathLike, config: str, features: tfds.features.FeaturesDict
    ) -> None:
        self._record_features = features
        self._streams: dict[str, Iterator[dict[str, Any]]] = {}
        with _quiet_tfds():
            super().__init__(
                data_dir=str(data_dir),
                config=tfds.core.BuilderConfig(name=config),
                file_format="array_record",
            )

    def _info(self) -> tfds.core.DatasetInfo:
        # The order of the source is kept: it is deterministic, and neighbours compress well.
        return tfds.core.DatasetInfo(
            builder=self, features=self._record_features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: enumerate(rows) for split, rows in self._streams.items()}

    def _generate_examples(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("streams are handed to write()")

    def write(
        self, splits: Mapping[str, Rows], report: Callable[[], dict[str, Any]], report_name: str
    ) -> epath.Path:
        """Writes every split, then the report. What an earlier try left behind is removed first.

        Only one process may write a data set at a time.

        Args:
          splits: from a split's name to its stream; none is empty.
          report: called after the last record; gets the key `files` (name to bytes) added.
          report_name: file name of the report.

        Returns:
          The folder of the data set.

        Raises:
          UserError: whatever a stream raises, an empty split, or no space to write.
        """
        folder = self.data_path
        if folder.exists():
            folder.rmtree()
        if folder.parent.exists():
            for left in folder.parent.iterdir():
                if left.name.startswith("incomplete."):  # TFDS's name for a folder being written
                    left.rmtree()
        raised: list[Exception] = []
        self._streams = {}
        try:
            self._streams = {split: _watched(rows, split, raised) for split, rows in splits.items()}
            # TFDS makes a folder for downloads beside the data unless it is given one.
            with _quiet_tfds(), tempfile.TemporaryDirectory() as downloads:
                self.download_and_prepare(download_dir=downloads)
            content = report()
            content["files"] = {path.name: path.stat().length for path in sorted(_shards(folder))}
            unfinished = folder / f"{report_name}.unfinished"
            unfinished.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
            unfinished.replace(folder / report_name)
        except Exception as error:
            # TFDS wraps what a stream raises in errors of its own, with its own advice.
            if raised:
                raise raised[0] from None
            if "No space left" in str(error):  # ArrayRecord has no error of its own for it.
                raise UserError(
                    f"{folder}: no space left on its device; make room, or give another --data_dir"
                ) from None
            if isinstance(error, OSError):
                raise UserError(
                    f"{folder}: cannot be written ({error.strerror or error})"
                ) from None
            raise
        finally:
            self._streams = {}
        return folder


class Store:
    """A data set on disk, checked: its report and every file are there, in their whole length."""

    def __init__(self, folder: epath.PathLike, report_name: str, remedy: str) -> None:
        """Opens a folder that `RecordsBuilder.write` made.

        Args:
          folder: `…/NAME/VERSION`.
          report_name: file name of its report.
          remedy: what a user does to get a whole data set, for messages.

        Raises:
          UserError: a folder that is not there, not whole, or has a truncated file.
        """
        self.path = epath.Path(folder)
        self._remedy = remedy
        report = self.path / report_name
        if not report.exists():
            what = "is not whole: no" if self.path.exists() else "is not there: no"
            raise UserError(f"{self.path}: the data set {what} {report_name}; {remedy}")
        try:
            self.report: dict[str, Any] = json.loads(report.read_text())
            files: dict[str, int] = self.report["files"]
        except (ValueError, KeyError):
            raise UserError(f"{report}: not a report of a data set; {remedy}") from None
        for name, length in files.items():
            path = self.path / name
            found = path.stat().length if path.exists() else None
            if found != length:
                state = (
                    "missing"
                    if found is None
                    else f"{found} bytes, expected {length}: truncated or replaced"
                )
                raise UserError(f"{path}: {state}; {remedy}")
        try:
            self._builder = tfds.builder_from_directory(self.path)
        except Exception as error:  # TFDS has no error of its own for a broken description.
            raise UserError(
                f"{self.path}: dataset_info.json or features.json cannot be read "
                f"({type(error).__name__}); {remedy}"
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


def _shards(folder: epath.Path) -> Iterator[epath.Path]:
    return (path for path in folder.iterdir() if ".array_record-" in path.name)


def _watched(rows: Rows, split: str, raised: list[Exception]) -> Iterator[dict[str, Any]]:
    """The same stream with a progress bar on a terminal; notes what it raises."""
    empty = True
    try:
        bar = tqdm.tqdm(rows(), desc=split, unit=" records", disable=not sys.stderr.isatty())
        for row in bar:
            empty = False
            yield row
        if empty:  # TFDS refuses it too, with an AssertionError.
            raise UserError(f"split {split}: no records to write; leave it out")
    except Exception as error:
        raised.append(error)
        raise


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Without TFDS's progress bars and its words about downloads and configurations."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logger.setLevel(level)
