"""launch/local.sh: one command N times, as one."""

import os
import signal
import time

import pytest


def test_each_process_gets_its_number_and_one_port(machine):
    result = machine.run(
        "local.sh", "--devices=2", "3", "bash", "-c", 'echo "$JAX_NUM_CPU_DEVICES $*"', "-"
    )
    assert result.returncode == 0
    lines = sorted(result.stdout.splitlines())
    ports = {line.split()[2] for line in lines}
    assert len(ports) == 1 and ports.pop().startswith("--coordinator=127.0.0.1:")
    ends = [f"[{i}] 2 --processes=3 --process={i}" for i in range(3)]
    assert [" ".join([*line.split()[:2], *line.split()[3:]]) for line in lines] == ends


def test_a_last_line_without_newline_is_not_lost(machine):
    result = machine.run("local.sh", "1", "bash", "-c", "printf 'a\\nb'", "-")
    assert result.stdout == "[0] a\n[0] b\n"


def test_one_that_fails_ends_the_others(machine):
    begun = time.monotonic()
    body = 'case "$*" in *process=1) exit 7;; esac; sleep 60 & wait'
    result = machine.run("local.sh", "3", "bash", "-c", body, "-")
    assert result.returncode == 7
    assert "process 1 ended with status 7" in result.stderr
    assert time.monotonic() - begun < 10


def test_one_that_does_not_listen_is_killed_with_its_children(machine):
    body = 'case "$*" in *process=0) sleep 0.5; exit 7;; esac; trap "" TERM; sleep 61; sleep 61'
    result = machine.run("local.sh", "--grace=1", "2", "bash", "-c", body, "-")
    assert result.returncode == 7
    assert "killed" in result.stderr


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_passes_signals_on_as_term(machine, sent):
    body = 'trap "echo saved; exit 0" TERM; echo ready; sleep 60 & wait'
    process = machine.start("local.sh", "2", "bash", "-c", body, "-")
    assert {process.stdout.readline(), process.stdout.readline()} == {"[0] ready\n", "[1] ready\n"}
    os.kill(process.pid, sent)
    out, _ = process.communicate(timeout=10)
    assert sorted(out.splitlines()) == ["[0] saved", "[1] saved"]
    assert process.returncode == 0


@pytest.mark.parametrize(("grace", "signals"), [(1, 1), (60, 2)])
def test_one_that_does_not_listen_to_a_stop_is_killed_later_or_when_asked_again(
    machine, grace, signals
):
    body = 'trap "echo heard" TERM; echo ready; while :; do sleep 61 & wait; done'
    process = machine.start("local.sh", f"--grace={grace}", "2", "bash", "-c", body, "-")
    assert {process.stdout.readline(), process.stdout.readline()} == {"[0] ready\n", "[1] ready\n"}
    os.kill(process.pid, signal.SIGINT)
    assert {process.stdout.readline(), process.stdout.readline()} == {"[0] heard\n", "[1] heard\n"}
    if signals == 2:
        os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGKILL
    assert "2 still there: killed" in err


def test_dry_run_prints_the_commands(machine):
    result = machine.run("local.sh", "--dry-run", "--port=12345", "2", "touch", "never")
    lines = result.stdout.splitlines()
    assert [line.split()[-1] for line in lines] == ["--process=0", "--process=1"]
    assert "touch never --coordinator=127.0.0.1:12345 --processes=2" in lines[0]
    assert not (machine.folder / "never").exists()
