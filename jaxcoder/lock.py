"""Locks: one process at a time writes in a folder."""

import contextlib
import os
from typing import IO

from etils import epath

from jaxcoder.errors import UserError

_LOCK = ".lock"


def lock(folder: epath.PathLike) -> IO[bytes] | None:
    """Locks a folder for as long as the file is open, at most until this process ends.

    Args:
      folder: is there.

    Returns:
      The file `.lock` in it; None where the folder lies in a bucket, which knows no locks.

    Raises:
      BlockingIOError: another process has it.
      UserError: the disk keeps no locks.
    """
    import fcntl  # not on every system that jaxcoder can be read on

    try:
        file = open(os.path.join(os.fspath(folder), _LOCK), "ab")  # noqa: SIM115 - it stays open
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError as error:
        file.close()
        raise UserError(
            f"{folder}: its disk keeps no locks ({error.strerror}); expected flock(); mount it "
            "with them, or choose a folder elsewhere"
        ) from None
    return file


def locked_folder(folder: epath.Path) -> IO[bytes] | None:
    """Makes a folder that its owner alone can read, locked as soon as others can see it.

    Returns:
      As `lock`.
    """
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True, exist_ok=True)
    if hidden.is_dir():  # what is in it may be a patient's
        os.chmod(hidden, 0o700)
    held = lock(hidden)
    if held is None:  # a bucket: it has no folders, only names
        folder.mkdir(parents=True, exist_ok=True)
    else:
        hidden.rename(folder)
    return held


def remove_locked(folder: epath.Path, held: IO[bytes] | None) -> None:
    """Removes a folder, its lock last: NFS keeps an open file, and the folder with it.

    Args:
      folder: may be gone already.
      held: what `lock` gave of it, or has been closed since; closed, whatever happens.
    """
    closed = contextlib.closing(held) if held else contextlib.nullcontext()
    # Whoever found the lock free a moment too late may be removing the same.
    with closed, contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name != _LOCK:
                path.rmtree(missing_ok=True) if path.is_dir() else path.unlink(missing_ok=True)
    folder.rmtree(missing_ok=True)
