"""What a compile check found, and the time of a step that it predicts; as lines and as JSON."""

import dataclasses
from typing import Any

from launch.chips import Topology
from launch.hlo import BETWEEN_SLICES, Collective, Program

KERNEL_SHARE = 0.5
"""Of the peak that attention kernels are taken to reach; the compiler estimates no cycles of them.
An assumption: no TPU was at hand to measure it."""
_MB, _GIB = 1e6, 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of a chip: the state and the batch, what is made beside it, and the program."""

    arguments: int
    temporaries: int
    code: int

    @property
    def peak(self) -> int:
        """All together; outputs lie where the arguments were, which are given away."""
        return self.arguments + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Report:
    """What was compiled, for what, and what came out.

    Attributes:
      what: the config and its sizes, as one line.
      topology: the chips.
      mesh: sizes of data, fsdp and tensor.
      rows: of a batch.
      attention: what computes it, and why.
      error: why it does not compile, such as memory; empty where it does, and what is below counts.
      seconds: of the compilation.
      memory: of a chip.
      products: operations of a chip in a step, those of kernels left out.
      kernels: operations of a chip in kernels.
      program: what the compiled program says of itself.
    """

    what: str
    topology: Topology
    mesh: dict[str, int]
    rows: int
    attention: str
    seconds: float
    error: str = ""
    memory: Memory = Memory(0, 0, 0)
    products: float = 0.0
    kernels: float = 0.0
    program: Program = Program((), 0, (), 0)

    @property
    def hbm_share(self) -> float:
        """Peak as a share of usable memory."""
        return self.memory.peak / self.topology.chip.hbm

    def exchange_seconds(self, each: Collective) -> float:
        """Time of a collective a step, by the bandwidth of its network alone."""
        if each.kind == BETWEEN_SLICES:
            return each.wire / self.topology.chip.dcn_bandwidth
        return each.wire / self.topology.bandwidth(each.group)

    @property
    def collectives(self) -> float:
        """Seconds of all collectives a step, one after another."""
        return sum(map(self.exchange_seconds, self.program.collectives))

    @property
    def floor(self) -> float:
        """Seconds that no step can be faster than: the slowest of products, memory and network."""
        chip = self.topology.chip
        return max(
            (self.products + self.kernels) / chip.flops,
            2 * self.memory.arguments / chip.hbm_bandwidth,  # the state is read, and written
            self.collectives,
        )

    @property
    def estimate(self) -> float:
        """Seconds that a step takes if nothing overlaps: cycles, kernels and collectives."""
        chip = self.topology.chip
        kernels = self.kernels / (KERNEL_SHARE * chip.flops)
        return self.program.cycles / chip.clock + kernels + self.collectives

    @property
    def collective_share(self) -> float:
        """Collectives as a share of the estimate."""
        return self.collectives / self.estimate if self.estimate else 0.0

    def grouped(self) -> list[dict[str, Any]]:
        """Collectives by kind, dtype and group, the slowest first."""
        sums: dict[tuple[str, str, int], list[float]] = {}
        for each in self.program.collectives:
            entry = sums.setdefault((each.kind, each.dtype, each.group), [0.0, 0.0, 0.0])
            entry[0] += each.times
            entry[1] += each.times * each.payload / _MB
            entry[2] += 1e3 * self.exchange_seconds(each)
        return [
            {
                **{"kind": kind, "dtype": dtype, "group": group, "times": int(times)},
                **{"mb": round(mb, 3), "ms": round(ms, 3)},
            }
            for (kind, dtype, group), (times, mb, ms) in sorted(
                sums.items(), key=lambda item: -item[1][2]
            )
        ]

    def faults(self, max_hbm_share: float, max_collective_share: float) -> list[str]:
        """What is wrong, or over a budget; 0 is no budget."""
        if self.error:
            return [self.error]
        found = []
        if self.program.unknown_loops:
            found.append(f"{self.program.unknown_loops} loops of unknown length: numbers too low")
        if max_hbm_share and self.hbm_share > max_hbm_share:
            found.append(f"peak is {self.hbm_share:.1%} of memory, budget {max_hbm_share:.1%}")
        if max_collective_share and self.collective_share > max_collective_share:
            found.append(
                f"collectives are {self.collective_share:.1%} of the step, budget "
                f"{max_collective_share:.1%}"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """All numbers, for a comparison with another day's."""
        result: dict[str, Any] = {
            **{"what": self.what, "topology": str(self.topology), "chips": self.topology.chips},
            **{"mesh": self.mesh, "rows": self.rows, "attention": self.attention},
            **{"ok": not self.error, "error": self.error},
            "compile_seconds": round(self.seconds, 1),
        }
        if self.error:
            return result
        return result | {
            "memory": dataclasses.asdict(self.memory) | {"peak": self.memory.peak},
            "hbm_share": round(self.hbm_share, 4),
            "flops": {"products": self.products, "kernels": self.kernels},
            "collectives": self.grouped(),
            "unknown_loops": self.program.unknown_loops,
            "cycles": self.program.cycles,
            **{"floor_ms": round(1e3 * self.floor, 3), "step_ms": round(1e3 * self.estimate, 3)},
            "collective_share": round(self.collective_share, 4),
        }

    def lines(self) -> list[str]:
        """All of it for people."""
        chip = self.topology.chip
        mesh = " × ".join(f"{name} {size}" for name, size in self.mesh.items())
        lines = [
            self.what,
            f"{self.topology}: {self.topology.chips} chips, mesh {mesh}; {self.rows} rows, "
            f"{self.rows / self.topology.chips:g} documents a chip; attention: {self.attention}",
        ]
        if self.error:
            return [*lines, f"does not compile ({self.seconds:.0f} s): {self.error}"]
        memory, tera = self.memory, 1e12
        lines += [
            f"OK, compiled in {self.seconds:.0f} s",
            f"memory of a chip: {_gib(memory.arguments)} arguments + {_gib(memory.temporaries)} "
            f"temporaries + {_gib(memory.code)} program = {_gib(memory.peak)} GiB of "
            f"{_gib(chip.hbm)} ({self.hbm_share:.0%})",
            f"operations of a chip and step: {self.products / tera:.2f} T in products, "
            f"{self.kernels / tera:.2f} T in kernels",
            f"collectives of a step ({self.program.unknown_loops} loops of unknown length):",
            *(
                f"  {each['kind']:18} {each['dtype']:5} among {each['group']:<4} "
                f"{each['mb']:10.2f} MB in {each['times']:4} {each['ms']:9.2f} ms"
                for each in self.grouped()
            ),
            f"step: at least {1e3 * self.floor:.1f} ms, estimate {1e3 * self.estimate:.1f} ms = "
            f"{self.program.cycles / 1e6:.1f} M cycles + kernels at {KERNEL_SHARE:.0%} of the peak "
            f"+ collectives ({self.collective_share:.1%}), nothing overlapping",
            f"assumed of a {chip.name}: {chip.flops / tera:g} TFLOP/s, {chip.clock / 1e9:g} GHz "
            f"(inferred), memory {chip.hbm_bandwidth / 1e9:g} GB/s, neighbours "
            f"{self.topology.bandwidth(self.topology.chips) / 1e9:g} GB/s, other slices "
            f"{chip.dcn_bandwidth / 1e9:g} GB/s ({chip.source})",
        ]
        return lines


def _gib(size: float) -> str:
    return f"{size / _GIB:.2f}"


def table(reports: list[Report]) -> list[str]:
    """One Markdown row a report."""
    head = (
        *("slices", "mesh (data, fsdp, tensor)", "documents a chip", "peak GiB (share)"),
        *("step ms: floor", "estimate", "collectives", "documents/s"),
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for each in reports:
        where = (
            str(each.topology),
            ", ".join(map(str, each.mesh.values())),
            f"{each.rows / each.topology.chips:g}",
        )
        found = (
            (each.error[:120], *("",) * 4)
            if each.error
            else (
                f"{_gib(each.memory.peak)} ({each.hbm_share:.0%})",
                f"{1e3 * each.floor:.0f}",
                f"{1e3 * each.estimate:.0f}",
                f"{each.collective_share:.1%}",
                f"{each.rows / each.estimate:.0f}",
            )
        )
        lines.append(f"| {' | '.join((*where, *found))} |")
    return lines
