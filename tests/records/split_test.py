import collections

import pytest

from jaxcoder.records.split import split_of


def test_the_split_of_a_patient_never_changes():
    # Golden: a change here moves patients between splits of data sets that people have trained on.
    found = [split_of(f"patient-{number}", seed=0)[0] for number in range(12)]
    assert "".join(found) == "ttvtttvttvtv"
    assert split_of("patient-7", seed=0) == "test"


def test_shares_are_kept():
    counts = collections.Counter(split_of(str(i), 3, (0.7, 0.2, 0.1)) for i in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.7, abs=0.01)
    assert counts["validation"] / 20_000 == pytest.approx(0.2, abs=0.01)


def test_seeds_are_independent():
    same = sum(split_of(str(i), 0) == split_of(str(i), 1) for i in range(5_000)) / 5_000
    assert same == pytest.approx(0.8**2 + 0.1**2 + 0.1**2, abs=0.02)


def test_a_share_of_zero_gets_nobody():
    assert {split_of(str(i), 0, (0.0, 0.5, 0.5)) for i in range(500)} == {"validation", "test"}
    assert {split_of(str(i), 0, (1.0, 0.0, 0.0)) for i in range(500)} == {"train"}


@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.8, 0.3, 0.1), (1.2, -0.1, -0.1)])
def test_shares_that_make_no_sense(shares):
    with pytest.raises(ValueError, match="shares"):
        split_of("p", 0, shares)
