import re

import pytest

from jaxcoder.bench import population
from jaxcoder.errors import UserError


@pytest.mark.parametrize("source", ["synthetic", "tables"])
def test_both_sizes_and_what_they_would_make_of_all(capsys, source):
    population.main(["--source", source, "--contacts", "60", "--times", "3", "--jobs", "1"])
    lines = capsys.readouterr().out.splitlines()
    few, many, projected = (int(line.split()[0].replace(",", "")) for line in lines[1:])
    assert projected == 5_800_000 and "projected" in lines[-1]
    assert (few, many) == (60, 180) or (source == "synthetic" and 1.5 < many / few < 6)
    assert re.search(r"[\d,]+ +\d+ +[\d,]+ +[1-9][\d,]*$", lines[1])


@pytest.mark.parametrize("arguments", [["--contacts", "0"], ["--times", "1"]])
def test_sizes_that_cannot_be_compared_are_refused(arguments):
    with pytest.raises(UserError, match="expected at least 1 and 2"):
        population.main(arguments)
