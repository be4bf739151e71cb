"""The PyTorch folder: alone, through either door, it predicts what `jaxcoder predict` does."""

import json

import numpy as np
import pytest
import safetensors.numpy

from jaxcoder.export import pytorch
from jaxcoder.export.modeling import JaxcoderModel


@pytest.fixture(scope="module")
def folders(make_workdir, export, tmp_path_factory):
    """Workdirs and what was exported from them, by their kind."""
    kinds = {
        "plain": {},
        "fused": {"fused": True},
        "modernbert": {"encoder": "modernbert", "head": "cross", "dtype": "bfloat16"},
        "short": {"encoder": "bert", "head": "cross"},
    }
    found = {}
    for name, chosen in kinds.items():
        workdir = make_workdir(**chosen)
        output = tmp_path_factory.mktemp("exported") / name
        assert export(workdir, output) == 0
        found[name] = (workdir, output)
    return found


_ALONE = """
import json, warnings
warnings.simplefilter("ignore")
from transformers import AutoModel
fused = AutoModel.from_pretrained(folders["fused"], trust_remote_code=True)
sys.path.insert(0, folders["plain"])
sys.dont_write_bytecode = True
from modeling_jaxcoder import JaxcoderModel
JaxcoderModel.from_pretrained(folders["plain"]).save_pretrained(again)
plain = JaxcoderModel.from_pretrained(again)
assert not {"jax", "jaxcoder", "flax"} & {name for name, module in sys.modules.items() if module}
found = {"plain": plain.predict(contacts, top=4), "fused": fused.predict(contacts, top=4)}
print(json.dumps(found))
"""
_BLOCKED = ("jax", "jaxlib", "jaxcoder", "flax", "etils", "tensorflow")


def test_the_folder_alone_predicts_as_jaxcoder_does(
    folders, contacts, predicted, assert_same, run_without, tmp_path
):
    """Through both doors, and once more after save_pretrained."""
    paths = {name: str(folder) for name, (_, folder) in folders.items()}
    again = tmp_path / "again"
    out = run_without(_BLOCKED, _ALONE, folders=paths, contacts=contacts, again=str(again))
    found = json.loads(out.splitlines()[-1])
    for kind, predictions in found.items():
        expected = predicted(folders[kind][0], 4)
        assert_same(predictions, expected)
        assert len({code["code"] for each in expected for code in each["codes"]}) > 6
        assert any(code["assigned"] for each in expected for code in each["codes"])
    names = {path.name for path in folders["plain"][1].iterdir()}
    assert {path.name for path in again.iterdir()} == names - {"README.md", "export.json"}


@pytest.mark.parametrize("kind", ["modernbert", "short"])
def test_every_network_says_the_same(folders, kind):
    _, folder = folders[kind]
    parity = json.loads((folder / "export.json").read_text())["parity"]
    assert parity["logits"] < 1e-4 and parity["greatest"] > 1
    assert parity["probabilities"] < 1e-4 and parity["platform"] == "cpu"
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}
    model = JaxcoderModel.from_pretrained(folder)
    assert set(model.state_dict()) == set(tensors)


def test_a_text_alone_and_a_contact_of_notes_are_the_same(folders):
    model = JaxcoderModel.from_pretrained(folders["plain"][1])
    contact = {"contact_id": "0", "notes": [{"text": "Fever."}]}
    assert model.predict(["Fever."]) == model.predict([contact])
    longer = model.predict(["Fever.", "cough " * 50])  # in one batch
    alone = model.predict(["Fever."], batch_tokens=1)
    for one, other in zip(longer[0]["codes"], alone[0]["codes"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
    with pytest.raises(ValueError, match=r"contacts\[1\]: nothing to code"):
        model.predict(["Fever.", " "])
    with pytest.raises(ValueError, match="expected a list"):
        model.predict("Fever.")


def test_a_fused_coder_is_not_loaded_without_its_lexicon(folders):
    with pytest.raises(ValueError, match="class whose name begins with Fused"):
        JaxcoderModel.from_pretrained(folders["fused"][1])


def test_one_wrong_weight_and_nothing_is_written(workdir, export, tmp_path, monkeypatch, capsys):
    to_torch = pytorch.weights.to_torch

    def broken(*arguments):
        tensors = to_torch(*arguments)
        tensors["head.output.bias"][5] += 2e-4
        return tensors

    monkeypatch.setattr(pytorch.weights, "to_torch", broken)
    assert export(workdir, tmp_path / "coder") == 2
    *_, said, error = capsys.readouterr().err.strip().splitlines()
    assert "logits" in error and "expected at most 0.0001" in error
    assert said.startswith("compared on made-up texts: ")
    assert list(tmp_path.iterdir()) == []


def test_the_card_tells_what_counts_and_nothing_of_this_machine(folders, contacts):
    workdir, folder = folders["fused"]
    card = (folder / "README.md").read_text()
    assert "16 made-up texts" in card and "fused with a lexicon" in card
    assert "Not evaluated yet" in card and 'AutoModel.from_pretrained("fused"' in card
    names = {path.name for path in folder.iterdir()} - {"README.md", "export.json"}
    assert all(f"| `{name}` |" in card for name in names)
    for text in (card, (folder / "config.json").read_text(), (folder / "export.json").read_text()):
        assert str(workdir.path) not in text and str(folder.parent) not in text
