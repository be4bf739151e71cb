"""The command `jaxcoder`: finds the module of a subcommand and starts it."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from jaxcoder import __version__, memory


class Command(NamedTuple):
    """A subcommand: the module that has it, and one line of help."""

    module: str
    help: str


# In the order of a first real task. The modules are imported only when asked for: they bring jax.
COMMANDS = {
    "records": Command("jaxcoder.records.__main__", "read a source, write contact records"),
    "tokens": Command("jaxcoder.tokens.__main__", "contact records to token records"),
    "pretrain": Command("jaxcoder.pretrain", "pretrain an encoder on text; needs no codes"),
    "train": Command("jaxcoder.train", "train a coder; builds the records that are missing"),
    "evaluate": Command("jaxcoder.evaluate", "score a trained coder on a split"),
    "learning_curve": Command(
        "jaxcoder.learning_curve", "train on rising shares of the patients, and compare"
    ),
    "predict": Command("jaxcoder.predict", "code new contacts, from JSONL or from one text"),
    "report": Command("jaxcoder.report.__main__", "a page with scores, figures and tables"),
    "export": Command("jaxcoder.export.__main__", "a coder for PyTorch, ONNX or StableHLO"),
    "bench": Command("jaxcoder.bench.__main__", "measure speed and memory of a part"),
}
PLANNED = ("audit", "review", "serve")

_HELP = """\
jaxcoder {version}: from clinical notes, medications and laboratory results to ICD codes.

usage: jaxcoder COMMAND [--name=value ...]
       jaxcoder COMMAND --help

commands, in the order of a first task:
{commands}

a first task, on synthetic contacts:
  jaxcoder train --config configs/demo.py --workdir runs/demo
  jaxcoder evaluate --workdir runs/demo --split test
  jaxcoder predict --workdir runs/demo --text "Acute pyelonephritis. Background: hypertension."

Each command also runs as python -m jaxcoder.COMMAND. Paths may be gs:// buckets."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs `jaxcoder COMMAND ...`.

    Args:
      argv: the arguments without the program's name; those of the process when None.

    Raises:
      SystemExit: with status 2 after a user's mistake.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        lines = [f"  {each:<15}{command.help}" for each, command in COMMANDS.items()]
        _show(_HELP.format(version=__version__, commands="\n".join(lines)))
        return
    if name == "--version":
        _show(__version__)
        return
    if name not in COMMANDS:
        print(f"jaxcoder: error: {_mistake(name)}", file=sys.stderr)
        sys.exit(2)

    memory.keep_freed()  # before jax and others start threads

    from jaxcoder import entry  # after the help, which must be quick

    module = importlib.import_module(COMMANDS[name].module)
    if hasattr(module, "define_flags"):
        entry.launch(module.define_flags, module.main, module.__doc__, arguments[1:])
    else:
        entry.run(module.main, arguments[1:])


def _show(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # a reader such as `head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _mistake(name: str) -> str:
    if name in PLANNED:
        return f"{name}: not available in version {__version__}; see jaxcoder --help for what is"
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "see jaxcoder --help"
    return f"{name!r}: unknown command; {remedy}"


if __name__ == "__main__":
    main()
