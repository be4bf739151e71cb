"""TPU chips: what Google Cloud's pages state of them, and their topologies without the machines."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from jaxcoder.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """A generation of TPUs, and its network.

    Attributes:
      name: as in a topology.
      flops: bfloat16 operations a second.
      clock: cycles a second, inferred: the peak over what its matrix units do in a cycle.
      hbm: usable bytes of memory, as the compiler says when a program does not fit.
      hbm_bandwidth: bytes a second.
      ici_bandwidth: bytes a second that a chip sends to its neighbours, over all links: half of the
        bidirectional figure.
      dcn_bandwidth: bytes a second that a chip sends to other slices.
      ring: an axis of a slice closes to a ring where it is a multiple of so many chips.
      source: page of the Cloud TPU documentation.
    """

    name: str
    flops: float
    clock: float
    hbm: float
    hbm_bandwidth: float
    ici_bandwidth: float
    dcn_bandwidth: float
    ring: int
    source: str


_GIB = 2**30
_PAGE = "docs.cloud.google.com/tpu/docs/"
CHIPS = {
    chip.name: chip
    for chip in (
        # Its page has no figure for the network between slices: that of v5p.
        Chip("v4", 275e12, 1.05e9, 30.75 * _GIB, 1228e9, 300e9, 6.25e9, 4, _PAGE + "v4"),
        # 6.4 Tbit/s between pods of 256 chips.
        Chip("v5e", 197e12, 1.5e9, 15.75 * _GIB, 819e9, 200e9, 3.125e9, 16, _PAGE + "v5e"),
        Chip("v5p", 459e12, 1.75e9, 95.74 * _GIB, 2765e9, 600e9, 6.25e9, 4, _PAGE + "v5p"),
        # 25.6 Tbit/s between pods of 256 chips.
        Chip("v6e", 918e12, 1.75e9, 31.25 * _GIB, 1640e9, 400e9, 12.5e9, 16, _PAGE + "v6e"),
    )
}

# libtpu asks a machine's metadata what it runs on; here it is told, and that it is not to log.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of one shape.

    Attributes:
      chip: what they are made of.
      sizes: of a slice, such as (16, 16).
      slices: how many.
    """

    chip: Chip
    sizes: tuple[int, ...]
    slices: int = 1

    def __str__(self) -> str:
        """As on the command line."""
        shape = f"{self.chip.name}:{'x'.join(map(str, self.sizes))}"
        return shape if self.slices == 1 else f"{self.slices} × {shape}"

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return self.slices * math.prod(self.sizes)

    def bandwidth(self, group: int) -> float:
        """Bytes a second that a chip sends in an exchange within groups of so many of a slice.

        A group of the whole slice uses all links; a smaller one is taken to lie along one axis. An
        axis that is no ring has half the bandwidth.
        """
        whole = group >= math.prod(self.sizes)
        axes = self.sizes if whole else self.sizes[:1]
        ring = all(size % self.chip.ring == 0 for size in axes)
        share = 1.0 if whole else 1 / (2 if len(self.sizes) == 2 else 3)
        return self.chip.ici_bandwidth * share * (1.0 if ring else 0.5)


def parse(text: str, slices: int = 1) -> Topology:
    """Reads a topology such as `v5e:16x16` or `v5p:4x4x4`.

    Raises:
      UserError: it is none.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", text)
    if not match or match[1] not in CHIPS:
        raise UserError(
            f"--topology {text}: expected a chip out of {', '.join(CHIPS)} and the sizes of a "
            "slice, such as v5e:16x16 or v5p:4x4x4"
        )
    sizes = tuple(int(size) for size in match[2].split("x"))
    dimensions = 2 if match[1] in ("v5e", "v6e") else 3
    if len(sizes) != dimensions or min(sizes) < 1:
        raise UserError(f"--topology {text}: expected {dimensions} sizes for {match[1]}")
    if slices < 1:
        raise UserError(f"--slices {slices}: expected at least 1")
    return Topology(CHIPS[match[1]], sizes, slices)


def prepare() -> None:
    """Sets what libtpu reads when it is loaded, and has jax compute on the CPU.

    Raises:
      UserError: libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "libtpu, the compiler for TPUs, is not installed: pip install 'jaxcoder[tpu]' (it "
            "compiles on any Linux machine, without a TPU)"
        )
    for name, value in _ENVIRONMENT.items():
        os.environ[name] = value
    jax.config.update("jax_platforms", "cpu")


def devices(topology: Topology) -> Sequence[jax.Device]:
    """Returns devices to compile for, after `prepare`: they hold no memory and run nothing.

    Raises:
      UserError: there is no slice of that shape.
    """
    name = f"{topology.chip.name}:{'x'.join(map(str, topology.sizes))}"
    # A v4 chip has two cores, which otherwise were two devices.
    options: dict[str, Any] = {}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:  # jax has no narrower one for what libtpu says
        text = " ".join(str(error).split())
        raise UserError(f"--topology {name}: libtpu has no such slice: {text}") from None
