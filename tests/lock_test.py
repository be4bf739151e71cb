import pytest

from jaxcoder.lock import lock


def test_one_at_a_time(tmp_path):
    first = lock(tmp_path)
    with pytest.raises(BlockingIOError):
        lock(tmp_path)
    first.close()
    lock(tmp_path).close()


def test_where_there_are_no_locks_nobody_waits(tmp_path):
    assert lock(tmp_path / "bucket") is None
