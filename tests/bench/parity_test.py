import re

import pytest

from jaxcoder.bench import parity

# Of the last hidden states, which are layer-normalised: about 1 in size.
TOLERANCE = 1e-5


@pytest.mark.parametrize("task", ["Model", "ModelForMaskedLM"])
@pytest.mark.parametrize("architecture", parity.ARCHITECTURES)
def test_states_are_those_of_transformers(tmp_path, architecture, task):
    """In a padded batch; ModernBERT's documents are longer than what its local layers see."""
    parity.make(architecture, str(tmp_path), task=task)
    assert 0 < parity.difference(str(tmp_path)) < TOLERANCE


def test_prints_a_line_for_each_architecture(capsys, monkeypatch):
    chosen = {"bert": parity.ARCHITECTURES["bert"]}
    monkeypatch.setattr(parity, "ARCHITECTURES", chosen)
    parity.main([])
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert re.match(r"bert, random +\d\.\de-\d\d$", line)
    assert float(line.split()[-1]) < TOLERANCE
