import pyarrow as pa
import pytest
from pyarrow import parquet

from jaxcoder.errors import UserError
from jaxcoder.records.sources import open_source

CONTACTS = "contact_id,patient_id,start,end,specialty,age,sex\n"


def contacts(folder, *ids):
    (folder / "contacts.csv").write_text(CONTACTS + "".join(f"{i},{i},,,,,\n" for i in ids))


def test_ids_that_pandas_made_floats_are_whole_numbers(tmp_path):
    contacts(tmp_path, 1, 2, 123456789012345)
    codes = {
        "contact_id": [1.0, 2.0, None, 123456789012345.0, 1e17],
        "code": [250.0, 250.1, 250.2, 250.3, 250.4],  # a code is no id: 250.0 is not 250
        "system": ["icd9cm"] * 5,
        "role": [None] * 5,
        "rank": [1] * 5,
    }
    splits = {"patient_id": [1.0, 2.0, 123456789012345.0], "split": ["train"] * 3}
    parquet.write_table(pa.table(codes), tmp_path / "codes.parquet")
    parquet.write_table(pa.table(splits), tmp_path / "splits.parquet")
    source = open_source("tables", tmp_path, {})
    found = {each.contact_id: each.codes for each in source.contacts("train")}
    assert {key: [code.code for code in codes] for key, codes in found.items()} == {
        "1": ["250.0"],
        "2": ["250.1"],
        "123456789012345": ["250.3"],
    }
    assert source.dropped("") == {
        "codes: no contact_id or no code": 1,
        "codes: contact_id not in contacts": 1,
    }
    assert source.dropped("").examples == {"codes: contact_id not in contacts": "'1e+17'"}


@pytest.mark.parametrize(
    ("relation", "content", "key"),
    [
        ("codes", "contact_id,code,system,role,rank\n1.0,I10,,,\n2.0,I10,,,\n", "contact_id"),
        ("splits", "patient_id,split\n1.0,train\n2.0,test\n", "patient_id"),
        ("splits", "contact_id,split\n1.0,train\n2.0,test\n", "contact_id"),
    ],
)
def test_a_relation_of_others_ids_is_refused(tmp_path, relation, content, key):
    contacts(tmp_path, 1, 2)
    (tmp_path / f"{relation}.csv").write_text(content)
    message = (
        rf"{relation}.csv: no {key} stands in .*contacts.csv: '1.0' here, '1' there, .*alike; cast"
    )
    with pytest.raises(UserError, match=message) as caught:
        list(open_source("tables", tmp_path, {}).contacts("train"))
    assert "\n" not in str(caught.value)


def test_a_relation_without_rows_is_not_of_others(tmp_path):
    contacts(tmp_path, 1)
    (tmp_path / "codes.csv").write_text("contact_id,code,system,role,rank\n,I10,,,\n1,,,,\n")
    source = open_source("tables", tmp_path, {})
    assert [each.codes for split in source.splits for each in source.contacts(split)] == [()]
    assert source.dropped("") == {"codes: no contact_id or no code": 2}
    assert source.dropped("").examples == {"codes: no contact_id or no code": "'1'"}
