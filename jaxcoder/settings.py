"""From the plain mappings of a config file or config.json to the libraries' frozen dataclasses."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from jaxcoder.errors import UserError

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Builds a frozen dataclass, nested ones included, and checks every key and type.

    Args:
      cls: a dataclass whose fields are bool, int, float, str, tuples of these, mappings or
        dataclasses.
      values: field names to values; fields left out keep their defaults. Lists become tuples.
      where: the key that `values` stands under, for messages, such as `config.tokens`.

    Returns:
      The instance.

    Raises:
      UserError: an unknown key, with the nearest known one, or a value of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            meant = (
                f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(fields))}"
            )
            raise UserError(f"{where}.{key}: unknown key; {meant}")
        arguments[key] = _convert(hints[key], value, f"{where}.{key}")
    try:
        return cls(**arguments)
    except ValueError as error:  # from __post_init__: the dataclass checked its own ranges
        raise UserError(f"{where}: {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} = {value!r}: expected a group of keys")
        return build(hint, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise UserError(f"{where} = {value!r}: expected a list")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        hint = next(argument for argument in arguments if argument is not type(None))
        return _convert(hint, value, where)
    if origin is not None and issubclass(origin, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} = {value!r}: expected a group of keys")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where} = {value!r}: expected {hint.__name__}")
    return value


def changes(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """The leaves that differ between two trees of plain values: key, before, now."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            yield from changes(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield key, before, now
