import errno

import pytest

from jaxcoder import retries
from jaxcoder.retries import ATTEMPTS, passes, retried


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(retries, "_SECONDS", 0.0)


class Storage:
    """Fails some times, then works."""

    def __init__(self, failures, error):
        self.left, self.error, self.asked = failures, error, 0

    def work(self):
        self.asked += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        RuntimeError("UNAVAILABLE: bucket [tensorstore]"),
    ],
)
def test_what_passes_is_asked_again(error, caplog):
    storage = Storage(ATTEMPTS - 1, error)
    assert retried(storage.work, "runs/x/5") == "done" and storage.asked == ATTEMPTS
    assert "runs/x/5" in caplog.text and "trying again" in caplog.text
    storage = Storage(ATTEMPTS, error)
    with pytest.raises(type(error)):
        retried(storage.work, "runs/x/5")
    assert storage.asked == ATTEMPTS


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        ValueError("wrong shape"),
    ],
)
def test_what_stays_is_said_at_once(error):
    storage = Storage(1, error)
    with pytest.raises(type(error)):
        retried(storage.work, "x")
    assert storage.asked == 1 and not passes(error)
