"""How a command starts: flags, quiet logging, and a user's mistakes as one line.

A command is a module whose docstring teaches (what it does, examples), with

    def define_flags() -> None:
        flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
        entry.define_config_flag(Experiment)  # for commands that take --config

    def main() -> None:
        experiment.read(flags.FLAGS.config.to_dict())  # defaults, file and command line, merged

    if __name__ == "__main__":
        entry.launch(define_flags, main, __doc__)

so that `jaxcoder train …` (see `cli.py`) and `python -m jaxcoder.train …` are the same. A command
that parses its arguments itself has `main(argv)` instead, and ends with `entry.run(main)`; it uses
`entry.Parser`, so that its mistakes look the same.
"""

import argparse
import difflib
import errno
import itertools
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags
from absl import logging as absl_logging

from jaxcoder.errors import StorageError, UserError

_HELP = {f"{dash}{word}" for dash in ("-", "--") for word in ("h", "help", "helpfull", "helpshort")}


def define_config_flag(defaults: type | None = None) -> None:
    """Declares `--config FILE[:ARGUMENT]` and `--config.a.b=value`; called in `define_flags`.

    Args:
      defaults: a dataclass type whose defaults fill what the file leaves out, so that each of its
        keys can be set on the command line. Keys that it does not have stay as in the file.
    """
    from jaxcoder import config_flag  # imports ml_collections: only for commands with a config

    config_flag.define(defaults)


def launch(
    define_flags: Callable[[], None],
    main: Callable[[], None],
    usage: str | None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parses a command's flags and runs it, or prints its help.

    Args:
      define_flags: declares the command's flags with `absl.flags`.
      main: runs the command; reads `absl.flags.FLAGS`.
      usage: what `--help` prints above the flags: the module's docstring.
      argv: the arguments without the program's name; those of the process when None.

    Raises:
      SystemExit: as `run`.
    """
    command = name(main)
    values = flags.FLAGS

    def start(arguments: Sequence[str]) -> None:
        others = set(values)  # absl's own: accepted, but not for --help
        declared: set[str] = set()
        try:
            try:
                define_flags()
                own = sorted(
                    set(values) - others, key=lambda flag: values[flag].default is not None
                )
                if _HELP & set(itertools.takewhile(lambda word: word != "--", arguments)):
                    print(help_text(command, usage or "", own))
                    return
                _parse(arguments, own, command)
            finally:
                declared = set(values) - others
            main()  # may import libraries with flags of their own, which stay
        finally:  # so that a second command in the same process, as in tests, starts afresh
            for flag in declared:
                delattr(values, flag)

    run(start, argv, command)


def run(
    main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None, command: str = ""
) -> None:
    """Runs a command, and turns a user's mistake into one line without a stack trace.

    Args:
      main: takes the arguments, without the program's name.
      argv: those arguments; those of the process when None.
      command: its name in messages; that of main's module when empty.

    Raises:
      SystemExit: with status 2 after a user's mistake, 1 after storage that failed, 130 after
        Ctrl-C, 141 when the reader of the output has gone.
    """
    command = command or name(main)
    _quiet()
    try:
        main([_at_home(word) for word in (sys.argv[1:] if argv is None else argv)])
        sys.stdout.flush()
    except UserError as error:
        _exit(f"{command}: error: {_one_line(error)}", 2)
    except StorageError as error:
        message = f"{command}: error: {_one_line(error)}"
        if error.alone:  # JAX would wait for the others, then abort with traces of its own
            print(message, file=sys.stderr, flush=True)
            os._exit(1)
        _exit(message, 1)
    except KeyboardInterrupt:
        _exit(f"{command}: interrupted", 130)
    except BrokenPipeError:  # a reader such as `head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        remedy = _remedy(error)
        if not remedy:
            raise
        _exit(f"{command}: error: {error.filename or 'disk'}: {error.strerror}; {remedy}", 2)


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Leaves examples as they are written, and names defaults."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        named = action.default != argparse.SUPPRESS and _named(action.default)
        return super()._get_help_string(action) if named else action.help


class Parser(argparse.ArgumentParser):
    """An argparse parser that shows help, and reports a mistake, as every other command does."""

    def __init__(self, **options: Any) -> None:
        """As the parser of argparse, with a `description` that is shown as it is written."""
        super().__init__(**{"formatter_class": _Help, **options})

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; see {self.prog} --help")


def name(main: Callable[..., None]) -> str:
    """`jaxcoder train` for the main of `jaxcoder.train`, also when that runs as `__main__`."""
    module = main.__module__
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module == "__main__" and spec is not None:
        module = spec.name
    if module.startswith("launch."):
        return f"python -m {module}"
    if not module.startswith("jaxcoder"):
        return "jaxcoder"
    return module.removesuffix(".__main__").replace(".", " ")


def help_text(command: str, usage: str, own: Sequence[str]) -> str:
    """Returns what `--help` prints: the usage, then the flags named in `own` and their defaults."""
    lines: list[str] = [usage.strip(), "", f"flags of {command}:"]
    for flag in (flags.FLAGS[each] for each in own):
        text = flag.help or ""
        if _named(flag.default):
            text += f" (default: {flag.default})"
        lines.append(f"  --{flag.name}{'' if flag.boolean else '=…'}")
        lines += textwrap.wrap(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _named(default: Any) -> bool:
    """Whether a default says more than that a flag was not given; 0 does."""
    return default not in (None, "", []) and default is not False


def _parse(arguments: Sequence[str], own: Sequence[str], command: str) -> None:
    see = f"see {command} --help"
    if "config" in own:
        from jaxcoder import config_flag

        arguments = config_flag.read(arguments, see)
    try:
        rest = flags.FLAGS([command, *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, own, n=1)
        remedy = f"did you mean --{near[0]}?" if near else see
        raise UserError(f"--{error.flagname}: unknown flag; {remedy}") from None
    except flags.Error as error:
        text = _one_line(error)
        missing = re.search(r"Flag --(\S+) must have a value other than None", text)
        if missing:
            wanted = " ".join((flags.FLAGS[missing[1]].help or "").split())
            raise UserError(f"--{missing[1]} is missing: {wanted.rstrip('.')}; {see}") from None
        raise UserError(re.sub(r"^flag --([^=]+)=", r"--\1 = ", text)) from None
    if rest:
        raise UserError(f"{rest[0]!r}: unexpected argument; options are --name=value, {see}")


def _at_home(word: str) -> str:
    """Expands `--name=~/x`: a shell does so at the start of a word alone, as in `--name ~/x`."""
    option, equals, value = word.partition("=")
    if option.startswith("--") and value.startswith("~/"):
        value = os.path.expanduser(value)
    return option + equals + value


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space or choose another folder, then run the same command again"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return "choose a place that you may read and write"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "expected a folder; choose another path"
    return ""


def _exit(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)


class _OwnOrError(logging.Filter):
    """Lets pass what jaxcoder says, and of the libraries only errors."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or os.path.dirname(__file__) in record.pathname


def _quiet() -> None:
    """Sets up logging: absl (orbax, TFDS and grain use it too) on stderr, as plain lines."""
    flags.FLAGS.mark_as_parsed()  # else absl warns of logging too early, and grain's workers fail
    absl_logging.use_absl_handler()
    absl_logging.set_verbosity(absl_logging.INFO)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    if not any(isinstance(known, _OwnOrError) for known in handler.filters):
        handler.addFilter(_OwnOrError())
