import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxcoder import predictions
from jaxcoder.predictions import PredictionWriter, top_labels
from jaxcoder.records.codes import LabelSpace

SPACE = LabelSpace(("A00", "B00", "C00", "D00"))
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


def records(count):
    return [
        {
            "contact_id": f"c{number}",
            "patient_id": "p",
            "specialty": "",
            "labels": np.array([1, 3]),
            "missing_codes": ("Z99",),
        }
        for number in range(count)
    ]


def write(path, count, fail_at=None):
    """Writes contacts, last one first, in batches of two rows and one of padding."""
    with PredictionWriter(path, records(count), SPACE, threshold=0.55, top=1) as writer:
        for number in reversed(range(0, count, 2)):
            if number == fail_at:
                raise RuntimeError("the device is gone")
            writer.write(jnp.array([number + 1, -1, number]), P_BxL)


def test_rows_keep_the_order_of_batches_and_padding_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "ROW_GROUP", 3)
    write(tmp_path / "p.parquet", 10)
    file = pq.ParquetFile(str(tmp_path / "p.parquet"))
    assert file.num_row_groups > 1, "memory does not grow with the split"
    rows = file.read().to_pylist()
    order = ["c9", "c8", "c7", "c6", "c5", "c4", "c3", "c2", "c1", "c0"]
    assert [row["contact_id"] for row in rows] == order
    assert rows[0]["codes"] == ["B00"] and rows[0]["assigned"] == [True]
    assert rows[1]["codes"] == ["D00", "B00", "C00", "A00"]
    assert rows[1]["probabilities"] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert rows[0]["gold"] == ["B00", "D00", "Z99"]


def test_a_file_of_before_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "p.parquet"
    write(path, 4)
    with pytest.raises(RuntimeError):
        write(path, 8, fail_at=2)
    assert pq.read_table(path).num_rows == 4
    assert [each.name for each in tmp_path.iterdir()] == ["p.parquet"]


def test_a_split_without_contacts_has_a_file_without_rows(tmp_path):
    write(tmp_path / "p.parquet", 0)
    assert pq.read_table(tmp_path / "p.parquet").schema == predictions.SCHEMA
