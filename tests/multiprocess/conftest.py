"""Real processes that are one run; each has two virtual CPU devices, and gloo between them."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from jaxcoder import trained
from jaxcoder.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = {
    "records.options.patients": 20,  # 54 contacts to train on, 17 to validate with
    "tokens.serialise.max_tokens": 384,
    "tokens.serialise.sections": ("notes",),
    "tokens.tokenizer.vocab_size": 500,
    "batches.tokens": 8 * 384,
    "batches.row_multiple": 4,
    "batches.max_buckets": 1,
    "model.encoder.width": 16,
    "model.encoder.heads": 4,
    "model.encoder.feedforward": 32,
    "model.head.chunk": 7,
    "optim.eps": 1e-4,  # as in tests/multidevice/train_test.py
    "train.total": "8 steps",
    "train.evaluate_every": "4 steps",
    "train.log_every": "1 step",
}
NOTHING = types.MappingProxyType({})
SECONDS = 240
"""A run that hangs is killed; on a free machine none takes 20."""


class Job:
    """The processes of one command."""

    def __init__(self, processes, devices, arguments, before, run):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        self.processes = [
            subprocess.Popen(
                [
                    *(*before.get(number, ()), sys.executable, *run, *map(str, arguments)),
                    *(f"--coordinator=localhost:{port}", f"--processes={processes}"),
                    f"--process={number}",
                ],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]

    def end(self):
        for process in self.processes:
            process.kill()
            process.communicate()

    def wait(self):
        """Returns exit status, standard output and error of each."""
        results = []
        for process in self.processes:
            out, err = process.communicate(timeout=SECONDS)
            results.append((process.returncode, out, err))
        return results


@pytest.fixture(scope="session")
def start():
    """Starts a command as so many processes, each with two devices.

    `before` has by number of the process the words that stand before its command; `run` are the
    arguments of Python.
    """
    with contextlib.ExitStack() as exits:

        def start(*arguments, processes=2, devices=2, before=NOTHING, run=("-m", "jaxcoder.cli")):
            job = Job(processes, devices, arguments, before, run)
            exits.callback(job.end)
            return job

        yield start


@pytest.fixture(scope="session")
def run(start):
    """As `start`, to the end, which is a good one."""

    def run(*arguments, **how):
        results = start(*arguments, **how).wait()
        assert [status for status, _, _ in results] == [0] * len(results), results[0][2][-3000:]
        return results

    return run


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def train(folder):
    """From the name of a workdir and further options to the arguments of a training run."""

    def arguments(name, **more):
        options = {**OPTIONS, "data_dir": folder / "data", **more}
        flags = [f"--config.{key}={value}" for key, value in options.items()]
        return ["train", "--config=configs/demo.py", f"--workdir={folder / name}", *flags]

    return arguments


@pytest.fixture(scope="session")
def one(run, train, folder):
    """The workdir of the run that one process makes on one device; it builds the records."""
    run(*train("one"), processes=1, devices=1)
    return Workdir(folder / "one")


@pytest.fixture(scope="session")
def assert_same():
    """Two workdirs have the same parameters, but for the order of float32 sums."""

    def check(ours, expected):
        ours, expected = (
            jax.device_get(trained.restore(workdir, "last").params) for workdir in (ours, expected)
        )
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-6), ours, expected)

    return check
