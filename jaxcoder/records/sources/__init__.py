"""Sources: where contacts come from, each under one name."""

import abc
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from jaxcoder.errors import UserError
from jaxcoder.records.findings import Findings
from jaxcoder.records.runner import Local, Runner
from jaxcoder.records.schema import Contact

_READ = 2**28
_OF_DATABASES = ("omop", "tables")
NAMES = ("codiesp", "meds", "mimic3", "mimic4", "omop", "synthetic", "tables")


Part = Callable[[Findings], Iterator[Contact]]
"""Streams contacts in an order that is the same every time, in bounded memory, and counts in the
findings, by reason, the rows that it leaves out or empties; picklable."""


class Source(abc.ABC):
    """Where contacts come from.

    A source with options has them as a frozen dataclass, built with `settings.build` after
    `parse_options`, and is constructed as `cls(source_dir, options)`, where `source_dir` may be
    None if it reads no files.

    Attributes:
      name: of the data set: letters, digits, `_`; it shows what it holds (`codiesp_es_D`).
    """

    name: str

    @property
    def descriptions(self) -> Mapping[str, str]:
        """From codes, normalised, to what they stand for, as far as the source knows."""
        return {}

    @property
    @abc.abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides every record, as JSON values: source, options, fingerprint of the files."""

    @abc.abstractmethod
    def parts(self, runner: Runner) -> tuple[Mapping[str, Sequence[Part]], Findings]:
        """The contacts of each split, in parts that can be read apart, on any machine.

        How many parts there are decides nothing: one after the other they give the same contacts
        in the same order. All contacts of a patient are in one part.

        Args:
          runner: does what must be done before there are parts.

        Returns:
          From a split's name, such as `train`, to its parts in order; and what was left out of
          every split. Parts can be read as long as the source is there.
        """

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs of the source."""
        return {key: each for key, each in vars(self).items() if key not in ("_parts", "_dropped")}

    @functools.cached_property
    def _parts(self) -> tuple[Mapping[str, Sequence[Part]], Findings]:
        return self.parts(Local())

    @functools.cached_property
    def _dropped(self) -> dict[str, Findings]:
        return {"": self._parts[1]}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of its splits, in order."""
        return tuple(self._parts[0])

    def contacts(self, split: str) -> Iterator[Contact]:
        """Streams the contacts of a split, part by part, in this process.

        Raises:
          UserError: a mistake in the source's files.
        """
        found = self._dropped[split] = Findings()
        for part in self._parts[0][split]:
            yield from part(found)

    def dropped(self, split: str) -> Findings:
        """The findings of a split, once `contacts(split)` has ended; of none where it is `""`."""
        return self._dropped.get(split, Findings())


def open_source(
    name: str, source_dir: epath.PathLike | None, options: Mapping[str, Any] | None = None
) -> Source:
    """Opens a source by name.

    Args:
      name: one of `NAMES`.
      source_dir: the folder with its files; not needed by `synthetic`. Of `omop` and `tables` it
        may be a PostgreSQL database: `postgresql://USER@HOST/DATABASE?schema=SCHEMA`.
      options: the source's own, such as `{"language": "es"}`; values may be text, as from a command
        line.

    Returns:
      The source. Nothing but headers has been read; of a database, nothing.

    Raises:
      UserError: an unknown name or option, or a folder that is not there or not of the source's
        layout.
    """
    if name not in NAMES:
        raise UserError(f"--source {name}: unknown source; expected one of {', '.join(NAMES)}")
    uri = str(source_dir) if str(source_dir).startswith(("postgresql:", "postgres:")) else ""
    if uri and name not in _OF_DATABASES:
        raise UserError(
            f"--source {name}: does not read databases; expected --source_dir FOLDER, or one of "
            f"the sources {', '.join(_OF_DATABASES)}"
        )
    folder = None if source_dir is None or uri else epath.Path(source_dir)
    if name != "synthetic" and not uri:
        if folder is None:
            raise UserError(
                f"--source {name}: needs --source_dir (in a config records.source_dir), the folder "
                "with its files"
            )
        if not folder.is_dir():
            raise UserError(f"--source_dir {folder}: no such folder")
    # Imported here, so that one source's dependencies are not another's.
    if name == "codiesp":
        from jaxcoder.records.sources.codiesp import CodiEsp

        return CodiEsp(folder, options or {})
    if name == "meds":
        from jaxcoder.records.sources.meds import Meds

        return Meds(folder, options or {})
    if name == "mimic3":
        from jaxcoder.records.sources.mimic3 import Mimic3

        return Mimic3(folder, options or {})
    if name == "mimic4":
        from jaxcoder.records.sources.mimic4 import Mimic4

        return Mimic4(folder, options or {})
    if name == "omop":
        from jaxcoder.records.sources.omop import Omop

        return Omop(uri or folder, options or {})
    if name == "tables":
        from jaxcoder.records.sources.tables import Tables

        return Tables(uri or folder, options or {})
    from jaxcoder.records.sources.synthetic.source import Synthetic

    return Synthetic(folder, options or {})


def parse_options(
    values: Mapping[str, Any], kinds: Mapping[str, Callable[[str], Any]]
) -> dict[str, Any]:
    """Turns the text of `--option key=value` into the types that the options have.

    Args:
      values: option names to values; values that are not text stay as they are.
      kinds: option names to bool, int, float, str or another function of the text. A name that is
        not here is left to `settings.build` to refuse.

    Returns:
      The same options, typed.

    Raises:
      UserError: text that is not of its option's type.
    """
    parsed = dict(values)
    for key, value in values.items():
        kind = kinds.get(key, str)
        if not isinstance(value, str) or kind is str:
            continue
        try:
            parsed[key] = (
                {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
            )
        except (KeyError, ValueError):
            expected = "true or false" if kind is bool else f"{kind.__name__}"
            raise UserError(f"--option {key}={value}: expected {expected}") from None
    return parsed


def fingerprint(folder: epath.Path, paths: Iterable[epath.Path]) -> str:
    """16 hexadecimal digits that change when one of the files does.

    They are taken over names and contents; over names, sizes and times of change where the files
    hold more than 256 MiB: an extract may hold hundreds of gigabytes.
    """
    paths = sorted(paths, key=str)
    stats = [path.stat() for path in paths]
    few = sum(stat.length for stat in stats) <= _READ
    digest = hashlib.blake2b(digest_size=8)
    for path, stat in zip(paths, stats, strict=True):
        state = "" if few else int(stat.mtime)
        digest.update(f"{path.relative_to(folder)}\t{stat.length}\t{state}\n".encode())
        if few:
            digest.update(path.read_bytes())
    return digest.hexdigest()
