"""Folders for what is needed while records are made: patients' data, so removed for certain."""

import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator

from etils import epath

from jaxcoder.lock import lock, locked_folder

_PREFIX = "jaxcoder-work-"


@contextlib.contextmanager
def work_folder(shared: epath.Path | None = None) -> Iterator[epath.Path]:
    """A new folder, removed at the end, or after a kill by the next process that needs one there.

    Args:
      shared: where it is made; None for the temporary folder of this machine (TMPDIR). In a bucket,
        which knows no locks, what a killed process left stays.
    """
    parent = epath.Path(tempfile.gettempdir()) if shared is None else shared
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(BlockingIOError):  # it is still at work
            if held := lock(folder):
                _remove(folder)
                held.close()
    folder = parent / f"{_PREFIX}{uuid.uuid4().hex[:12]}"
    held = locked_folder(folder)
    try:
        yield folder
    finally:
        _remove(folder)
        if held is not None:
            held.close()
        if shared is not None:
            with contextlib.suppress(OSError, ValueError):  # something else is still in it
                parent.rmdir()


def _remove(folder: epath.Path) -> None:
    # While an error is on its way DuckDB may still write; what then stays, the next one removes.
    for _ in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)
