import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxcoder.fusion import FusionOptions, Sample, Weights, fuse


def test_by_hand():
    logits = np.array([[2.0, -1.0]], np.float32)
    scores = np.array([[0.5, 0.0]], np.float32)
    found, other = fuse(logits, scores, Weights((0.5, 2.0, 3.0, -1.0), (0.25, -4.0)))[0]
    assert found == pytest.approx(0.5 * 2 + 2 * np.log(0.5) + 3 * 0.5 - 1)
    assert other == pytest.approx(0.25 * -1 - 4)


def test_without_weights_it_is_the_network():
    logits = np.linspace(-9, 9, 12, dtype=np.float32).reshape(3, 4)
    scores = np.linspace(-1, 1, 12, dtype=np.float32).clip(min=0).reshape(3, 4)
    np.testing.assert_allclose(fuse(logits, scores, Weights()), logits, rtol=1e-6)
    assert Sample(FusionOptions()).fit() == Weights()


def test_the_lines_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    contacts, labels = 300, 20
    logits = rng.normal(0, 2, (contacts, labels)).astype(np.float32)
    scores = (rng.random((contacts, labels)) * (rng.random((contacts, labels)) < 0.3)).astype("f4")
    truth = 0.7 * logits + 3 * scores - 2 * (scores == 0)
    gold = rng.random((contacts, labels)) < 1 / (1 + np.exp(-truth))
    labels_BxK = np.where(gold, np.arange(labels), -1)
    sample = Sample(FusionOptions(candidates=labels))
    for start in range(0, contacts, 77):  # batch by batch
        part = slice(start, start + 77)
        sample.add(logits[part], scores[part], labels_BxK[part])
    weights = sample.fit()

    def expected(rows, *features):
        x = np.stack([*(each[rows].astype(np.float64) for each in features)], axis=1)
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        model = LogisticRegression(C=1e3, fit_intercept=False, tol=1e-10, max_iter=10_000)
        return model.fit(x, gold[rows]).coef_[0]

    with np.errstate(divide="ignore"):
        logs = np.log(scores)
    found = expected(scores > 0, logits, logs, scores)
    np.testing.assert_allclose(weights.found, found, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(weights.other, expected(scores == 0, logits), rtol=1e-3, atol=1e-3)


def test_gold_labels_that_no_one_proposes_do_not_turn_the_line_over():
    rng = np.random.default_rng(1)
    logits = np.sort(rng.normal(0, 3, (200, 50)).astype(np.float32), axis=1)[:, ::-1]
    # The first label is likely gold, and the last always.
    gold = np.where(rng.random(200) < 1 / (1 + np.exp(-logits[:, 0] + 6)), 0, -1)
    labels_BxK = np.stack([gold, np.full(200, 49)], axis=1)
    sample = Sample(FusionOptions(candidates=5))
    sample.add(logits, np.zeros_like(logits), labels_BxK)
    slope, _ = sample.fit().other
    assert slope > 0


def test_what_can_be_told_apart_has_finite_weights():
    sample = Sample(FusionOptions(candidates=2))
    sample.add(
        np.array([[9.0, -9.0]] * 5, np.float32), np.zeros((5, 2), np.float32), np.zeros((5, 1), int)
    )
    assert np.isfinite(sample.fit().other).all()


def test_wrong_options_and_weights():
    with pytest.raises(ValueError, match="candidates = 0"):
        FusionOptions(candidates=0)
    with pytest.raises(ValueError, match="expected 4 and 2"):
        Weights((1.0,), (1.0, 0.0))
