import re

import numpy as np
import pytest

from jaxcoder.bench import __main__ as bench
from jaxcoder.bench import input as bench_input
from jaxcoder.errors import UserError

WAYS = ["files", "copy", "stored", "TFDS", "records", "batches"]


def test_every_way_is_measured(capsys):
    bench.main(["input", "--records=40", "--tokens=50", "--repeats=1"])
    out = capsys.readouterr().out
    assert re.match(r"40 records of \d+ tokens, [1-9][\d,]* bytes each", out)
    rows = re.findall(r"^(\w+) +([\d,]+) +([\d,]+) +[\d.]+ +[\d,]+$", out, re.M)
    assert [name for name, _, _ in rows] == WAYS
    for _, records, tokens in rows:
        assert int(tokens.replace(",", "")) > 20 * int(records.replace(",", "")) > 0


def test_made_up_records_are_token_records_that_a_plan_can_take(tmp_path):
    lengths = np.arange(20, 60)
    data = bench_input.write(tmp_path, lengths)
    records = data.split("train")
    assert [len(record["tokens"]) for record in records] == lengths.tolist()
    assert data.lengths("train").tolist() == lengths.tolist()
    for record in records:
        assert set(record["evidence"][:, 0]) <= set(record["labels"].tolist())
        assert (record["evidence"][:, 2] <= len(record["tokens"])).all()


def test_refuses_what_makes_no_batch():
    with pytest.raises(UserError, match="--records 3: expected at least 16"):
        bench_input.main(["--records=3"])
