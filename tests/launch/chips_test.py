import pytest

from jaxcoder.errors import UserError
from launch import chips


def test_topologies_of_all_chips():
    for text, count in (("v5e:16x16", 256), ("v5p:4x4x4", 64), ("v4:2x2x4", 16), ("v6e:8x8", 64)):
        topology = chips.parse(text)
        assert (str(topology), topology.chips) == (text, count)
    assert chips.parse("v5e:16x16", 2).chips == 512


@pytest.mark.parametrize(
    ("text", "slices", "said"),
    [
        ("v9:4x4", 1, "expected a chip out of v4, v5e, v5p, v6e"),
        ("v5e", 1, "such as v5e:16x16"),
        ("v5e:4x4x4", 1, "expected 2 sizes for v5e"),
        ("v5p:4x4", 1, "expected 3 sizes for v5p"),
        ("v5e:4x4", 0, "--slices 0: expected at least 1"),
    ],
)
def test_mistakes(text, slices, said):
    with pytest.raises(UserError, match=said):
        chips.parse(text, slices)


def test_a_part_of_a_slice_and_an_open_axis_have_less_bandwidth():
    ring, grid = chips.parse("v5e:16x16"), chips.parse("v5e:4x4")
    assert ring.bandwidth(256) == 200e9
    assert ring.bandwidth(16) == grid.bandwidth(16) == 100e9
    assert grid.bandwidth(4) == 50e9
    assert chips.parse("v5p:4x4x4").bandwidth(64) == 600e9
