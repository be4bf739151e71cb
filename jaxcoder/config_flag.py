"""The flag `--config FILE[:ARGUMENT]`, with `--config.a.b=value` for each key of the config."""

import dataclasses
import difflib
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from jaxcoder.errors import UserError

_HELP = (
    "Experiment: configs/NAME.py, or configs/NAME.py:ARGUMENT. Each of its keys can be set too,"
    " as in --config.train.total='5 epochs'."
)


class _ConfigFlag(flags.Flag):
    """Holds the place of `--config` until `read` has found the file."""

    def __init__(self, defaults: type | None) -> None:
        super().__init__(flags.ArgumentParser(), flags.ArgumentSerializer(), "config", None, _HELP)
        self.defaults = defaults


def define(defaults: type | None = None) -> None:
    """Declares the flag.

    Args:
      defaults: a dataclass type whose defaults fill what the file leaves out, so that each of its
        keys can be set on the command line. Keys that it does not have stay as in the file.
    """
    flags.DEFINE_flag(_ConfigFlag(defaults))


def given(instead: str = "") -> frozenset[str]:
    """Dotted keys, such as `model.encoder.width`, that file or command line set: no defaults.

    Args:
      instead: a key. Where the command line sets it, what the file says beside it does not count:
        it was said of what this key replaces.
    """
    flag = flags.FLAGS["config"]
    in_file = flag.in_file  # type: ignore[attr-defined]
    typed = config_flags.get_override_values(flag).keys()
    if instead in typed:
        beside = instead.rpartition(".")[0] + "."
        in_file = frozenset(key for key in in_file if not key.startswith(beside))
    return frozenset(in_file | typed)


def read(arguments: Sequence[str], see: str) -> list[str]:
    """Reads the file that `--config` names, and makes its keys known to absl as flags.

    After `flags.FLAGS` has parsed the returned arguments, `flags.FLAGS.config` is a locked
    ConfigDict: the defaults, over them the file, over them the command line.

    Args:
      arguments: the command's arguments, without the program's name.
      see: where more can be read, for messages.

    Returns:
      The arguments without `--config` itself.

    Raises:
      UserError: no `--config`, a mistake in the file, or a key that the config does not have.
    """
    kept, path = [], ""
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name in ("--config", "-config"):
            path = value if equals else next(words, "")
        else:
            kept.append(word)
    if not path:
        raise UserError(
            f"--config is missing: expected an experiment such as configs/demo.py; {see}"
        )
    defaults = flags.FLAGS["config"].defaults  # type: ignore[attr-defined]
    values = _call(path)
    config = _complete(values, defaults)
    for word in kept:
        override = re.match(r"--?(?:no(?=config\.))?config\.([^=]+)", word)
        if override:
            _check_key(config, override[1], defaults)
    delattr(flags.FLAGS, "config")
    config_flags.DEFINE_config_dict("config", config, sys_argv=["", *kept])
    flags.FLAGS["config"].in_file = frozenset(_leaves(values))  # type: ignore[attr-defined]
    return kept


def load(path: str, defaults: type | None = None) -> config_dict.ConfigDict:
    """Calls `get_config` of a config file.

    Args:
      path: `FILE.py`, or `FILE.py:ARGUMENT` to call `get_config(ARGUMENT)`.
      defaults: as in `define`.

    Raises:
      UserError: there is no such file, it has no `get_config`, or it fails: with its line.
    """
    return _complete(_call(path), defaults)


def _complete(values: Mapping[str, Any], defaults: type | None) -> config_dict.ConfigDict:
    return config_dict.ConfigDict(_settable(_over(defaults(), values) if defaults else values))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _call(path: str) -> Mapping[str, Any]:
    """What `get_config` of a config file returns."""
    file, _, argument = path.partition(":")
    here = f"--config {path}"
    if not os.path.isfile(file):
        raise UserError(f"{here}: no such file; expected an experiment such as configs/demo.py")
    spec = importlib.util.spec_from_file_location("jaxcoder_config", file)
    if spec is None or spec.loader is None:
        raise UserError(f"{here}: not a Python file; expected one such as configs/demo.py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{here}: has no function get_config(argument)")
        config = module.get_config(*([argument] if argument else []))
        if isinstance(config, config_dict.ConfigDict):
            config = config.to_dict()  # raises where a required placeholder has no value
    except UserError:
        raise
    except Exception as error:  # whatever the user's file does wrong
        text = " ".join(str(error).split())
        raise UserError(f"{here}{_line(error, file)}: {type(error).__name__}: {text}") from error
    if not isinstance(config, Mapping):
        kind = type(config).__name__
        raise UserError(f"{here}: get_config returned {kind}; expected a ConfigDict or dict")
    return config


def _over(instance: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Lays a mapping over a dataclass; unknown keys are kept, for `settings.build` to judge."""
    merged = dataclasses.asdict(instance)
    for key, value in values.items():
        default = getattr(instance, key, None)
        if dataclasses.is_dataclass(default) and isinstance(value, Mapping):
            merged[key] = _over(default, value)
        elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            merged[key] = float(value)
        else:
            merged[key] = value
    return merged


def _settable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces lists and None, which config_flags cannot set on the command line."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result[key] = _settable(value)
        elif isinstance(value, list):
            result[key] = tuple(value)
        else:
            result[key] = config_dict.placeholder(object) if value is None else value
    return result


def _check_key(config: config_dict.ConfigDict, key: str, defaults: type | None) -> None:
    """Raises UserError when a dotted key is not in the config; adds it where any key may stand."""
    group: Any = config
    default: Any = defaults() if defaults else None
    done = "config"
    for word in key.split("."):
        if not isinstance(group, config_dict.ConfigDict):
            raise UserError(f"--config.{key}: {done} is a value, not a group of keys")
        if word not in group:
            if not isinstance(default, Mapping):
                near = difflib.get_close_matches(word, list(group), n=1)
                known = (
                    f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(group))}"
                )
                raise UserError(f"--config.{key}: {done} has no key {word!r}; {known}")
            group[word] = config_dict.placeholder(object)
        group, done = group[word], f"{done}.{word}"
        default = getattr(default, word, None)


def _line(error: BaseException, file: str) -> str:
    """Where in `file` an error arose, as ` line 12`; empty when it arose elsewhere."""
    if isinstance(error, SyntaxError):
        return f" line {error.lineno}"
    line, trace = "", error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == file:
            line = f" line {trace.tb_lineno}"
        trace = trace.tb_next
    return line
