"""Data runs one way through the tree, and so do imports; each library stays where it belongs."""

import ast
import importlib.metadata
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxcoder"

# The way of the data: a module imports from its own package, or from names before its own.
ORDER = (
    *(
        "__init__",
        "errors",
        "settings",
        "retries",
        "whole_file",
        "lock",
        "config_flag",
        "entry",
        "hub",
    ),
    *("hub", "records", "tokens", "sharding", "distributed", "buckets", "batch_plan", "batches"),
    *("packing", "masking"),
    *("models", "packed_batches", "weight_names", "weights", "architectures", "pretrained"),
    *("losses", "objectives", "optim", "steps", "fusion_weights", "fusion"),
    *("progress", "checkpoint", "experiment", "tuned", "workdir", "trained", "start"),
    *(
        "metrics",
        "outcomes",
        "parquet_rows",
        "predictions",
        "baseline",
        "scorer",
        "split_pass",
        "tuning",
        "evaluation_files",
        "evaluate",
    ),
    *("contact_lines", "predict", "train_log", "profile", "train", "pretrain", "learning_curve"),
    *("report", "export", "bench", "memory", "cli"),
)

# What may stand on a bare accelerator image, and what such an image has.
BARE_PARTS = ("sharding", "models", "losses", "objectives", "optim", "steps", "metrics")
BARE = {"jax", "flax", "optax", "numpy", "scipy"}  # jax brings scipy

_TORCH = (
    "encoder",
    "label_attention",
    "modeling",
    "pytorch",
    "onnx",
)  # the others export without it
# Libraries of extras: the modules that may import one, and the extra that has it.
OPTIONAL = {
    "adbc_driver_postgresql": (("records.sources.database",), "postgres"),
    "apache_beam": (("records.runner",), "beam"),
    "jinja2": (("report.page",), "report"),
    "matplotlib": (("report.canvas", "report.figures"), "report"),
    "onnxruntime": (("export.onnx", "bench.export"), "onnx"),
    "torch": (
        ("bench.parity", "bench.export", "bench.torch_step", *map("export.{}".format, _TORCH)),
        "torch",
    ),
}


# Names of the package's modules, such as `records.builder`.
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")
)


def imports(name: str) -> set[str]:
    """Full names of what a module imports anywhere, in functions too."""
    path = PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def third_party(name: str) -> set[str]:
    tops = {each.partition(".")[0] for each in imports(name)}
    return tops - sys.stdlib_module_names - {"jaxcoder"}


def own(name: str) -> set[str]:
    """Modules of the package that a module imports; of `from jaxcoder.x import Y`, `x`."""
    result = set()
    for each in imports(name):
        words = each.split(".")[1:] if each.split(".")[0] == "jaxcoder" else []
        while words and not exists(words):
            words.pop()
        if words:
            result.add(".".join(words))
    return result


def exists(words: list[str]) -> bool:
    path = PACKAGE.joinpath(*words)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def is_entry_point(name: str) -> bool:
    part = name.partition(".")[0]
    commands = ("evaluate", "predict", "train", "pretrain", "learning_curve", "bench", "cli")
    return part in ("config_flag", "entry", "distributed", *commands) or name.endswith("__main__")


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_down_the_way_of_the_data(name):
    part = name.partition(".")[0]
    assert part in ORDER, f"{name}: give it a place in ORDER, where its imports and users allow"
    for other in own(name):
        target = other.partition(".")[0]
        assert target == part or ORDER.index(target) < ORDER.index(part), (
            f"jaxcoder.{name} imports jaxcoder.{other}, which comes after it in the way of the data"
        )


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(BARE_PARTS)])
def test_runs_on_a_bare_accelerator_image(name):
    assert third_party(name) <= BARE


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name.startswith(("records.", "tokens."))]
)
def test_data_is_made_without_jax(name):
    assert not third_party(name) & {"jax", "jaxlib", "flax", "optax", "orbax"}


@pytest.mark.parametrize("name", MODULES)
def test_libraries_stay_where_they_belong(name):
    found = third_party(name)
    assert "orbax" not in found or name == "checkpoint", "Orbax is used in checkpoint.py alone"
    assert "ml_collections" not in found or is_entry_point(name), "libraries take dataclasses"
    assert "absl" not in found or is_entry_point(name), "flags are read at the entry points"
    assert "entry" not in own(name) or is_entry_point(name), "only commands are launched"
    assert "tensorflow" not in found, "it is never needed"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("jaxcoder.cli", ("jax", "absl", "numpy")),  # jaxcoder --help answers at once
        ("jaxcoder.entry", ("jax", "numpy", "ml_collections")),
        ("jaxcoder.records.__main__", ("jax", "tensorflow")),
        ("jaxcoder.records.sources.database", ("adbc_driver_postgresql",)),
        # A report is made from the tables of an evaluation, anywhere.
        ("jaxcoder.outcomes", ("jax", "flax", "tensorflow")),
        ("jaxcoder.metrics.groups", ("jax", "flax")),
        ("jaxcoder.tokens.__main__", ("jax", "tensorflow")),
        ("jaxcoder.report.__main__", ("jax", "matplotlib", "jinja2")),
        ("jaxcoder.report.sections", ("jax",)),
        ("jaxcoder.train", ("tensorflow", "torch", "transformers")),
    ],
)
def test_what_an_import_brings(module, absent):
    code = f"import sys, {module}; print(*{set(absent)} & sys.modules.keys())"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert result.stdout.split() == []


def test_what_is_imported_is_declared():
    """Nothing is there only because another library happened to bring it."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def declared(requirements):
        return {re.split(r"[^\w.-]", each)[0].lower() for each in requirements}

    core = declared(project["dependencies"])
    owners = importlib.metadata.packages_distributions()
    for name in MODULES:
        for library in third_party(name):
            modules, extra = OPTIONAL.get(library, ((), ""))
            if name in modules:
                assert library.replace("_", "-") in declared(extras[extra])
                continue
            distributions = {each.lower().replace("_", "-") for each in owners.get(library, ())}
            assert distributions & core, f"{name} imports {library}: add it to pyproject.toml"
