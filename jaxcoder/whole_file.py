"""Files that appear whole or not at all: written to a neighbour first, then renamed."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import IO, Any

from etils import epath


@contextlib.contextmanager
def whole_file(path: epath.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a file that appears when all of it is written; what was there stays until then.

    Args:
      path: the file; its folder is created.
      mode: `w` or `wb`.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"  # several may write it
    try:
        with temporary.open(mode) as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes a file whole."""
    with whole_file(path, "wb") as file:
        file.write(content)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes JSON whole, keys sorted."""
    write_bytes(path, as_json(value))


def as_json(value: Any) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
