import numpy as np
import pytest

from jaxcoder.records.split import split_of
from jaxcoder.records.subset import Subset, of_patients


def test_a_smaller_share_is_part_of_a_larger_one_and_patients_stay_whole():
    ids = [str(number // 3) for number in range(30_000)]  # three contacts each
    small, large = (set(of_patients(ids, share).tolist()) for share in (0.03, 0.1))
    assert small < large
    assert len(large) / len(ids) == pytest.approx(0.1, abs=0.01)
    for number in large:
        assert {number - number % 3 + each for each in range(3)} <= large
    assert of_patients(ids, 1.0).tolist() == list(range(len(ids)))


def test_the_share_is_taken_alike_from_patients_of_any_split():
    ids = [str(number) for number in range(20_000)]
    of_training = [each for each in ids if split_of(each) == "train"]
    assert len(of_patients(of_training, 0.3)) / len(of_training) == pytest.approx(0.3, abs=0.015)


def test_a_subset_is_a_sequence():
    some = Subset("abcdef", np.array([1, 2, 5]))
    assert (len(some), some[-1], some[0:2], list(some)) == (3, "f", ["b", "c"], ["b", "c", "f"])
    with pytest.raises(IndexError):
        some[3]
