import numpy as np
import pytest
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from jaxcoder.tokens.data import Listed, features, pack_characters, unpack_characters


def test_a_listed_array_is_written_as_the_same_bytes():
    tokens = np.array([0, 1, 127, 128, 70_000, 2**31 - 1, -1], np.int32)
    spec = {"tokens": features()["tokens"].get_serialized_info()}
    plain, listed = (
        ExampleSerializer(spec).serialize_example(
            {"tokens": features()["tokens"].encode_example(each)}
        )
        for each in (tokens, tokens.view(Listed))
    )
    assert plain == listed


@pytest.mark.parametrize("count", [0, 1, 5])
def test_characters_come_back(count):
    rng = np.random.default_rng(count)
    offsets = np.sort(rng.integers(0, 99, 2 * count)).reshape(-1, 2).astype(np.int32)
    segments = rng.integers(-1, 99, (count, 5)).astype(np.int32)
    back = unpack_characters(pack_characters(offsets, segments))
    assert np.array_equal(back[0], offsets) and np.array_equal(back[1], segments)
