"""A config's mapping becomes the dataclass it describes, or a line that says what is wrong."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from jaxcoder.errors import UserError
from jaxcoder.settings import build


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 4
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width = {self.width}: expected at least 1")


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str = "a"
    on: bool = False
    limit: int | None = None
    sizes: tuple[int, ...] = ()
    inner: Inner = Inner()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def test_what_is_left_out_keeps_its_default():
    assert build(Outer, {}, "config") == Outer()
    assert build(Outer, {"inner": {"rate": 2.5}}, "config").inner == Inner(width=4, rate=2.5)


def test_every_kind_of_value():
    values = {
        "name": "b",
        "on": True,
        "limit": 3,
        "sizes": [8, 16],
        "inner": {"width": 2, "rate": 1},
        "options": {"anything": [1, "x"]},
    }
    built = build(Outer, values, "config")
    assert built == Outer("b", True, 3, (8, 16), Inner(2, 1.0), {"anything": [1, "x"]})
    assert isinstance(built.sizes, tuple)
    assert isinstance(built.inner.rate, float), "an int where a float is meant becomes one"
    assert build(Outer, {"limit": None}, "config").limit is None


def test_what_is_written_is_read_again():
    """config.json holds `dataclasses.asdict` of an experiment."""
    outer = Outer("b", True, 3, (8,), Inner(2, 1.5), {"k": 1})
    assert build(Outer, dataclasses.asdict(outer), "config") == outer


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": "x"}, "config.nam: unknown key; did you mean 'name'?"),
        ({"zzz": 1}, "config.zzz: unknown key; known keys: inner, limit, name, on, options, sizes"),
        ({"inner": {"widht": 1}}, "config.inner.widht: unknown key; did you mean 'width'?"),
        ({"name": 3}, "config.name = 3: expected str"),
        ({"on": 1}, "config.on = 1: expected bool"),
        ({"limit": True}, "config.limit = True: expected int"),
        ({"limit": 2.5}, "config.limit = 2.5: expected int"),
        ({"inner": {"rate": "x"}}, "config.inner.rate = 'x': expected float"),
        ({"inner": 3}, "config.inner = 3: expected a group of keys"),
        ({"sizes": 8}, "config.sizes = 8: expected a list"),
        ({"sizes": "88"}, "config.sizes = '88': expected a list"),
        ({"sizes": [8, "x"]}, "config.sizes[1] = 'x': expected int"),
        ({"inner": {"width": 0}}, "config.inner: width = 0: expected at least 1"),
        ({"options": 3}, "config.options = 3: expected a group of keys"),
    ],
)
def test_a_mistake_is_one_line(values, message):
    with pytest.raises(UserError) as error:
        build(Outer, values, "config")
    assert str(error.value) == message
