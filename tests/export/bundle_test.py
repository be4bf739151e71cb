"""One file of several modules: complete, and nothing in it that is not needed."""

import ast

import pytest

from jaxcoder.export import bundle


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("source_of", [bundle.modeling_source, bundle.reader_source])
def test_every_name_is_defined_once_and_used(source_of, fused):
    source = source_of(fused)
    tree = ast.parse(source)
    assert "jaxcoder." not in "".join(
        line for line in source.splitlines() if line.startswith(("import", "from"))
    )
    defined, used = [], {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.append(node.name)
        elif isinstance(node, ast.Assign):
            targets = [each for target in node.targets for each in ast.walk(target)]
            defined += [each.id for each in targets if isinstance(each, ast.Name)]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            defined += [(each.asname or each.name).split(".")[0] for each in node.names]
    assert len(defined) == len(set(defined))
    roots = {"JaxcoderModel", "FusedJaxcoderModel", "Reader", "FusedReader"}
    assert set(defined) - used <= roots, "what nothing needs is left out"
    assert ("EvidenceScores" in defined) == fused
    assert "# Age" not in source and "ngrams" not in defined
    assert max(map(len, source.splitlines())) <= 100


def test_comments_and_documentation_stay():
    source = bundle.reader_source(False)
    assert "# Medications and laboratory results have one marker;" in source
    assert (
        '"""Sections of the text; a section\'s index here is its number in segments."""' in source
    )
    assert source.index("class Contact:") < source.index("def contact_of") < source.index("Reader")


def make(tmp_path, monkeypatch, **modules):
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(f'"""Module {name}."""\n\n{text}')
    monkeypatch.setattr(bundle.importlib.resources, "files", lambda _: tmp_path)
    return bundle.bundle(tuple(modules), "Root")


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"a": "X = 1\n", "b": "X = 2\n\n\nclass Root:\n    x = X\n"}, "X: both a and b define it"),
        ({"a": "import re\n", "b": "re = 1\n\n\nclass Root: ...\n"}, "re: one module imports"),
        ({"a": "import numpy as n\n", "b": "import re as n\nRoot = n\n"}, "n: b imports another"),
        ({"a": "from jaxcoder.z import Q\nRoot = Q\n"}, "takes Q from z, which has it not"),
        ({"a": "from jaxcoder.z import Q as P\nRoot = P\n"}, "imports Q as P; take names as"),
        ({"a": "import jaxcoder.z\nRoot = 1\n"}, "imports jaxcoder as a whole"),
    ],
)
def test_what_would_read_differently_in_one_file_is_refused(
    tmp_path, monkeypatch, modules, message
):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, monkeypatch, **modules)


def test_imports_are_merged_and_only_those_that_are_needed(tmp_path, monkeypatch):
    a = "import re\nfrom typing import Any, Self\n\nA: Any = re.X\nB = Self\n"
    b = "import os\nfrom typing import NamedTuple\n\nfrom jaxcoder.a import A\n\n\n"
    b += "class Root(NamedTuple):\n    a: int = A\n"
    source = make(tmp_path, monkeypatch, a=a, b=b)
    assert source.startswith("import re\nfrom typing import Any, NamedTuple\n\n# ---")
    assert "B = Self" not in source and "import os" not in source
    namespace = {}
    exec(source, namespace)
    assert namespace["Root"]().a == namespace["A"]
