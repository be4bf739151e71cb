"""`jaxcoder`: help that teaches, at once, and commands that are the same through either door."""

import importlib
import os
import pathlib
import subprocess
import sys
import time

import pytest

from jaxcoder import __version__, cli

ROOT = pathlib.Path(__file__).parents[1]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs a module as a user would, with warnings as they are."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    return subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, cwd=ROOT, env=environment
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_what_there_is_in_the_order_of_a_first_task(capsys, arguments):
    cli.main(arguments)
    out = capsys.readouterr().out
    places = [out.index(f"\n  {name} ") for name in cli.COMMANDS]
    assert places == sorted(places)
    assert list(cli.COMMANDS) == [
        "records",
        "tokens",
        "pretrain",
        "train",
        "evaluate",
        "learning_curve",
        "predict",
        "report",
        "export",
        "bench",
    ]
    assert "jaxcoder train --config configs/demo.py --workdir runs/demo" in out
    for name in cli.PLANNED:
        assert f"\n  {name} " not in out, "what is not built is not offered"


def test_help_is_quick():
    started = time.monotonic()
    assert run("jaxcoder.cli", "--help").returncode == 0
    assert time.monotonic() - started < 2, "an import has crept in: jax alone takes longer"


def test_version(capsys):
    cli.main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("serve", f"jaxcoder: error: serve: not available in version {__version__}; see"),
        ("trian", "jaxcoder: error: 'trian': unknown command; did you mean 'train'?"),
        ("--workdir", "jaxcoder: error: '--workdir': unknown command; see jaxcoder --help"),
    ],
)
def test_what_is_no_command(capsys, name, message):
    with pytest.raises(SystemExit) as ended:
        cli.main([name])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.startswith(message) and err.count("\n") == 1


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_teaches(capsys, name):
    """Its help says what it does and shows a command to run, and none of absl's own flags."""
    try:
        cli.main([name, "--help"])
    except SystemExit as ended:  # argparse ends so
        assert ended.code in (0, None)
    out = capsys.readouterr().out
    assert f"jaxcoder {name} " in out, "an example to copy"
    assert "--" in out
    assert "verbosity" not in out and "logtostderr" not in out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_says_a_mistake_in_one_line(capsys, name):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--no_such_flag=1"])
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert err.startswith(f"jaxcoder {name}") and ": error: " in err
    assert err.count("\n") == 1 and not out, err


@pytest.mark.parametrize("name", ["records", "train"])
def test_both_doors_lead_to_the_same_command(name):
    through_cli = run("jaxcoder.cli", name, "--no_such_flag=1")
    as_module = run(f"jaxcoder.{name}", "--no_such_flag=1")
    assert through_cli.returncode == as_module.returncode == 2
    assert through_cli.stderr == as_module.stderr
    assert through_cli.stdout == as_module.stdout == ""


def test_every_module_of_a_command_is_there():
    for command in cli.COMMANDS.values():
        assert hasattr(importlib.import_module(command.module), "main")


def test_freed_memory_is_kept_before_a_command_is_imported():
    script = """
import sys
from jaxcoder import cli, memory
memory.keep_freed = lambda: print("jax" in sys.modules)
cli.main(["bench", "--help"])
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.startswith("False\n")
