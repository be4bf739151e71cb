import pytest

from jaxcoder.whole_file import whole_file, write_bytes, write_json


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a" / "b.json", {"x": 1})
    assert (tmp_path / "a" / "b.json").read_text() == '{\n  "x": 1\n}\n'
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]


def test_what_was_there_stays_until_the_new_is_whole(tmp_path):
    write_bytes(tmp_path / "codes", b"before")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "codes") as file:
        file.write("half")
        assert (tmp_path / "codes").read_bytes() == b"before"
        raise RuntimeError
    assert (tmp_path / "codes").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]
