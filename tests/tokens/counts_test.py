import numpy as np
import pytest

from jaxcoder.tokens import counts
from jaxcoder.tokens.counts import Counts, association


def table(documents, labels, min_documents=1, min_hits=1, all_keys=False):
    return Counts.of(
        lambda number: np.array(documents[number], np.uint64),
        sum(map(len, documents)),
        [np.array(some, np.int32) for some in labels],
        min_documents,
        lambda hits, documents, labels: hits >= min_hits,
        all_keys,
    )


def as_dict(found):
    return {
        int(key): (
            int(found.documents[row]),
            {
                int(found.labels[entry]): int(found.hits[entry])
                for entry in range(found.first[row], found.first[row + 1])
            },
        )
        for row, key in enumerate(found.keys)
    }


def test_counts_documents_and_not_occurrences():
    found = table([[7, 7, 9], [7, 8], [9]], [[0, 2], [2], []])
    assert as_dict(found) == {7: (2, {0: 1, 2: 2}), 8: (1, {2: 1}), 9: (2, {0: 1, 2: 1})}


def test_rare_keys_and_rare_pairs_are_left_out():
    documents, labels = [[7, 7, 9], [7, 8], [9]], [[0, 2], [2], []]
    assert as_dict(table(documents, labels, 2, 2)) == {7: (2, {2: 2})}
    assert as_dict(table(documents, labels, 2, 2, all_keys=True)) == {7: (2, {2: 2}), 9: (2, {})}


def test_counting_in_parts_changes_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 2**63, 40, dtype=np.uint64) % 50 << 40 for _ in range(30)]
    labels = [np.unique(rng.integers(0, 9, 4)) for _ in documents]
    whole = table(documents, labels)
    monkeypatch.setattr(counts, "_PARTITION", 100)
    monkeypatch.setattr(counts, "_PAIRS", 50)
    parts = table(documents, labels)
    assert len(whole) > 40
    assert as_dict(parts) == as_dict(whole)
    np.testing.assert_array_equal(parts.keys, whole.keys)


def test_hits_of_some_keys_and_labels():
    found = table([[7, 9], [7, 8], [9]], [[0, 2], [2], [4]])
    rows = found.rows(np.array([9, 5, 7], np.uint64))
    assert rows.tolist() == [2, -1, 0]
    hits = found.hits_of(rows, np.array([2, 3, 4]), missing=-5)
    assert hits.tolist() == [[1, -5, 1], [-5, -5, -5], [2, -5, -5]]
    assert found.hits_of(rows, np.zeros(0, np.int32), missing=-5).shape == (3, 0)


def test_no_documents_no_keys():
    found = table([], [])
    assert len(found) == 0
    assert found.rows(np.array([3], np.uint64)).tolist() == [-1]


def test_association_by_hand():
    # 10 documents; key in 4, label in 5, both in 4: 2 Σ observed ln(observed / expected).
    observed = np.array([4, 0, 1, 5])
    expected = np.array([2, 2, 3, 3])
    cells = [o * np.log(o / e) for o, e in zip(observed, expected, strict=True) if o]
    assert association(np.array(4), np.array(4), np.array(5), 10) == pytest.approx(2 * sum(cells))


def test_association_is_none_at_chance_and_below():
    assert association(np.array(2), np.array(4), np.array(5), 10) == 0
    assert association(np.array(1), np.array(4), np.array(5), 10) == 0


def test_association_trusts_many_more_than_few():
    few, many = association(np.array([2, 20]), np.array([2, 20]), np.array([40, 40]), 400)
    assert many > 5 * few
