"""The StableHLO folder runs where jaxcoder is not installed."""

import json
import re

import numpy as np
import pytest

from jaxcoder.export import stablehlo


@pytest.mark.parametrize("kind", [{"fused": True}, {"encoder": "modernbert", "head": "cross"}])
def test_the_example_of_the_readme_runs_without_jaxcoder(
    make_workdir, export, tmp_path, run_without, predicted, contacts, assert_same, kind
):
    workdir = make_workdir(**kind)
    assert export(workdir, tmp_path / "coder", "--format", "stablehlo") == 0
    record = json.loads((tmp_path / "coder" / "export.json").read_text())
    assert record["parity"]["logits"] < 1e-4 and record["parity"]["greatest"] > 1
    if "fused" not in kind:
        return
    card = (tmp_path / "coder" / "README.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    assert code.count('"coder') == 4
    code = code.replace('"coder', f'"{tmp_path}/coder').replace('f"coder', f'f"{tmp_path}/coder')
    code += """
import json
documents = reader.documents(contacts)
print(json.dumps(reader.predictions(documents, logits_of([d.ids for d in documents]), top=4)))
"""
    blocked = ("jaxcoder", "flax", "torch", "transformers", "etils")
    out = run_without(blocked, code, contacts=contacts).splitlines()
    assert out[0] == "(2, 12)" and "disease" in out[1]
    assert_same(json.loads(out[-1]), predicted(workdir, 4))


def test_lengths_leave_room_for_the_longest_document():
    assert stablehlo.padded_lengths(90) == (128,)
    assert stablehlo.padded_lengths(1000) == (128, 256, 512, 1024)
    assert stablehlo.padded_lengths(8192) == (1024, 2048, 4096, 8192)
    assert all(max(stablehlo.padded_lengths(n)) >= n for n in np.arange(8, 9000, 97))
