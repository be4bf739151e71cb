import numpy as np
import pytest

from jaxcoder.tokens.data import pack_characters, unpack_characters


@pytest.mark.parametrize("count", [0, 1, 5])
def test_characters_come_back(count):
    rng = np.random.default_rng(count)
    offsets = np.sort(rng.integers(0, 99, 2 * count)).reshape(-1, 2).astype(np.int32)
    segments = rng.integers(-1, 99, (count, 5)).astype(np.int32)
    back = unpack_characters(pack_characters(offsets, segments))
    assert np.array_equal(back[0], offsets) and np.array_equal(back[1], segments)
