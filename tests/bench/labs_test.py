import re

import pytest

from jaxcoder.bench import labs


@pytest.mark.parametrize("source", ["tables", "mimic4"])
def test_every_row_is_in_a_contact_or_counted(capsys, source):
    labs.main(["--source", source, "--rows", "4000"])
    out = capsys.readouterr().out
    held, contacts, lost = (
        int(each.replace(",", ""))
        for each in re.findall(r"([\d,]+) rows in ([\d,]+) contacts, ([\d,]+) in none", out)[0]
    )
    assert held + lost == 4000
    assert (contacts, lost) == ((200, 0) if source == "tables" else (150, 1000))
