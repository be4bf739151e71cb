"""What is installed with jaxcoder: pinned as tested, and without TensorFlow."""

import importlib.metadata
import pathlib
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FRAMEWORKS = {"tensorflow", "tensorflow-cpu", "tf-nightly", "tf-keras", "keras", "torch"}


def requirements(lines: list[str]) -> list[Requirement]:
    """The requirements that hold on this machine."""
    parsed = [Requirement(line) for line in lines]
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(each.name): next(iter(each.specifier)).version for each in parsed}


def test_brings_no_other_framework():
    """Follows the installed metadata from jaxcoder's dependencies to the leaves."""
    waiting = requirements(PROJECT["dependencies"])
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in importlib.metadata.requires(name) or ():
                below = Requirement(line)
                if below.marker is None or below.marker.evaluate({"extra": extra}):
                    waiting.append(below)
    names = {name for name, _ in seen}
    assert {"jaxlib", "tensorstore"} <= names, "the walk does not reach the leaves"
    assert not names & FRAMEWORKS


@pytest.mark.parametrize("extra", ["", "report", "gcs", "test", "torch", "dev"])
def test_each_dependency_is_pinned_within_its_range(extra):
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for requirement in requirements(lines):
        pin = pins().get(canonicalize_name(requirement.name))
        assert pin, f"{requirement.name}: not in constraints.txt"
        assert requirement.specifier.contains(pin), f"{requirement}: constraints.txt has {pin}"


def test_each_dependency_has_an_exact_minimum():
    for requirement in requirements(PROJECT["dependencies"]):
        assert any(each.operator == ">=" for each in requirement.specifier), str(requirement)
