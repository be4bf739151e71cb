import pyarrow as pa
import pytest
from pyarrow import feather

from jaxcoder.errors import UserError
from jaxcoder.records.sources.published import read_splits


def rows(path):
    return list(zip(*read_splits(str(path)).to_pydict().values(), strict=True))


def test_ids_of_csv_files_keep_their_leading_zeros(tmp_path):
    (tmp_path / "all.csv").write_text("extra,hadm_id,split\n1.5,0020,train\n2,7,test\n")
    assert rows(tmp_path / "all.csv") == [("0020", "train"), ("7", "test")]
    for split, ids in {"train": "0020\n0007\n", "dev": "08\n", "test": "10\n"}.items():
        (tmp_path / f"{split}_ids.csv").write_text(ids)
    expected = [("0020", "train"), ("0007", "train"), ("08", "dev"), ("10", "test")]
    assert rows(tmp_path / "{}_ids.csv") == expected


def test_ids_of_feather_files_are_read_as_they_are(tmp_path):
    for ids in (pa.array([20, 7]), pa.array(["0020", "7"])):
        table = pa.table({"_id": ids, "split": ["train", "val"]})
        feather.write_feather(table, str(tmp_path / "splits.feather"))
        first, second = map(str, ids.to_pylist())
        assert rows(tmp_path / "splits.feather") == [(first, "train"), (second, "val")]


def test_mistakes_name_the_file(tmp_path):
    (tmp_path / "ids.csv").write_text("id,split\n1,train\n")
    with pytest.raises(UserError, match=r"ids.csv: columns id, split; expected split, and contact"):
        read_splits(str(tmp_path / "ids.csv"))
    with pytest.raises(UserError, match=r"gone.csv is not there"):
        read_splits(str(tmp_path / "gone.csv"))
