"""The folder of an export: it appears whole or not at all, and replaces only one of its own."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

from jaxcoder import __version__
from jaxcoder.errors import UserError
from jaxcoder.lock import lock
from jaxcoder.whole_file import write_json

RECORD = "export.json"
"""What an export writes about itself, by which it knows its own folders again."""


@contextlib.contextmanager
def whole_folder(path: epath.PathLike) -> Iterator[pathlib.Path]:
    """A folder to write in, which takes its name when all is done.

    It lies beside its later place under a hidden name; what a killed process left there goes with
    the next export to the same place.

    Args:
      path: the later place: nothing, an empty folder, or one that an export has written.

    Raises:
      UserError: something else is there, or another process exports to the same place.
    """
    target = check_replaceable(path)
    hidden, old = (target.with_name(f".{target.name}.{what}") for what in ("export", "old"))
    hidden.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(hidden)
    except BlockingIOError:
        raise UserError(f"{target}: another process exports to it; wait for it") from None
    with held or contextlib.nullcontext():
        if old.exists() and not target.exists():  # killed between the two renames
            old.rename(target)
        _empty(hidden)
        try:
            yield hidden
            check_replaceable(target)
        except BaseException:
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        _replace(target, hidden, old)


def check_replaceable(path: epath.PathLike) -> pathlib.Path:
    """Checks that an export may take a place.

    Returns:
      The place.

    Raises:
      UserError: it lies in a bucket, or what is there is not an export, or has files that the
        export did not write.
    """
    if "://" in os.fspath(path):
        raise UserError(
            f"--output {path}: expected a folder of this machine; copy it to the bucket afterwards"
        )
    target = pathlib.Path(path).resolve()  # a link may lead there
    remedy = "choose another --output, or move it away"
    if not target.exists():
        return target
    if not target.is_dir():
        raise UserError(f"--output {target}: a file; expected a folder; {remedy}")
    present = {
        path.relative_to(target).as_posix()
        for path in target.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if not present:
        return target
    try:
        written = {*json.loads((target / RECORD).read_text())["files"], RECORD}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--output {target}: has files, and no {RECORD} of an export; {remedy}"
        ) from None
    if more := sorted(present - written):
        raise UserError(
            f"--output {target}: an export, but {more[0]} in it is not the export's; {remedy}"
        )
    return target


def write_record(folder: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes what an export says about itself, the names of its files among it."""
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    )
    write_json(folder / RECORD, {**content, "jaxcoder": __version__, "files": files})


def _empty(folder: pathlib.Path) -> None:
    for path in folder.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replace(target: pathlib.Path, new: pathlib.Path, old: pathlib.Path) -> None:
    (new / ".lock").unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
