"""Folders for what is needed only while records are made: patients' data, so removed for certain."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from etils import epath

from jaxcoder.lock import lock

_PREFIX = "jaxcoder-"


@contextlib.contextmanager
def work_folder(shared: epath.Path | None = None) -> Iterator[epath.Path]:
    """A new folder, removed at the end, or after a kill by the next process that needs one there.

    Args:
      shared: where it is made; None for the temporary folder of this machine (TMPDIR). In a bucket,
        which knows no locks, what a killed process left stays.
    """
    if shared is not None:
        shared.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(epath.Path(tempfile.gettempdir()) if shared is None else shared)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=shared) as folder:
        held = lock(folder)
        try:
            yield epath.Path(folder)
        finally:
            if held is not None:
                held.close()


def _remove_abandoned(parent: epath.Path) -> None:
    for folder in pathlib.Path(parent).glob(f"{_PREFIX}*"):
        with contextlib.suppress(BlockingIOError):  # it is still at work
            if (folder / ".lock").exists() and (held := lock(folder)):
                shutil.rmtree(folder, ignore_errors=True)
                held.close()
