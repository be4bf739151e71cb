"""Records on disk: TFDS data sets of ArrayRecord files, checked when they are opened.

Both contact records and token records are kept this way; `writer.py` writes them. TensorFlow is not
needed.
"""

import bisect
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

import tensorflow_datasets as tfds
from etils import epath

from jaxcoder.errors import UserError

T = TypeVar("T")


class Store:
    """A data set on disk, checked: its report and every file are there, in their whole length."""

    def __init__(
        self,
        folder: epath.PathLike,
        report_name: str,
        remedy: Callable[[Mapping[str, Any]], str],
    ) -> None:
        """Opens a folder that `writer.write` made.

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

    def split(
        self, name: str, decode: Callable[[dict[str, Any]], T], only: Sequence[str] = ()
    ) -> "Records[T]":
        """The records of a split.

        Args:
          name: one of `splits`.
          decode: from the features of a record, as NumPy, to what the caller wants.
          only: the features that it is given; empty for all. The others take no time.

        Raises:
          UserError: an unknown split.
        """
        if name not in self.splits:
            raise UserError(f"split {name!r}: {self.path} has {', '.join(self.splits)}")
        info = self._builder.info.splits[name]
        ends = list(itertools.accumulate(info.shard_lengths))
        features = self._builder.info.features
        if only:
            features = tfds.features.FeaturesDict({key: features[key] for key in only})
        stored = tfds.decode.DeserializeMethod.RAW_BYTES
        return Records(
            self._builder.as_data_source(name, deserialize_method=stored),
            features.deserialize_example_np,
            decode,
            [str(path) for path in info.filepaths],
            ends,
            self._remedy,
        )


class Records(Sequence[T], Generic[T]):
    """Random access to the records of one split."""

    def __init__(
        self,
        source: Sequence[bytes],
        parse: Callable[[bytes], dict[str, Any]],
        decode: Callable[[dict[str, Any]], T],
        files: Sequence[str],
        ends: Sequence[int],
        remedy: str,
    ) -> None:
        self._source, self._parse, self._decode = source, parse, decode
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
            record = self._parse(self._source[number])
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
