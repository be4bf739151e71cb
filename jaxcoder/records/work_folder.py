"""Folders for what is needed while records are made: patients' data, so removed for certain."""

import contextlib
import tempfile
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
                folder.rmtree(missing_ok=True)
                held.close()
    folder = parent / f"{_PREFIX}{uuid.uuid4().hex[:12]}"
    held = locked_folder(folder)
    try:
        yield folder
    finally:
        folder.rmtree(missing_ok=True)
        if held is not None:
            held.close()
