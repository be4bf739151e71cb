import json

import pytest

from jaxcoder.errors import UserError
from jaxcoder.export.folder import RECORD, check_replaceable, whole_folder, write_record


def write(folder, content):
    (folder / "a.txt").write_text(content)
    write_record(folder, {"format": "test"})


def test_it_appears_whole_and_replaces_its_own(tmp_path):
    target = tmp_path / "out"
    for content in ("first", "second"):
        with whole_folder(target) as folder:
            write(folder, content)
            assert not target.exists() or (target / "a.txt").read_text() == "first"
        assert (target / "a.txt").read_text() == content
        assert json.loads((target / RECORD).read_text())["files"] == ["a.txt"]
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert sorted(path.name for path in target.iterdir()) == ["a.txt", RECORD]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for content in ("first", "second", "third"):
        with whole_folder(tmp_path / "out") as folder:
            write(folder, content)
        assert (tmp_path / "disk" / "a.txt").read_text() == content
    assert (tmp_path / "out").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "disk"}


def test_a_failure_leaves_what_was_there(tmp_path):
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "new") as folder:
        write(folder, "half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "out") as folder:
        write(folder, "first")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out") as folder:
        raise RuntimeError
    assert (tmp_path / "out" / "a.txt").read_text() == "first"


def test_what_a_killed_export_left_goes_with_the_next(tmp_path):
    left = tmp_path / ".out.export"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "half").write_text("")
    with whole_folder(tmp_path / "out") as folder:
        assert not (folder / "deep").exists()
        write(folder, "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_between_the_two_renames_and_the_old_export_comes_back(tmp_path):
    with whole_folder(tmp_path / "out") as folder:
        write(folder, "first")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out"):
        raise RuntimeError
    assert (tmp_path / "out" / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_exports_to_one_place_are_refused(tmp_path):
    with (
        whole_folder(tmp_path / "out") as folder,
        pytest.raises(UserError, match="another process exports to it"),
        whole_folder(tmp_path / "out"),
    ):
        pass
    assert not folder.exists()


def test_what_an_export_did_not_write_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    check_replaceable(tmp_path / "nowhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(UserError, match=r"mine: has files, and no export\.json"):
        check_replaceable(tmp_path / "mine")
    with pytest.raises(UserError, match="a file; expected a folder"):
        check_replaceable(tmp_path / "mine" / "thesis.txt")
    with whole_folder(tmp_path / "out") as folder:
        write(folder, "")
    (tmp_path / "out" / "notes.txt").write_text("")
    with pytest.raises(UserError, match=r"notes\.txt in it is not the export's"):
        check_replaceable(tmp_path / "out")
    with pytest.raises(UserError, match="a folder of this machine"):
        check_replaceable("gs://a/b")
