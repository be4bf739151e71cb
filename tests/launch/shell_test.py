"""The launchers as shell: they pass shellcheck, explain themselves, refuse what is not meant."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted([*(ROOT / "launch").glob("*.sh"), *(ROOT / "launch").glob("*.sbatch")])
COMMANDS = [path.name for path in SCRIPTS if path.name not in ("launchers.sh", "slurm.sbatch")]
NAMED = [name for name in COMMANDS if name not in ("local.sh", "supervise.sh")]


def test_passes_shellcheck():
    shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
    result = subprocess.run(
        [shellcheck, "--external-sources", *SCRIPTS], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", COMMANDS)
def test_help_names_every_option(machine, script):
    result = machine.run(script, "--help")
    assert result.returncode == 0
    options = re.findall(r"^ +(--[a-z-]+=?)\*?\)", (ROOT / "launch" / script).read_text(), re.M)
    assert "--dry-run" in options
    assert [option for option in options if option not in result.stdout] == []


@pytest.mark.parametrize("script", COMMANDS)
def test_without_arguments_does_nothing_but_explain(machine, script):
    machine.stand_in("gcloud")
    machine.stand_in("kubectl")
    result = machine.run(script)
    assert (result.returncode, machine.calls()) == (2, [])
    assert script in result.stderr


@pytest.mark.parametrize("script", NAMED)
@pytest.mark.parametrize("name", ["", "Run", "x;rm", "a" * 41])
def test_refuses_a_name_that_a_cloud_would_not_take(machine, script, name):
    arguments = [name] if script == "dataflow.sh" else ["stop", name]
    result = machine.run(script, *arguments)
    assert result.returncode == 2
    assert "NAME" in result.stderr


def test_refuses_an_option_that_is_misspelled(machine):
    machine.stand_in("gcloud")
    result = machine.run("tpu.sh", "delete", "icd", "--zone=z", "--dryrun")
    assert (result.returncode, machine.calls()) == (2, [])
    assert "--dryrun: unknown option" in result.stderr
