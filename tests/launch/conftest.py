"""Stand-ins for the programs of a cloud: they record how they are called, and answer as told."""

import os
import pathlib
import shlex
import subprocess
from collections.abc import Sequence

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"

# Records its arguments, one call a line, then runs the test's answer: a piece of shell which sees
# them as "$*".
_STAND_IN = """\
#!/usr/bin/env bash
printf -v words '%q ' "${{0##*/}}" "$@"
echo "$words" >>{log}
{answer}
"""


class Machine:
    """A PATH on which the programs of a cloud are stand-ins."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path}
        self.log = folder / "calls"
        self.log.touch()
        (folder / "bin").mkdir()

    def stand_in(self, name: str, answer: str = "") -> None:
        file = self.folder / "bin" / name
        file.write_text(_STAND_IN.format(log=shlex.quote(str(self.log)), answer=answer))
        file.chmod(0o755)

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(LAUNCH / script), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *arguments)
        try:
            out, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def shell(self, command: str) -> str:
        """Runs what a worker's shell is sent; returns what it prints."""
        shell = ["bash", "-c", command]
        return subprocess.run(
            shell,
            cwd=self.folder,
            env=self.environment,
            check=False,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def would_call(self, printed: str) -> list[list[str]]:
        """Runs what a dry run has printed, as a script against the stand-ins; how it calls them."""
        self.log.write_text("")
        self.shell(printed)
        return self.calls()

    def calls(self) -> list[list[str]]:
        """How the stand-ins were called, in order; an argument with line breaks is one."""
        return words(self.log.read_text())


def words(lines: str) -> list[list[str]]:
    """The words that bash reads in each line, $'...' included."""
    made = subprocess.run(
        ["bash", "-c", "".join(f"printf '%s\\0' {line}; echo\n" for line in lines.splitlines())],
        check=True,
        capture_output=True,
        text=True,
    )
    return [line.split("\0") for line in made.stdout.split("\0\n")[:-1]]


def starts(calls: Sequence[Sequence[str]], count: int) -> list[str]:
    """The first words of each call."""
    return [" ".join(call[:count]) for call in calls]


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)
