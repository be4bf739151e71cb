"""Flags and signals of one process; several are in tests/multiprocess."""

import os
import signal

import pytest
from absl import flags

from jaxcoder import distributed
from jaxcoder.distributed import Preemption
from jaxcoder.errors import UserError


@pytest.fixture
def given():
    """Declares the flags, and reads arguments into them."""
    before = set(flags.FLAGS)
    distributed.define_flags()

    def read(*arguments):
        flags.FLAGS(["test", *arguments])

    yield read
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes=2", "--process=0"], "--coordinator = '': expected HOST:PORT"),
        (["--coordinator=host", "--processes=2", "--process=0"], "expected HOST:PORT"),
        (["--coordinator=host:x", "--processes=2", "--process=0"], "expected HOST:PORT"),
        (["--coordinator=host:1", "--processes=2", "--process=2"], "--process = 2, --processes"),
        (["--coordinator=host:1"], "expected a number from 0"),
    ],
)
def test_flags_that_do_not_go_together(given, arguments, message):
    given(*arguments)
    with pytest.raises(UserError, match=message):
        distributed.start()


def test_without_flags_there_is_one_process_and_xla_is_left_alone(given):
    given()
    before = os.environ.get("XLA_FLAGS")
    distributed.start()
    assert os.environ.get("XLA_FLAGS") == before


@pytest.mark.parametrize(
    ("platforms", "on_cpu"), [(None, True), ("", True), ("cpu", True), ("tpu,cpu", False)]
)
def test_what_xla_is_told_of_a_cpu_is_told_where_it_may_be_chosen(platforms, on_cpu):
    assert distributed._on_cpu(platforms) == on_cpu


def test_told_once_it_ends_after_the_step_told_twice_at_once():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("elsewhere"))
    try:
        with Preemption() as preemption:
            assert not preemption.reached(1)
            signal.raise_signal(signal.SIGTERM)
            assert preemption.reached(2) and not heard
            signal.raise_signal(signal.SIGTERM)
            assert heard == ["elsewhere"]
        signal.raise_signal(signal.SIGTERM)
        assert heard == ["elsewhere"] * 2, "after the loop it does what it did before"
    finally:
        signal.signal(signal.SIGTERM, before)
