import re

import numpy as np
import pytest

from jaxcoder.bench import __main__ as bench
from jaxcoder.bench import attention


@pytest.mark.parametrize(("length", "radius"), [(7, 0), (7, 1), (7, 3), (7, 6), (7, 20), (1, 0)])
def test_pairs_are_counted(length, radius):
    index = np.arange(length)
    near = np.abs(index[:, None] - index[None]) <= (radius or length)
    assert attention.pairs(length, radius) == near.sum()


def test_reports_every_way_and_that_they_agree(capsys):
    bench.main(
        ["attention", "--tokens", "400", "--heads=2", "--head_width=8", "--radius=9", "--repeats=1"]
    )
    out = capsys.readouterr().out
    rows = re.findall(r"^ +400  (full|local) +(naive|xla) +(\d+)", out, re.M)
    peaks = {(layer, way): int(peak) for layer, way, peak in rows}
    assert len(peaks) == 4
    assert peaks["local", "xla"] < peaks["local", "naive"]
    assert float(re.search(r"losses differ by at most (\S+)", out)[1]) < 1e-5
    for name in ("splash", "cudnn"):
        assert f"not here: attention = '{name}'" in out
