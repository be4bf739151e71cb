"""A command's flags, its config under what the command line says, its mistakes as one line."""

import dataclasses
import errno
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import pytest
from absl import flags

from jaxcoder import config_flag, entry, settings
from jaxcoder.errors import StorageError, UserError

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Group:
    size: int = 4
    rate: float = 2.0
    name: str = "x"
    lengths: tuple[int, ...] = ()
    limit: int | None = None
    on: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Recipe:
    seed: int = 0
    group: Group = Group()


def define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_integer("top", 15, "Codes a contact.")
    flags.DEFINE_bool("force", False, "Even so.")
    entry.define_config_flag(Recipe)


def launch(*arguments: str) -> tuple[Recipe, dict[str, Any]]:
    """What the command sees: its config, and its other flags."""
    seen: list[Any] = []

    def main() -> None:
        config = settings.build(Recipe, flags.FLAGS.config.to_dict(), "config")
        seen.extend([config, {key: flags.FLAGS[key].value for key in ("workdir", "top", "force")}])

    entry.launch(define_flags, main, "Usage.", arguments)
    return tuple(seen)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(
        textwrap.dedent("""\
            import ml_collections

            def get_config(argument="es"):
                config = ml_collections.ConfigDict()
                config.seed = 3
                config.group = ml_collections.ConfigDict()
                config.group.rate = 3
                config.group.lengths = [1, 2]
                config.group.options = {"language": argument}
                if argument == "broken":
                    config.group.rate = 1 / 0
                if argument == "extra":
                    config.sead = 1
                return config
            """)
    )
    return str(path)


def test_defaults_under_the_file_under_the_command_line(config):
    recipe, others = launch("--config", config, "--workdir=w", "--config.seed=5")
    assert recipe == Recipe(5, Group(rate=3.0, lengths=(1, 2), options={"language": "es"}))
    assert others == {"workdir": "w", "top": 15, "force": False}


def test_what_is_given_is_told_from_defaults_even_if_it_is_the_same(config):
    given: set[str] = set()
    arguments = ["--config", config, "--workdir=w", f"--config.group.size={Group.size}"]
    entry.launch(define_flags, lambda: given.update(config_flag.given()), "Usage.", arguments)
    keys = ("seed", "group.rate", "group.lengths", "group.options.language", "group.size")
    assert given == set(keys)


def test_a_key_of_the_command_line_may_replace_what_the_file_says_beside_it(config):
    given: dict[str, frozenset[str]] = {}

    def main():
        given.update({key: config_flag.given(key) for key in ("group.size", "group.rate")})

    arguments = ["--config", config, "--workdir=w", "--config.group.size=2"]
    entry.launch(define_flags, main, "Usage.", arguments)
    assert given["group.size"] == {"seed", "group.size"}
    assert {"group.rate", "group.size"} < given["group.rate"], "the file sets it, not the user"


def test_the_argument_of_a_config(config):
    assert launch(f"--config={config}:en", "--workdir=w")[0].group.options == {"language": "en"}


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("--config.group.size=9", "size", 9),
        ("--config.group.rate=2.5", "rate", 2.5),
        ("--config.group.rate=2", "rate", 2.0),
        ("--config.group.name=5 epochs", "name", "5 epochs"),
        ("--config.group.name=5", "name", "5"),
        ("--config.group.lengths=(3, 4)", "lengths", (3, 4)),
        ("--config.group.lengths=()", "lengths", ()),
        ("--config.group.limit=7", "limit", 7),
        ("--config.group.on", "on", True),
        ("--noconfig.group.on", "on", False),
        ("--config.group.options.patients=12", "options", {"language": "es", "patients": 12}),
        ("--config.group.options.codes=D", "options", {"language": "es", "codes": "D"}),
    ],
)
def test_each_key_can_be_set_whether_the_file_has_it_or_not(config, override, key, value):
    recipe, _ = launch(f"--config={config}", "--workdir=w", override)
    assert getattr(recipe.group, key) == value
    assert type(getattr(recipe.group, key)) is type(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=w"], "--config is missing: expected an experiment"),
        (["--config={}"], "--workdir is missing: Folder of the run; see jaxcoder --help"),
        (["--config={}", "--workdr=w"], "--workdr: unknown flag; did you mean --workdir?"),
        (["--config={}", "--workdir=w", "--zzz=1"], "--zzz: unknown flag; see jaxcoder --help"),
        (["--config={}", "--workdir=w", "--top=x"], "--top = x: invalid literal"),
        (["--config={}", "--workdir=w", "more"], "'more': unexpected argument"),
        (["--config={}x", "--workdir=w"], "recipe.pyx: no such file"),
        (["--config={}:broken", "--workdir=w"], "line 11: ZeroDivisionError: division by zero"),
        (["--config={}:extra", "--workdir=w"], "config.sead: unknown key; did you mean 'seed'?"),
        (["--config={}", "--config.sead=1"], "config has no key 'sead'; did you mean 'seed'?"),
        (["--config={}", "--config.seed.a=1"], "config.seed is a value, not a group of keys"),
        (["--config={}", "--config.seed=x"], "--config.seed = x: invalid literal"),
        (["--config={}", "--workdir=w", "--config.group.limit=x"], "limit = 'x': expected int"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(config, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        launch(*[each.format(config) for each in arguments])
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert err.startswith("jaxcoder: error: ")
    assert message in err
    assert err.count("\n") == 1 and not out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "has no function get_config"),
        ("def get_config():\n    return 3\n", "get_config returned int; expected a ConfigDict"),
        ("def get_config(:\n", "line 1: SyntaxError"),
        (
            "from ml_collections import config_dict as c\n"
            "def get_config():\n    return c.ConfigDict({'a': c.required_placeholder(str)})\n",
            "RequiredValueError",
        ),
        ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError"),
    ],
)
def test_a_config_file_that_is_none(tmp_path, capsys, text, message):
    path = tmp_path / "c.py"
    path.write_text(text)
    with pytest.raises(SystemExit):
        launch(f"--config={path}", "--workdir=w")
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_a_path_at_home_may_follow_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    seen = []
    entry.run(
        lambda words: seen.extend(words),
        ["--workdir=~/run", "--text=a ~/b = ~/c", "~/x", "--top=~"],
    )
    assert seen == ["--workdir=/somewhere/run", "--text=a ~/b = ~/c", "~/x", "--top=~"]


def test_help_of_a_parser_keeps_examples_and_names_defaults(capsys):
    parser = entry.Parser(
        prog="jaxcoder x", description="Does it.\n\n    jaxcoder x \\\n      --top 3\n"
    )
    parser.add_argument("--top", type=int, default=15, help="codes a contact")
    parser.add_argument("--name", help="of it")
    parser.add_argument("--seed", type=int, default=0, help="of draws")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    shown = capsys.readouterr().out
    assert "    jaxcoder x \\\n      --top 3\n" in shown
    assert "codes a contact (default: 15)\n" in shown and "of it\n" in shown
    assert "of draws (default: 0)\n" in shown


def test_help_teaches_this_command_alone(capsys):
    entry.launch(define_flags, lambda: pytest.fail("ran"), "What it does.", ["--help"])
    out = capsys.readouterr().out
    assert out.startswith("What it does.\n")
    assert "--top=…\n      Codes a contact. (default: 15)" in out
    assert "--config.train.total" in out
    assert "verbosity" not in out, "absl's own flags only distract"
    assert out.index("--workdir") < out.index("--top"), "first what must be given"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("notes.csv: no column 'text'"), 2, "error: notes.csv: no column 'text'"),
        (UserError("two\nlines"), 2, "error: two lines"),
        (StorageError("c/20: was not\nwritten"), 1, "error: c/20: was not written"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 2, "/runs/x: No space left"),
        (FileExistsError(errno.EEXIST, "File exists", "/runs/x"), 2, "exists; expected a folder"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/runs"),
            2,
            "/runs: Permission denied",
        ),
    ],
)
def test_how_a_command_ends(capsys, error, status, message):
    def main(arguments):
        raise error

    with pytest.raises(SystemExit) as ended:
        entry.run(main, [])
    err = capsys.readouterr().err
    assert ended.value.code == status
    assert message in err and err.count("\n") == 1


def test_a_fault_of_ours_keeps_its_trace():
    def main(arguments):
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        entry.run(main, [])


def test_a_parser_of_argparse_reports_alike(capsys):
    parser = entry.Parser(prog="jaxcoder x")
    parser.add_argument("--top", type=int)
    with pytest.raises(SystemExit) as ended:
        entry.run(lambda argv: parser.parse_args(argv), ["--top=a"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "jaxcoder: error: argument --top: invalid int value: 'a'; see jaxcoder x --help\n"
    )


def test_libraries_keep_quiet():
    code = textwrap.dedent("""\
        from absl import logging
        from jaxcoder import entry

        def main(arguments):
            logging.info("a library's chatter")
            logging.warning("a library's worry")
            logging.error("a library's error")

        entry.run(main, [])
        """)
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stderr == "a library's error\n"
