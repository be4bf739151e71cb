"""Where arrays live: the one mesh constructor and the one table from logical to mesh axes."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, FSDP, TENSOR = MESH_AXES = ("data", "fsdp", "tensor")


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Makes the mesh (data, fsdp, tensor) with Auto axes; Linen fails on Explicit ones.

    Of several slices of TPUs the first axis is split between them, so that only gradients, once a
    step, take the slow way from slice to slice.

    Args:
      data: devices over which batches alone are split; −1 takes all that are left.
      fsdp: devices over which batches, parameters and optimiser state are split.
      tensor: devices over which heads, feed-forward units and labels are split.
      devices: the devices to use, in order; all of `jax.devices()` by default.

    Returns:
      The mesh, with axes named `data`, `fsdp` and `tensor`.

    Raises:
      ValueError: sizes that do not multiply to the number of devices, or a `data` axis that the
        slices do not divide.
    """
    devices = list(jax.devices()) if devices is None else list(devices)
    sizes = [data, fsdp, tensor]
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"mesh = {tuple(sizes)}: expected positive sizes, at most one of them -1")
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = len(devices) // rest
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f"mesh = {(data, fsdp, tensor)}: expected sizes (data, fsdp, tensor) whose product is "
            f"the number of devices, {len(devices)}"
        )
    return Mesh(_arranged(devices, sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def _arranged(devices: Sequence[jax.Device], sizes: Sequence[int]) -> np.ndarray:
    """The devices as an array of these sizes, neighbours on the network side by side."""
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:  # GPUs have such numbers too, of hosts: there the axes are the user's
        number = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0
        slices.setdefault(number or 0, []).append(device)
    data, *others = sizes
    if data % len(slices):
        raise ValueError(
            f"mesh = {tuple(sizes)}: expected a data axis that is a multiple of the "
            f"{len(slices)} slices, between which it lies"
        )
    inside = (data // len(slices), *others)
    parts = [
        mesh_utils.create_device_mesh(inside, slices[number], allow_split_physical_axes=True)
        for number in sorted(slices)
    ]
    return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class ShardingRules:
    """For each logical axis of a parameter or batch, the mesh axes that it is split over.

    An empty tuple keeps the axis whole on every device. The embedding table has only its vocabulary
    axis split: with both, XLA rematerialises the lookup (seen with jax 0.10).
    """

    batch: tuple[str, ...] = (DATA, FSDP)
    vocabulary: tuple[str, ...] = (FSDP,)
    width: tuple[str, ...] = (FSDP,)
    heads: tuple[str, ...] = (TENSOR,)
    feedforward: tuple[str, ...] = (TENSOR,)
    labels: tuple[str, ...] = (TENSOR,)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            axes = getattr(self, field.name)
            if unknown := [axis for axis in axes if axis not in MESH_AXES]:
                raise ValueError(
                    f"{field.name} = {unknown[0]}: expected mesh axes out of {', '.join(MESH_AXES)}"
                )

    def spec(self, logical: Sequence[str | None]) -> PartitionSpec:
        """Returns the partition of an array with these logical axes (None: never split).

        Raises:
          ValueError: an unknown logical axis, or two axes of one array over the same mesh axis.
        """
        known = {field.name for field in dataclasses.fields(self)}
        parts: list[tuple[str, ...] | str | None] = []
        taken: dict[str, str] = {}
        for name in logical:
            if name is None:
                parts.append(None)
                continue
            if name not in known:
                raise ValueError(f"logical axis {name}: expected one of {', '.join(sorted(known))}")
            axes = getattr(self, name)
            for axis in axes:
                if axis in taken:
                    raise ValueError(
                        f"sharding rules: {taken[axis]} and {name} of one array are both split "
                        f"over mesh axis {axis}; give one of them another axis or none"
                    )
                taken[axis] = name
            parts.append(axes[0] if len(axes) == 1 else (axes or None))
        return PartitionSpec(*parts)


DEFAULT_RULES = ShardingRules()


def shard_count(mesh: Mesh, axes: Sequence[str]) -> int:
    """Returns over how many devices the mesh splits an array axis that lies on these mesh axes."""
    return math.prod(mesh.shape[axis] for axis in axes)


def tree_shardings(mesh: Mesh, rules: ShardingRules, shapes: Any, logical: Any) -> Any:
    """Returns a NamedSharding for every array of a tree.

    Args:
      mesh: the mesh.
      rules: the table from logical to mesh axes.
      shapes: a tree of arrays or `jax.ShapeDtypeStruct`.
      logical: the same tree with a tuple of logical axis names (or None) in place of each array.

    Raises:
      ValueError: an axis whose length its mesh axes do not divide; all such axes in one message.
    """
    misfits = []

    def place(path: Any, array: Any, names: tuple[str | None, ...]) -> NamedSharding:
        spec = rules.spec(names)
        for size, name, axes in zip(array.shape, names, spec, strict=True):
            count = shard_count(mesh, (axes,) if isinstance(axes, str) else (axes or ()))
            if size % count:
                misfits.append(f"{jax.tree_util.keystr(path)} has {size} {name} for {count} shards")
        return NamedSharding(mesh, spec)

    result = jax.tree_util.tree_map_with_path(place, shapes, logical)
    if misfits:
        raise ValueError(
            f"mesh {dict(mesh.shape)}: {'; '.join(misfits)}; expected multiples: change the mesh, "
            "the sizes, or the rows that the tables are padded to"
        )
    return result


def batch_sharding(mesh: Mesh, rules: ShardingRules) -> NamedSharding:
    """Returns the sharding of every array of a batch: rows split, the other axes whole."""
    return NamedSharding(mesh, rules.spec(("batch",)))


class Share(NamedTuple):
    """The rows of a batch that one process makes; by default all.

    Where labels alone are split, every process makes every row; and devices need not follow each
    other in a mesh as their processes do.

    Attributes:
      blocks: the process's, rising, of equal blocks of the rows.
      of: how many blocks there are.
    """

    blocks: tuple[int, ...] = (0,)
    of: int = 1

    def rows(self, count: int) -> np.ndarray:
        """Numbers of the process's rows in a batch of so many, which `of` divides."""
        size = count // self.of
        return (np.array(self.blocks)[:, None] * size + np.arange(size)[None]).ravel()


@functools.lru_cache(maxsize=64)
def share_of(rows: NamedSharding) -> Share:
    """Returns the rows of a batch that lie on this process's devices.

    Args:
      rows: from `batch_sharding`.
    """
    mesh, axes = rows.mesh, rows.spec[0] or ()
    assert isinstance(mesh, Mesh)
    count = shard_count(mesh, (axes,) if isinstance(axes, str) else axes)
    places = rows.addressable_devices_indices_map((count,)).values()
    return Share(tuple(sorted({_first(index) for index in places})), count)


def _first(index: tuple[slice, ...] | None) -> int:
    return (index[0].start or 0) if index else 0


def put_batch(batch: Mapping[str, np.ndarray], rows: NamedSharding) -> dict[str, jax.Array]:
    """Makes global arrays of this process's rows of a batch.

    Args:
      batch: arrays whose first axis is the rows of `share_of(rows)`.
      rows: from `batch_sharding`.
    """
    share = share_of(rows)

    def put(array: np.ndarray) -> jax.Array:
        size = len(array) // len(share.blocks)

        def block(index: tuple[slice, ...] | None) -> np.ndarray:
            place = share.blocks.index(_first(index) // size)
            return array[place * size : (place + 1) * size]

        return jax.make_array_from_callback((size * share.of, *array.shape[1:]), rows, block)

    return {key: put(np.asarray(value)) for key, value in batch.items()}


def whole(tree: Any) -> Any:
    """Returns the arrays of a tree as NumPy, each in one piece; every process has to call it."""
    # Array by array, so that no device has the whole model at a time.
    return jax.tree.map(_whole, tree)


def _whole(array: jax.Array) -> np.ndarray:
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
