import gzip
import json
import os
import pathlib

import pytest

from jaxcoder.errors import UserError
from jaxcoder.records.codes import LabelSpace, read_descriptions, roll_up


@pytest.mark.parametrize(
    ("code", "granularity", "system", "expected"),
    [
        ("E11.65", "full", "", "E11.65"),
        ("E11.65", "subcategory", "", "E11.6"),
        ("E11.65", "category", "", "E11"),
        ("E11.65", "chapter", "", "E00-E90"),
        ("E11", "subcategory", "", "E11"),
        ("D49.2", "chapter", "", "C00-D49"),
        ("D50", "chapter", "", "D50-D89"),
        ("C4A.9", "chapter", "", "C00-D49"),
        ("X59.9", "chapter", "", "V00-Y99"),
        ("0DTJ4ZZ", "category", "", "0DT"),
        ("0DTJ4ZZ", "chapter", "", "0"),
        ("BW03", "subcategory", "", "BW03"),
        ("250.01", "subcategory", "", "250.0"),
        ("250.01", "chapter", "", "240-279"),
        ("038.9", "chapter", "", "001-139"),
        ("E880.1", "category", "", "E880"),
        ("E880.1", "chapter", "", "E000-E999"),
        ("V10.4", "chapter", "", "V00-Y99"),
        ("V10.4", "chapter", "icd9cm", "V01-V91"),
        ("38.93", "category", "", "38"),
    ],
)
def test_codes_roll_up(code, granularity, system, expected):
    assert roll_up(code, granularity, system) == expected


def test_roll_up_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="granularity"):
        roll_up("I10", "block")
    with pytest.raises(ValueError, match="no chapter"):
        roll_up("D99", "chapter")


def test_label_space_keeps_frequent_codes_in_order():
    space = LabelSpace.from_counts(
        {"I10": 5, "A00": 2, "Z99": 1}, min_count=2, descriptions={"I10": "Hypertension"}
    )
    assert space.codes == ("A00", "I10")
    assert space.descriptions == ("", "Hypertension")
    assert space.index == {"A00": 0, "I10": 1}
    assert len(space) == 2


def test_hash_follows_codes_order_and_granularity_only():
    one = LabelSpace(("A00", "I10"))
    assert one.hash == LabelSpace(("A00", "I10"), ("x", "y"), min_count=7).hash
    assert len(one.hash) == 16
    others = [
        LabelSpace(("I10", "A00")),
        LabelSpace(("A00",)),
        LabelSpace(("A00", "I10"), granularity="category"),
    ]
    assert one.hash not in {other.hash for other in others}


def test_hash_is_the_same_in_every_release():
    # Checkpoints carry it: a change here makes every trained coder refuse its own label space.
    assert LabelSpace(("A00", "I10")).hash == "e4745641c480929b"


def test_label_space_round_trip(tmp_path):
    space = LabelSpace(("A00", "I10"), ("Cólera", ""), "category", 3)
    space.save(tmp_path / "label_space.json")
    assert LabelSpace.load(tmp_path / "label_space.json") == space


def test_edited_label_space_is_refused(tmp_path):
    path = tmp_path / "label_space.json"
    LabelSpace(("A00", "I10")).save(path)
    content = json.loads(path.read_text())
    content["codes"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"label_space.json: hash .* edited"):
        LabelSpace.load(path)
    path.write_text("{")
    with pytest.raises(UserError, match="not a label space"):
        LabelSpace.load(path)
    with pytest.raises(UserError, match="not found"):
        LabelSpace.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "values", [{"codes": ("A", "A")}, {"codes": ("A",), "descriptions": ("", "")}]
)
def test_label_space_must_make_sense(values):
    with pytest.raises(ValueError):
        LabelSpace(**values)


def test_descriptions_from_csv_and_from_the_official_layout(tmp_path):
    table = tmp_path / "order.csv.gz"
    table.write_bytes(
        gzip.compress(
            b'Code,billable,short,long\nA00,0,Cholera,Cholera\nA000,1,"Cholera, 01",Long\n'
        )
    )
    official = tmp_path / "icd10cm_order_2021.txt"
    official.write_text(
        f"00001 A00     0 {'Cholera':<60} Cholera\n00002 A000    1 {'Cholera, 01':<60} Long\n"
    )
    expected = {"A00": (False, "Cholera", "Cholera"), "A00.0": (True, "Cholera, 01", "Long")}
    assert read_descriptions(table) == expected
    assert read_descriptions(official) == expected


def test_description_file_mistakes_name_file_and_row(tmp_path):
    path = tmp_path / "order.csv"
    path.write_text("code,short,long\n")
    with pytest.raises(UserError, match=r"order.csv: column 'billable' is missing; found code"):
        read_descriptions(path)
    path.write_text("code,billable,short,long\nA00,0,x,y\n?,0,x,y\n")
    with pytest.raises(UserError, match=r"order.csv, row 3: '\?'"):
        read_descriptions(path)
    with pytest.raises(UserError, match="not found"):
        read_descriptions(tmp_path / "none.csv")


@pytest.mark.shared_data
@pytest.mark.skipif(
    "JAXCODER_SHARED_DATA" not in os.environ, reason="JAXCODER_SHARED_DATA is not set"
)
def test_every_official_code_is_known():
    folder = pathlib.Path(os.environ["JAXCODER_SHARED_DATA"]) / "code_tables"
    table = read_descriptions(folder / "icd10cm-order-Jan-2021.csv.gz")
    with gzip.open(folder / "icd10cm-order-Jan-2021.csv.gz", "rt") as file:
        assert len(table) == len(file.readlines()) - 1
    assert table["I10"][:2] == (True, "Essential (primary) hypertension")
    chapters = {roll_up(code, "chapter") for code in table}
    assert len(chapters) == 22
    assert all(roll_up(code, "category") in table for code in table)
