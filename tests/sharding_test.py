import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxcoder import sharding
from jaxcoder.sharding import ShardingRules, make_mesh


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((), (8, 1, 1)), ((-1, 2, 2), (2, 2, 2)), ((4, 1, -1), (4, 1, 2)), ((1, 8, 1), (1, 8, 1))],
)
def test_mesh_takes_all_devices(sizes, shape):
    mesh = make_mesh(*sizes)
    assert tuple(mesh.shape.items()) == tuple(zip(("data", "fsdp", "tensor"), shape, strict=True))


@pytest.mark.parametrize("sizes", [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 1), (16, 1, 1)])
def test_mesh_of_a_wrong_size_is_refused(sizes):
    with pytest.raises(ValueError, match=r"mesh = .*expected"):
        make_mesh(*sizes)


def test_mesh_of_some_devices():
    assert make_mesh(2, 1, 2, devices=jax.devices()[:4]).size == 4


@dataclasses.dataclass(frozen=True)
class Chip:
    """What mesh construction asks of a TPU."""

    id: int
    coords: tuple[int, int, int]
    slice_index: int
    core_on_chip: int = 0
    process_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"


def slices(number, width=4):
    """Two-dimensional slices of TPUs, a device of each in turn."""
    return [
        Chip(width * width * index + width * y + x, (x, y, 0), index)
        for y in range(width)
        for x in range(width)
        for index in range(number)
    ]


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (2, 2, 2), (4, 2, 1)])
def test_slices_differ_along_the_data_axis_alone(sizes):
    mesh = make_mesh(*sizes, devices=slices(2, width=2))
    index = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert mesh.devices.shape == sizes
    assert len({device.id for device in mesh.devices.flat}) == 8
    np.testing.assert_array_equal(index.reshape(2, 4), [[0] * 4, [1] * 4])


def test_neighbours_in_a_slice_are_neighbours_in_the_mesh():
    mesh = make_mesh(4, 1, 4, devices=slices(1))
    for group in (*mesh.devices[:, 0, :], *mesh.devices[:, 0, :].T):
        x, y, _ = zip(*(device.coords for device in group), strict=True)
        assert {len(set(x)), len(set(y))} == {1, 4}  # a row or a column of the torus


def test_a_data_axis_that_slices_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"mesh = \(1, 8, 1\): .* multiple of the 2 slices"):
        make_mesh(1, -1, 1, devices=slices(2, width=2))


def test_rules_map_names_to_mesh_axes():
    rules = ShardingRules(width=())
    assert rules.spec(("labels", "width")) == PartitionSpec("tensor", None)
    assert rules.spec(("batch", None)) == PartitionSpec(("data", "fsdp"), None)


def test_unknown_and_colliding_axes_are_refused():
    with pytest.raises(ValueError, match="logical axis words: expected one of batch, feedforward"):
        ShardingRules().spec(("words",))
    with pytest.raises(ValueError, match="labels and heads of one array are both split over"):
        ShardingRules().spec(("labels", "heads"))
    with pytest.raises(ValueError, match="width = model: expected mesh axes out of data, fsdp"):
        ShardingRules(width=("model",))


def test_all_lengths_that_the_mesh_does_not_divide_are_named():
    mesh = make_mesh(1, 4, 2)
    shapes = {"a": jnp.zeros((6, 3)), "b": jnp.zeros((8, 5))}
    logical = {"a": ("width", "labels"), "b": ("width", None)}
    with pytest.raises(ValueError, match=r"\['a'\] has 6 width for 4 .*\['a'\] has 3 labels for 2"):
        sharding.tree_shardings(mesh, ShardingRules(), shapes, logical)
    placed = sharding.tree_shardings(mesh, ShardingRules(), shapes["b"], logical["b"])
    assert placed.spec == PartitionSpec("fsdp", None)


def test_rows_of_a_batch_are_split_and_nothing_else():
    mesh = make_mesh(2, 2, 2)
    batch = {"tokens": np.arange(24).reshape(8, 3), "length": np.arange(8)}
    placed = sharding.put_batch(batch, sharding.batch_sharding(mesh, ShardingRules()))
    for key, array in placed.items():
        np.testing.assert_array_equal(array, batch[key])
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {2}


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 1, 8)])
def test_one_process_has_all_rows(sizes):
    rows = sharding.batch_sharding(make_mesh(*sizes), ShardingRules())
    share = sharding.share_of(rows)
    assert share == (tuple(range(sizes[0] * sizes[1])), sizes[0] * sizes[1])
    assert share.rows(16).tolist() == list(range(16))


def test_a_share_need_not_be_one_piece():
    assert sharding.Share((0, 3), 4).rows(8).tolist() == [0, 1, 6, 7]


def test_rows_follow_the_devices_whatever_their_order():
    """As on a TPU, where neighbours in a mesh may be of different hosts."""
    mesh = make_mesh(4, 1, 1, devices=[jax.devices()[number] for number in (2, 0, 3, 1)])
    rows = sharding.batch_sharding(mesh, ShardingRules())
    placed = sharding.put_batch({"index": np.arange(8)}, rows)["index"]
    np.testing.assert_array_equal(sharding.whole(placed), np.arange(8))
    first = next(
        shard for shard in placed.addressable_shards if shard.device == mesh.devices[0, 0, 0]
    )
    np.testing.assert_array_equal(first.data, [0, 1])
