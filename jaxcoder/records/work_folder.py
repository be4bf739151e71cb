"""Folders for what is needed while records are made: patients' data, so removed for certain."""

import contextlib
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import IO

from etils import epath

from jaxcoder.lock import lock, locked_folder, remove_locked

_PREFIX = "jaxcoder-work-"


@contextlib.contextmanager
def work_folder(shared: epath.Path | None = None) -> Iterator[epath.Path]:
    """A new folder, removed at the end, or after a kill by the next process that needs one there.

    Args:
      shared: where it is made, and removed if nothing else is in it; None for the temporary folder
        of this machine (TMPDIR). In a bucket, which knows no locks, what a killed process left
        stays.

    Raises:
      UserError: the disk keeps no locks.
    """
    parent = epath.Path(tempfile.gettempdir()) if shared is None else shared
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    folder = parent / f"{_PREFIX}{uuid.uuid4().hex[:12]}"
    held = locked_folder(folder)
    try:
        yield folder
    finally:
        _remove(folder, held)
        if shared is not None:
            with contextlib.suppress(OSError, ValueError):  # something else is still in it
                parent.rmdir()


def remove_abandoned(parent: epath.Path | None = None) -> None:
    """Removes the work folders of processes that are no more.

    Args:
      parent: where they lie; None for the temporary folder.
    """
    parent = epath.Path(tempfile.gettempdir()) if parent is None else parent
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(BlockingIOError):  # it is still at work
            if held := lock(folder):
                _remove(folder, held)


def _remove(folder: epath.Path, held: IO[bytes] | None) -> None:
    # While an error is on its way DuckDB may still write; what then stays, the next one removes.
    for _ in range(10):
        with contextlib.suppress(OSError):
            remove_locked(folder, held)
        if not folder.exists():
            return
        time.sleep(0.05)
