"""The ONNX folder: one graph for every batch and length, and an example that runs."""

import json
import re

import numpy as np
import pytest

from jaxcoder.export import onnx
from jaxcoder.export.__main__ import restore
from jaxcoder.export.parity import Reference


@pytest.fixture(scope="module")
def folders(make_workdir, export, tmp_path_factory):
    kinds = {"fused": {"fused": True}, "modernbert": {"encoder": "modernbert", "head": "cross"}}
    found = {}
    for name, chosen in kinds.items():
        workdir, output = make_workdir(**chosen), tmp_path_factory.mktemp("onnx") / name
        assert export(workdir, output, "--format", "onnx") == 0
        found[name] = (workdir, output)
    return found


@pytest.mark.parametrize("kind", ["fused", "modernbert"])
def test_batch_and_length_are_any(folders, contacts, kind):
    """Windows are 16 tokens, local attention sees 4 to each side."""
    workdir, folder = folders[kind]
    reference, logits = Reference(restore(workdir), contacts), onnx.logits_of(folder)
    rng = np.random.default_rng(0)
    for batch, length in ((1, 1), (3, 16), (2, 35)):
        tokens_BxT = rng.integers(0, 260, (batch, length), np.int32)
        length_B = rng.integers(1, length + 1, batch, np.int32)
        ours = reference.logits(tokens_BxT, length_B)
        np.testing.assert_allclose(logits(tokens_BxT, length_B), ours, atol=1e-4)
        assert np.abs(ours).max() > 0.5


def test_the_example_of_the_readme_runs_without_jaxcoder(
    folders, run_without, predicted, contacts, assert_same
):
    workdir, folder = folders["fused"]
    card = (folder / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = code.replace('"fused', f'"{folder}')
    code += """
import json
documents = reader.documents(contacts)
tokens, mask = reader.batch(documents)
(logits,) = session.run(None, {"input_ids": tokens, "attention_mask": mask})
print(json.dumps(reader.predictions(documents, logits, top=4)))
"""
    blocked = ("jaxcoder", "jax", "flax", "torch", "transformers", "etils")
    out = run_without(blocked, code, contacts=contacts).splitlines()
    assert "disease" in out[0]
    assert_same(json.loads(out[-1]), predicted(workdir, 4))
