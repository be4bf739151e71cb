"""Names on the hub; nothing is downloaded here."""

import huggingface_hub
import pytest

from jaxcoder import hub
from jaxcoder.errors import UserError


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Takes the hub's place: notes what it is asked for, and has one model."""
    calls = []

    def snapshot_download(name, allow_patterns):
        calls.append((name, allow_patterns))
        if name != "org/model":
            raise huggingface_hub.errors.LocalEntryNotFoundError("no network\nand no cache")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_folder_goes_before_a_name(asked, tmp_path, monkeypatch):
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert str(hub.folder("org/model")) == "org/model"
    assert asked == []


def test_a_name_is_fetched_without_pickles(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(hub.folder("org/model")) == str(tmp_path)
    ((_, patterns),) = asked
    files = ["config.json", "tokenizer.json", "model.safetensors", "model-00001-of-2.safetensors"]
    matched = huggingface_hub.utils.filter_repo_objects(
        [*files, "pytorch_model.bin", "flax_model.msgpack", "onnx/model.onnx", "code.py"],
        allow_patterns=patterns,
    )
    assert list(matched) == files


@pytest.mark.parametrize("name", ["org/other", "runs/pretrained"])
def test_what_is_not_to_be_had_is_one_line(asked, name):
    with pytest.raises(UserError, match=r"no such folder, and not to be had .*LocalEntry") as error:
        hub.folder(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model", "/no/such/folder", "a/b/c"])
def test_what_can_be_no_name_is_a_folder_that_is_not_there(asked, name):
    with pytest.raises(UserError, match=f"config.model.encoder.init = '{name}': no such folder"):
        hub.folder(name)
    assert asked == []
