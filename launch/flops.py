"""Floating-point operations of a step: the products of its jaxpr, as often as each is computed."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple


class Flops(NamedTuple):
    """Operations of all chips together, two for a multiplication with its addition.

    What is computed again in the backward pass counts again.

    Attributes:
      products: of matrix products that XLA compiles.
      kernels: of those inside Pallas kernels, blocks that their masks leave out not counted.
    """

    products: int
    kernels: int


def count(jaxpr: Any) -> Flops:
    """Counts a jaxpr, such as `jax.jit(f).trace(…).jaxpr`.

    Raises:
      ValueError: a product in a `while` loop, of which no one knows how often it runs.
    """
    return _count(getattr(jaxpr, "jaxpr", jaxpr))


def _count(jaxpr: Any) -> Flops:
    products = kernels = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            products += 2 * depth * math.prod(equation.outvars[0].aval.shape)
            continue
        inner = [_count(each) for each in _jaxprs(params.values())]
        if name == "while" and any(map(sum, inner)):
            raise ValueError("a product in a while loop: expected loops of known length (scan)")
        if name == "cond":  # the branch that computes most
            inner = [max(inner, key=sum)]
        times = 1
        if name == "scan":
            times = params["length"]
        elif name == "shard_map":  # its jaxpr is of one device
            axes = params.get("newly_manual_axes", params.get("manual_axes"))  # by jax's version
            times = math.prod(params["mesh"].shape[axis] for axis in axes)
        elif name == "pallas_call":  # its jaxpr is of one step of the grid
            times = math.prod(params["grid_mapping"].grid)
            inner = [Flops(0, sum(each)) for each in inner]
        products += times * sum(each.products for each in inner)
        kernels += times * sum(each.kernels for each in inner)
    return Flops(products, kernels)


def _jaxprs(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _jaxprs(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr") and hasattr(value.jaxpr, "eqns"):
            yield value.jaxpr
