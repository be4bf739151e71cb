import shutil

import pytest
from etils import epath

from jaxcoder import lock as locks
from jaxcoder.errors import UserError
from jaxcoder.lock import lock, locked_folder, remove_locked


def test_one_at_a_time(tmp_path):
    first = lock(tmp_path)
    with pytest.raises(BlockingIOError):
        lock(tmp_path)
    first.close()
    lock(tmp_path).close()


def test_where_there_are_no_locks_nobody_waits(tmp_path):
    assert lock(tmp_path / "bucket") is None


def test_a_folder_is_locked_as_soon_as_it_is_there_and_its_lock_goes_last(tmp_path):
    folder = epath.Path(tmp_path) / "work"
    held = locked_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert folder.stat().mode & 0o777 == 0o700  # a temporary folder is open to all
    with pytest.raises(BlockingIOError):
        lock(folder)
    (folder / "below").mkdir()
    (folder / "below" / "file").write_text("x")
    remove_locked(folder, held)
    assert held.closed and not list(tmp_path.iterdir())
    remove_locked(folder, None)  # gone already


def test_what_another_process_removes_at_the_same_time_is_let_go(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path) / "work"
    held = locked_folder(folder)
    (folder / "file").write_text("x")
    listed = list(folder.iterdir())

    def iterdir(self):
        shutil.rmtree(folder)  # the other one is faster
        yield from listed
        raise FileNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "iterdir", iterdir)
        remove_locked(folder, held)
    assert held.closed and not folder.exists()


def test_what_cannot_be_removed_is_let_go_too(tmp_path, monkeypatch):
    folder = epath.Path(tmp_path) / "work"
    held = locked_folder(folder)
    (folder / "file").write_text("x")

    def refuse(self, missing_ok=False):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(type(folder), "unlink", refuse)
        with pytest.raises(PermissionError):
            remove_locked(folder, held)
    assert held.closed
    remove_locked(folder, held)  # another try
    assert not folder.exists()


def test_a_bucket_knows_no_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "lock", lambda folder: None)
    folder = epath.Path(tmp_path) / "work"
    assert locked_folder(folder) is None and folder.is_dir()


def test_a_disk_without_locks_is_one_line(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"keeps no locks \(Function not implemented\); expected"):
        lock(tmp_path)
