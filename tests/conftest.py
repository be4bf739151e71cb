"""Eight devices on one CPU, strict shapes, and a cache of compiled programs, for every test."""

import os
import pathlib
from collections.abc import Iterator

# Before jax is imported, here or by a test: afterwards the number of devices is fixed.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A second run of the tests compiles nothing anew, nor does a command that a test starts again; the
# key holds the program and jax's version.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[1]

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def forget_programs() -> Iterator[None]:
    """Programs that nobody runs again: by the last test a process would hold gigabytes of them."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def quickly_compiled() -> Iterator[None]:
    """Programs that compile in half the time, for tests of what is computed, not of how fast."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of public clinical data; the test is skipped where there is none."""
    folder = os.environ.get("JAXCODER_SHARED_DATA")
    if not folder:
        pytest.skip(
            "JAXCODER_SHARED_DATA is not set: needs the public data sets, see CONTRIBUTING.md"
        )
    path = pathlib.Path(folder)
    if not path.is_dir():
        pytest.fail(f"JAXCODER_SHARED_DATA={folder}: no such folder")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test that uses `shared_data`, so that -m 'not shared_data' leaves it out."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.shared_data)
