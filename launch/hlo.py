"""What a compiled program says of itself: its collectives, its loops, its estimated cycles.

XLA's own `cost_analysis` counts the body of a loop once; here everything counts as often as it
runs.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = {
    **{"pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2, "bf16": 2},
    **{"f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8},
}
_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BETWEEN_SLICES = "between slices"
"""Kind of what a chip sends to another slice, over the data centre's network."""

_HEADER = re.compile(r"^(ENTRY )?%([\w.-]+) .*\{$")
_NAME = re.compile(r"^\s+(ROOT )?%([\w.-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*(?:e[0-9]m[0-9](?:fn)?)?)\[([0-9,]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply)=%([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation: `%name = shape kind(operands), attributes`."""

    name: str
    shape: str
    kind: str
    operands: str
    attributes: str
    root: bool


@dataclasses.dataclass(frozen=True)
class Collective:
    """What chips exchange at one place of the program.

    Attributes:
      kind: such as `all-reduce`, or `BETWEEN_SLICES`.
      dtype: of most of its bytes.
      group: chips that take part together.
      payload: bytes, of one chip and one run: what is reduced, gathered or sent, whole.
      times: how often it runs a step.
    """

    kind: str
    dtype: str
    group: int
    payload: int
    times: int

    @property
    def wire(self) -> float:
        """Bytes that a chip sends a step, by ring algorithms (Thakur et al., IJHPCA 2005)."""
        others = (self.group - 1) / max(self.group, 1)
        share = {"all-reduce": 2 * others, "collective-permute": 1.0, BETWEEN_SLICES: 1.0}
        return self.payload * self.times * share.get(self.kind, others)


@dataclasses.dataclass(frozen=True)
class Program:
    """What was read.

    Attributes:
      collectives: in no order; what exchanges less than a kilobyte is there too.
      cycles: the compiler's estimate of a step outside kernels and collectives.
      loops: trip counts of the loops.
      unknown_loops: loops whose trip count was not found, counted once; then all else is too low.
    """

    collectives: tuple[Collective, ...]
    cycles: int
    loops: tuple[int, ...]
    unknown_loops: int


def read(text: str) -> Program:
    """Reads the text of a compiled program (`Compiled.as_text()`).

    Raises:
      ValueError: it has no entry computation, or groups of devices in an unknown form.
    """
    computations, entry = _computations(text)
    total = re.search(r"num_partitions=([0-9]+)", text)
    chips = int(total[1]) if total else 1
    found: dict[tuple[str, ...], Collective] = {}
    cycles, unknown, loops = 0, 0, []

    def visit(name: str, times: int, fused: bool) -> None:
        nonlocal cycles, unknown
        for each in computations[name].values():
            inner, runs = fused or each.kind == "fusion", times
            if not fused and (
                estimate := re.search(r'"estimated_cycles":"(\d+)"', each.attributes)
            ):
                cycles += int(estimate[1]) * times
            if each.kind == "while":
                trips = _trips(each, computations, name)
                unknown += trips is None
                runs = times * (1 if trips is None else trips)
                if trips is not None:
                    loops.append(trips)
            elif (one := _collective(each, chips, times, name)) is not None:
                # An asynchronous one stands in several fusions, from its start to its end, and its
                # first turn of a loop may stand before the loop.
                channel = re.search(r"channel_id=(\d+)", each.attributes)
                operation = re.search(r'op_name="([^"]*)"', each.attributes)
                key = (
                    *(one.kind, channel[1] if channel else f"{name}/{each.name}"),
                    *(str(one.payload), operation[1] if operation else ""),
                )
                if key not in found or found[key].times < times:
                    found[key] = one
                continue
            for called in _called(each):
                visit(called, runs, inner)

    visit(entry, 1, False)
    return Program(tuple(found.values()), cycles, tuple(loops), unknown)


def _computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = computations.setdefault(header[2], {})
            entry = header[2] if header[1] else entry
        elif line == "}":  # nothing after it, else it is within the attributes of a kernel
            current = None
        elif current is not None and (each := _instruction(line)):
            current[each.name] = each
        elif current:  # attributes go on
            name, last = current.popitem()
            current[name] = dataclasses.replace(last, attributes=f"{last.attributes} {line}")
    if not entry:
        raise ValueError("no ENTRY computation: expected the text of a compiled program")
    return computations, entry


def _instruction(line: str) -> Instruction | None:
    start = _NAME.match(line)
    if not start:
        return None
    rest = line[start.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    kind, opened, _ = rest.partition("(")
    if not opened:
        return None
    stop = _closing(rest, len(kind))
    return Instruction(
        start[2], shape, kind, rest[len(kind) + 1 : stop], rest[stop + 1 :], bool(start[1])
    )


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)


def _called(each: Instruction) -> Iterator[str]:
    """The computations that an instruction runs, its condition left out."""
    if each.kind == "while":
        yield from re.findall(r"\bbody=%([\w.-]+)", each.attributes)
    elif each.kind == "conditional":  # of which one runs; all are counted
        for group in re.findall(r"branch_computations=\{([^}]*)\}", each.attributes):
            yield from re.findall(r"%([\w.-]+)", group)
        yield from re.findall(r"(?:true|false)_computation=%([\w.-]+)", each.attributes)
    elif each.kind in ("fusion", "call", "async-start"):
        yield from _CALLED.findall(each.attributes)


def _arrays(shape: str) -> Iterator[tuple[str, int]]:
    """Type and bytes of each array of a shape."""
    for dtype, sizes in _ARRAY.findall(shape):
        if dtype in BYTES:
            count = math.prod(int(size) for size in sizes.split(",") if size)
            yield dtype, BYTES[dtype] * count


def _collective(each: Instruction, chips: int, times: int, inside: str) -> Collective | None:
    kind = each.kind.removesuffix("-start")
    if kind == "send" and "megascale" in each.attributes:
        first = next(_arrays(each.shape))  # beside it a counter and a token
        return Collective(BETWEEN_SLICES, first[0], 2, first[1], times)
    if kind not in _KINDS:
        return None
    arrays = list(_arrays(each.shape))
    if each.kind == "all-gather-start":
        arrays = arrays[len(arrays) // 2 :]  # its shape is (what is given, what is gathered)
    elif each.kind == "collective-permute-start":
        arrays = arrays[:1]
    group = 2 if kind == "collective-permute" else _group(each.attributes, chips)
    by_type: dict[str, int] = {}
    for dtype, size in arrays:
        by_type[dtype] = by_type.get(dtype, 0) + size
    payload = sum(by_type.values())
    if kind == "reduce-scatter":
        payload *= group  # the shape is of the part that a chip keeps
    elif kind == "all-reduce" and inside.startswith("all-reduce-scatter"):
        kind = "reduce-scatter"  # so XLA for TPU writes it: a reduction, then the chip's part of it
    return Collective(kind, max(by_type, key=by_type.__getitem__), group, payload, times)


def _group(attributes: str, chips: int) -> int:
    """How many chips take part together."""
    if listed := re.search(r"replica_groups=\{\{([0-9,]+)\}", attributes):
        return listed[1].count(",") + 1
    if counted := re.search(r"replica_groups=\[[0-9]+,([0-9]+)\]", attributes):
        return int(counted[1])
    if meshed := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", meshed[1]))
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", meshed[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    if re.search(r"replica_groups=\{\}", attributes):
        return chips
    raise ValueError(f"groups of devices in a form that is not known: {attributes[:200]}")


def _trips(
    loop: Instruction, computations: dict[str, dict[str, Instruction]], inside: str
) -> int | None:
    """How often a loop runs; None where it is not `for i in range(start, stop)`."""
    if known := re.search(r'known_trip_count"?:\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    named = re.search(r"\bcondition=%([\w.-]+)", loop.attributes)
    condition = computations.get(named[1], {}) if named else {}
    compared = _comparison(condition, computations)
    if compared is None:
        return None
    index, stop = compared
    start = _tuple_constant(loop.operands, index, computations[inside])
    return None if start is None else max(stop - start, 0)


def _comparison(
    condition: dict[str, Instruction], computations: dict[str, dict[str, Instruction]]
) -> tuple[int, int] | None:
    """Which element of the loop's state has to be less than what, of `i < constant`."""
    root = next((each for each in condition.values() if each.root), None)
    if root is None:
        return None
    names = _operands(root)
    if root.kind == "fusion":  # the comparison alone, of the fusion's parameters
        inner = computations[_CALLED.findall(root.attributes)[0]]
        compare = next((each for each in inner.values() if each.root), None)
        if compare is None or compare.kind != "compare":
            return None
        places = [inner[name].operands for name in _operands(compare) if name in inner]
        if not all(place.isdigit() for place in places):
            return None
        names = [names[int(place)] for place in places]
        root = compare
    if root.kind != "compare" or "direction=LT" not in root.attributes or len(names) != 2:
        return None
    counter, limit = (condition.get(name) for name in names)
    if counter is None or limit is None or counter.kind != "get-tuple-element":
        return None
    index = re.search(r"index=(\d+)", counter.attributes)
    if index is None or limit.kind != "constant" or not limit.operands.isdigit():
        return None
    return int(index[1]), int(limit.operands)


def _operands(each: Instruction) -> list[str]:
    return re.findall(r"%([\w.-]+)", each.operands)


def _tuple_constant(operands: str, index: int, computation: dict[str, Instruction]) -> int | None:
    """The number that stands in a tuple, such as the first value of a loop's counter."""
    each = computation.get(operands.lstrip("%"))
    if each is None or each.kind != "tuple":
        return None
    each = computation.get(_operands(each)[index])
    while each is not None and each.kind in ("copy", "bitcast"):
        each = computation.get(_operands(each)[0])
    if each is None or each.kind != "constant" or not each.operands.isdigit():
        return None
    return int(each.operands)
