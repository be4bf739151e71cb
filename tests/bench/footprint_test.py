import subprocess
import sys

import pytest

from jaxcoder.bench import footprint
from jaxcoder.errors import UserError

TAKE = "import time; held = bytearray(64 * 2**20); time.sleep(1)"


def take(mebibytes):
    held = bytearray(mebibytes * 2**20)
    subprocess.run([sys.executable, "-c", TAKE], check=True)
    return len(held)


def end():
    raise SystemExit


def test_children_count_and_the_result_comes_back():
    took = footprint.measure(take, 64)
    assert took.result == 64 * 2**20
    assert took.peak > 2 * 64 * 2**20
    assert took.seconds > 1


def refuse():
    raise UserError("/data: no space left")


def test_a_mistake_of_the_user_comes_back_as_one():
    with pytest.raises(UserError, match="^/data: no space left$"):
        footprint.measure(refuse)


def test_work_without_a_result_is_an_error():
    with pytest.raises(RuntimeError, match="without a result"):
        footprint.measure(end)
