"""Bundle: modules of jaxcoder as one file that stands alone.

Nothing is written twice: what serialises a contact for training is what stands in an exported
folder. Of each module the file has what its last classes need, in the module's order and with its
comments; imports stand once, at the top.
"""

import ast
import importlib.resources
import pathlib
import sys
import types
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxcoder import __version__

_READER = ("records.schema", "records.contact_json", "tokens.serialise", "export.reader")
_LEXICON = ("tokens.stems", "tokens.evidence_scores", "fusion_weights", "export.fused_reader")
_MODEL = ("export.encoder", "export.label_attention", "export.modeling")

_WIDTH = 100
_HEADER = '''\
"""{title}

Written by `jaxcoder export`, version {version}; Apache License 2.0. Needs Python 3.11 and
{needs}, and neither jaxcoder nor JAX.
{usage}"""
'''
_MODEL_USAGE = """
    from transformers import AutoModel
    model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
    model.predict(["Woman of 62 with chest pain ..."])

or, with this file on the path, `from modeling_jaxcoder import {root}` and
`{root}.from_pretrained(FOLDER)`.
"""


def modeling_source(fused: bool) -> str:
    """Returns the source of `modeling_jaxcoder.py`: reader and network in PyTorch.

    Args:
      fused: whether the coder is fused with a lexicon.
    """
    root = "FusedJaxcoderModel" if fused else "JaxcoderModel"
    header = _HEADER.format(
        title="A medical coding model in PyTorch: from hospital contacts to ICD codes.",
        version=__version__,
        needs="torch, transformers",
        usage=_MODEL_USAGE.format(root=root),
    )
    more = (*_LEXICON, *_MODEL, "export.fused_modeling") if fused else _MODEL
    return header + "\n" + bundle((*_READER, *more), root)


def reader_source(fused: bool) -> str:
    """Returns the source of `reading_jaxcoder.py`: the reader alone; argument as above."""
    header = _HEADER.format(
        title="What stands around a medical coding model: from contacts to tokens, and to codes.",
        version=__version__,
        needs="numpy, tokenizers",
        usage="",
    )
    modules = (*_READER, *(_LEXICON if fused else ()))
    return header + "\n" + bundle(modules, reader_class(fused))


def reader_class(fused: bool) -> str:
    """Returns the name of the class in `reading_jaxcoder.py` that is the reader."""
    return "FusedReader" if fused else "Reader"


def load(path: pathlib.Path) -> Any:
    """Imports an exported file as it stands in its folder, without leaving bytecode beside it."""
    module = types.ModuleType(f"exported_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look their annotations up
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    return module


class _Statement(NamedTuple):
    """A top-level statement with the comments before it and the text that documents it.

    Attributes:
      source: its lines, with the blank ones before it.
      defines: names that it gives.
      uses: names that it mentions anywhere.
    """

    source: str
    defines: frozenset[str]
    uses: frozenset[str]


class _Module(NamedTuple):
    """A module taken apart.

    Attributes:
      name: below jaxcoder, such as `tokens.serialise`.
      title: first paragraph of its docstring.
      statements: all but imports and docstring.
      imports: from a name that is imported to the statement that does it.
      borrowed: names that it has from other modules of jaxcoder, and which.
    """

    name: str
    title: str
    statements: list[_Statement]
    imports: dict[str, str]
    borrowed: dict[str, str]


def bundle(names: Sequence[str], root: str) -> str:
    """Makes one source of several modules.

    Args:
      names: modules below jaxcoder, each after those that it imports.
      root: the class that is wanted; what it does not need is left out.

    Raises:
      ValueError: two modules that define the same name, or a module that imports, under another
        name or as a whole, from jaxcoder, or from a module that is not among them.
    """
    modules = [_take_apart(name) for name in names]
    owners = _owners(modules)
    for module in modules:
        for name, origin in module.borrowed.items():
            if owners.get(name) != origin:
                raise ValueError(f"{module.name}: takes {name} from {origin}, which has it not")
    needed = _needed(modules, root)
    imports = {
        name: text for module in modules for name, text in module.imports.items() if name in needed
    }
    parts = [f"{_import_block(imports.values())}\n"]
    for module in modules:
        kept = [each.source for each in module.statements if each.defines & needed]
        if kept:
            kept[0] = kept[0].lstrip("\n")
            parts += [*["\n"] * (len(parts) > 1), _banner(module.title), "\n", *kept]
    return "\n".join(parts) + "\n"


def _take_apart(name: str) -> _Module:
    path = importlib.resources.files("jaxcoder").joinpath(*name.split("."))
    source = path.with_suffix(".py").read_text(encoding="utf-8")  # type: ignore[attr-defined]
    tree, lines = ast.parse(source), source.splitlines()
    title = " ".join((ast.get_docstring(tree) or name).split("\n\n")[0].split())
    statements: list[_Statement] = []
    imports: dict[str, str] = {}
    borrowed: dict[str, str] = {}
    end = tree.body[0].end_lineno or 0  # of the docstring
    for node in tree.body[1:]:
        first, last = end, node.end_lineno or 0
        end = last
        if isinstance(node, ast.Import | ast.ImportFrom):
            ours, theirs = _imported(node, name)
            borrowed |= ours
            imports |= theirs
            continue
        text = "\n".join(lines[first:last])  # with the blank lines before it
        if isinstance(node, ast.Expr):  # documents the statement before it
            before = statements.pop()
            statements.append(before._replace(source=f"{before.source}\n{text}"))
            continue
        uses = frozenset(each.id for each in ast.walk(node) if isinstance(each, ast.Name))
        statements.append(_Statement(text, frozenset(_defined(node)), uses))
    return _Module(name, title, statements, imports, borrowed)


def _imported(
    node: ast.Import | ast.ImportFrom, module: str
) -> tuple[dict[str, str], dict[str, str]]:
    """From names that an import gives: to the module of ours, or to its text where not ours."""
    ours, theirs = {}, {}
    for alias in node.names:
        known = alias.asname or alias.name.partition(".")[0]
        written = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
        if isinstance(node, ast.Import):
            theirs[known] = f"import {written}"
        elif (node.module or "").partition(".")[0] == "jaxcoder":
            if alias.asname or node.module == "jaxcoder":
                raise ValueError(f"{module}: imports {written}; take names as they are")
            ours[known] = (node.module or "").removeprefix("jaxcoder.")
        else:
            theirs[known] = f"from {node.module} import {written}"
    if any(text.startswith("import jaxcoder") for text in theirs.values()):
        raise ValueError(f"{module}: imports jaxcoder as a whole; take names as they are")
    return ours, theirs


def _defined(node: ast.stmt) -> Iterable[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [
            each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
        ]
    raise ValueError(f"line {node.lineno}: expected a function, a class or an assignment")


def _owners(modules: Iterable[_Module]) -> dict[str, str]:
    """From each name to the one module that defines it; imports must not hide one either."""
    owners: dict[str, str] = {}
    imports: dict[str, str] = {}
    for module in modules:
        for name in (name for each in module.statements for name in each.defines):
            if owners.setdefault(name, module.name) != module.name:
                raise ValueError(f"{name}: both {owners[name]} and {module.name} define it")
        for name, text in module.imports.items():
            if imports.setdefault(name, text) != text:
                raise ValueError(f"{name}: {module.name} imports another one than others do")
    if twice := owners.keys() & imports.keys():
        raise ValueError(f"{', '.join(sorted(twice))}: one module imports what another defines")
    return owners


def _needed(modules: Iterable[_Module], root: str) -> set[str]:
    """All names that a name needs, itself included."""
    statements = [each for module in modules for each in module.statements]
    by_name = {name: each for each in statements for name in each.defines}
    needed, waiting = set(), [root]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(by_name[name].uses if name in by_name else ())
    return needed


def _banner(title: str) -> str:
    rule = "# " + "-" * (_WIDTH - 2)
    return f"{rule}\n# {title}\n{rule}"


def _import_block(texts: Iterable[str]) -> str:
    """Imports in groups of the standard library and others, names of one module together."""
    whole, parts = set(), defaultdict(set)
    for text in texts:
        if text.startswith("import "):
            whole.add(text)
        else:
            module, _, name = text.removeprefix("from ").partition(" import ")
            parts[module].add(name)
    groups: dict[bool, list[str]] = {True: [], False: []}

    def is_standard(module: str) -> bool:
        return module.partition(".")[0] in sys.stdlib_module_names

    for text in sorted(whole):
        groups[is_standard(text.split()[1])].append(text)
    for module, names in sorted(parts.items()):
        # Constants, then classes, then functions, as in the modules.
        ordered = sorted(
            names, key=lambda each: (not each.isupper(), each[0].islower(), each.lower())
        )
        groups[is_standard(module)].append(f"from {module} import {', '.join(ordered)}")
    return "\n\n".join("\n".join(lines) for lines in groups.values() if lines)
