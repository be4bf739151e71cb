"""Locks: one process at a time writes in a folder."""

import os
from typing import IO

from etils import epath


def lock(folder: epath.PathLike) -> IO[bytes] | None:
    """Locks a folder for as long as the file is open, at most until this process ends.

    Args:
      folder: is there.

    Returns:
      The file `.lock` in it; None where the folder lies in a bucket, which knows no locks.

    Raises:
      BlockingIOError: another process has it.
    """
    import fcntl  # not on every system that jaxcoder can be read on

    try:
        file = open(os.path.join(os.fspath(folder), ".lock"), "ab")  # noqa: SIM115 - it stays open
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    return file


def locked_folder(folder: epath.Path) -> IO[bytes] | None:
    """Makes a folder that is locked from the moment at which others can see it.

    Returns:
      As `lock`.
    """
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    held = lock(hidden)
    hidden.rename(folder)
    return held
