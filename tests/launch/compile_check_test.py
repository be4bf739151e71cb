"""The command: its mistakes, and a small coder compiled for four chips by libtpu."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

from jaxcoder import entry
from launch import chips, compile_check
from launch.report import Memory, Report

ROOT = pathlib.Path(__file__).parents[2]
LIBTPU = pathlib.Path(sys.prefix) / "libtpu"
CONFIG = "configs/population.py:roberta"
SMALL = (
    *("--labels=1024", "--vocab=512", "--tokens=256", "--batch=8"),
    *("--config.model.encoder.width=128", "--config.model.encoder.layers=6"),
    *("--config.model.encoder.heads=2", "--config.model.encoder.feedforward=256"),
    *("--config.model.encoder.window=128",),
)


def run(*arguments):
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{LIBTPU}"
    return subprocess.run(
        [sys.executable, "-m", "launch.compile_check", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config", CONFIG, "--topology=v9:4x4"), "--topology v9:4x4: expected a chip out of v4"),
        (("--config=configs/none.py", "--topology=v5e:4x4"), "configs/none.py: no such file"),
        (("--config", CONFIG), "--topology is missing: Slice to compile for"),
        (("--config", CONFIG, "--topology=v5e:4x4", "--parts=all"), "--parts all: expected some"),
    ],
)
def test_mistakes_are_said_in_a_line(arguments, said):
    result = run(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("python -m launch.compile_check: error: ")


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(chips.UserError, match=r"pip install 'jaxcoder\[tpu\]'"):
        chips.prepare()


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("power", [0.8, 1.0, 1.2])
def test_the_largest_batch_is_found_in_few_steps(power, share):
    """Memory as rows to a power, with 1 GiB of its own; what is over 15.75 GiB does not fit."""
    topology, tried = chips.parse("v5e:4x4"), []

    def check(where, mesh, rows):
        tried.append(rows)
        memory = Memory(2**30, int(2**27 * (rows / 16) ** power), 0)
        error = "Ran out of memory" if memory.peak > topology.chip.hbm else ""
        return Report("", where, {}, rows, "", 0.0, error, memory)

    (found,) = compile_check._largest(check, topology, 16, share * topology.chip.hbm)
    assert not found.error
    fits = 16 * ((share * 15.75 - 1) * 2**3) ** (1 / power)
    assert 0.75 * fits < found.rows <= fits
    assert found.rows % 16 == 0
    assert len(tried) <= 8


def test_what_is_known_not_to_fit_is_not_tried_again():
    """Memory leaps at 101 rows, which no line foresees."""
    topology, tried = chips.parse("v5e:4x4"), []

    def check(where, mesh, rows):
        tried.append(rows)
        memory = Memory(0, int(topology.chip.hbm * (1.5 if rows > 100 else rows / 1000)), 0)
        return Report("", where, {}, rows, "", 0.0, "", memory)

    (found,) = compile_check._largest(check, topology, 1, topology.chip.hbm)
    assert len(tried) == len(set(tried)) and found.rows <= 100


def sweep(monkeypatch, *arguments):
    """Runs a sweep of made-up programs; its status, and what was compiled."""
    compiled = []

    def check(options, topology, mesh, rows):
        compiled.append((topology, mesh, rows))
        shares = {16: 0.5, 32: 0.8, 48: 0.92}
        share = 0.5 if topology.chips > 16 else shares.get(rows, 2.0)
        memory = Memory(int(share * topology.chip.hbm), 0, 0)
        error = "" if share < 1 else "Ran out of memory"
        sizes = {"data": 16, "fsdp": 1, "tensor": 1}
        return Report("", topology, sizes, rows, "", 0.0, error, memory, kernels=1e12)

    monkeypatch.setattr(compile_check, "_check", check)
    monkeypatch.setattr(chips, "prepare", lambda: None)
    monkeypatch.setattr(compile_check.metadata, "version", lambda name: "1")
    command = ["--config", str(ROOT / CONFIG), "--topology=v5e:4x4", "--sweep", *arguments]
    monkeypatch.setattr(sys, "argv", ["compile_check", *command])
    try:
        entry.launch(compile_check.define_flags, compile_check.main, "", command)
    except SystemExit as exit:
        return exit.code, compiled
    return 0, compiled


@pytest.mark.parametrize(
    ("rows", "status", "said"),
    [
        (16, 0, []),
        (
            48,
            1,
            ["broken: v5e:4x4, mesh (16, 1, 1), 48 rows: peak is 92.0% of memory, budget 85.0%"],
        ),
        (64, 1, ["broken: v5e:4x4, mesh (16, 1, 1), 64 rows: Ran out of memory"]),
    ],
)
def test_a_sweep_ends_with_the_status_of_its_worst_program(monkeypatch, capsys, rows, status, said):
    """The largest batch starts from the config's; twice its rows, tried on the way, may not fit."""

    ended, _ = sweep(monkeypatch, f"--batch={rows}", "--parts=batch", "--max_hbm_share=0.85")
    assert (ended, capsys.readouterr().err.splitlines()) == (status, said)


def test_a_sweep_compiles_what_its_parts_share_once(monkeypatch, capsys):
    ended, compiled = sweep(monkeypatch, "--batch=16")
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert (ended, len(compiled)) == (0, len(set(compiled)))
    # Three layouts; the largest batch; 256 and 512 chips.
    assert [rows for _, _, rows in compiled] == [16, 16, 16, 32, 256, 512]
    assert len(shown) == 6


@pytest.mark.slow
@pytest.mark.skipif(
    not (LIBTPU / "libtpu").is_dir() and importlib.util.find_spec("libtpu") is None,
    reason="needs libtpu, which `make test` puts beside the other packages on Linux on x86",
)
def test_a_small_coder_compiles_for_four_chips(tmp_path):
    report = tmp_path / "report.json"
    result = run(
        *("--config", CONFIG, "--topology=v5e:2x2", *SMALL),
        *(f"--json={report}", "--max_hbm_share=0.85", "--max_collective_share=0.0001"),
    )
    assert result.returncode == 1, result.stderr  # the second budget is broken, the first kept
    assert result.stderr.startswith("broken: collectives are ")
    assert "OK, compiled in" in result.stdout and "attention: splash" in result.stdout
    (found,) = json.loads(report.read_text())
    assert found["ok"] and found["unknown_loops"] == 0
    assert found["mesh"] == {"data": 4, "fsdp": 1, "tensor": 1}
    tokens, width, layers = 2 * 256, 128, 6  # of a chip
    # Forwards, recomputed, and backwards: two, three and four products of its blocks.
    assert found["flops"]["kernels"] == layers * tokens * 4 * 128 * width * 11 / 2
    assert found["flops"]["products"] > 3 * layers * tokens * (8 * width**2 + 4 * width * 256)
    assert {each["kind"] for each in found["collectives"]} == {"all-reduce"}
    matrices = layers * (4 * width**2 + 2 * width * 256)  # reduced as they were computed
    reduced = {each["dtype"]: each["mb"] for each in found["collectives"]}
    assert reduced["bf16"] == pytest.approx(2 * (matrices + width**2) / 1e6, rel=0.03)
    assert found["cycles"] > 100_000
    assert found["floor_ms"] < found["step_ms"]
