import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxcoder import outcomes, parquet_rows, predictions
from jaxcoder.errors import UserError
from jaxcoder.metrics.counting import Outcomes
from jaxcoder.predictions import PredictionWriter, top_labels
from jaxcoder.records.codes import LabelSpace

SPACE = LabelSpace(("A00", "B00", "C00", "D00"))
FOUND = Outcomes(
    counts=jnp.array([[3, 1, 1, 1], [9, 9, 9, 9], [3, 1, 4, 2]]),
    measures=jnp.arange(30, dtype=jnp.float32).reshape(3, 10) / 30,
)
P_BxL = jnp.float32([[0.2, 0.9, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1], [0.6, 0.8, 0.7, 0.9]])


def labels(threshold, top):
    return [(each.tolist(), yes.tolist()) for each, _, yes in top_labels(P_BxL, threshold, top)]


def test_the_most_probable_and_every_assigned_one():
    assert labels(0.5, 2) == [
        ([1, 2], [True, False]),  # of equal ones the smaller label; 0.5 does not exceed 0.5
        ([0, 1], [False, False]),
        ([3, 1, 2, 0], [True] * 4),  # more than asked, because they are assigned
    ]
    assert [len(each) for each, _ in labels(0.99, 100)] == [4, 4, 4]
    assert labels(0.0, 1)[1] == ([0, 1, 2, 3], [True] * 4)
    assert labels(0.95, 0) == [([], []), ([], []), ([], [])]


def test_a_probability_that_is_the_threshold_in_float32_does_not_exceed_it():
    """0.1 as float32 is larger than 0.1 as float64."""
    assert labels(0.1, 1)[1] == ([0], [False])


def test_thresholds_by_label_and_by_row():
    by_label = np.float32([[0.1, 0.85, 0.55, 0.95]])
    assert labels(by_label, 1) == [
        ([1, 0], [True, True]),  # what lies between and is not assigned is left out
        ([0], [False]),
        ([3, 2, 0], [False, True, True]),
    ]
    by_row = np.float32([[0.8], [0.05], [0.99]])
    assert labels(by_row, 0) == [([1], [True]), ([0, 1, 2, 3], [True] * 4), ([], [])]
    for top in range(5):  # one threshold for all, said in three ways
        for same in (np.full((1, 4), 0.5), np.full((3, 1), 0.5), np.full((1, 1), 0.5)):
            assert labels(same.astype(np.float32), top) == labels(0.5, top)


def records(count):
    return [
        {
            "contact_id": f"c{number}",
            "patient_id": "p",
            "specialty": "heart",
            "sex": "F",
            "kind": "",
            "age": np.float32(number or -1),
            "year": np.int32(2020 * (number > 0)),
            "notes": np.int32(2),
            "labels": np.array([1, 3]),
            "missing_codes": ("Z99",),
        }
        for number in range(count)
    ]


def write(folder, count, fail_at=None):
    """Writes contacts, last one first, in batches of two rows and one of padding."""
    lengths = 100 + np.arange(count)
    with PredictionWriter(folder, records(count), lengths, SPACE, threshold=0.55, top=1) as writer:
        for number in reversed(range(0, count, 2)):
            if number == fail_at:
                raise RuntimeError("the device is gone")
            writer.write(jnp.array([number + 1, -1, number]), P_BxL, FOUND)
    return writer.granularities


def test_rows_keep_the_order_of_batches_and_padding_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "ROW_GROUP", 3)
    granularities = write(tmp_path, 10)
    file = pq.ParquetFile(str(tmp_path / "predictions.parquet"))
    assert file.num_row_groups > 1, "memory does not grow with the split"
    rows = file.read().to_pylist()
    order = ["c9", "c8", "c7", "c6", "c5", "c4", "c3", "c2", "c1", "c0"]
    assert [row["contact_id"] for row in rows] == order
    assert rows[0]["codes"] == ["B00"] and rows[0]["assigned"] == [True]
    assert rows[1]["codes"] == ["D00", "B00", "C00", "A00"]
    assert rows[1]["probabilities"] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert rows[0]["gold"] == ["B00", "D00", "Z99"]
    contacts = outcomes.read(tmp_path / "contacts.parquet")
    assert list(contacts) == outcomes.SCHEMA.names
    assert contacts["contact_id"].tolist() == order
    assert contacts["tokens"].tolist() == list(range(109, 99, -1))
    assert contacts["age"][:9].tolist() == list(range(9, 0, -1)) and np.isnan(contacts["age"][9])
    assert contacts["year"][:9].tolist() == [2020] * 9 and np.isnan(contacts["year"][9])
    assert (contacts["sex"][0], contacts["kind"][0], contacts["notes"][0]) == ("F", "", 2)
    for name, expected in (("gold", 3), ("gold_outside", 1), ("predicted", 1), ("hits", 1)):
        assert contacts[name][0] == expected
    assert (contacts["predicted"][1], contacts["hits"][1]) == (4, 2)  # the row after the padding
    for name, place in (("recall_at_10", 1), ("map", 7), ("loss", 8), ("confidence", 9)):
        assert contacts[name].tolist()[:2] == pytest.approx([place / 30, (20 + place) / 30])
    # Each B00 of two: 3 gold codes and 1 right of 1; and 3 gold codes and 2 right of 4.
    full = granularities.rows()[0]
    assert full["micro_f1"] == pytest.approx(2 * 3 / (6 + 5))


def test_a_file_of_before_stays_until_the_new_one_is_whole(tmp_path):
    write(tmp_path, 4)
    with pytest.raises(RuntimeError):
        write(tmp_path, 8, fail_at=2)
    names = ["contacts.parquet", "predictions.parquet"]
    assert [pq.read_table(tmp_path / name).num_rows for name in names] == [4, 4]
    assert sorted(each.name for each in tmp_path.iterdir()) == names


def test_a_split_without_contacts_has_a_file_without_rows(tmp_path):
    write(tmp_path, 0)
    assert pq.read_table(tmp_path / "predictions.parquet").schema == predictions.SCHEMA
    assert pq.read_table(tmp_path / "contacts.parquet").schema == outcomes.SCHEMA


def test_a_table_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "contacts.parquet"
    with pytest.raises(
        UserError, match="contacts.parquet: cannot be read .FileNotFoundError.; run"
    ):
        outcomes.read(path)
    path.write_text("no table")
    with pytest.raises(UserError, match="contacts.parquet: cannot be read .ArrowInvalid.; run"):
        outcomes.read(path)
    pq.write_table(pa.table({"contact_id": ["a"]}), path)
    with pytest.raises(UserError, match="contacts.parquet: column map is missing; run"):
        outcomes.read(path, ["contact_id", "map"])
