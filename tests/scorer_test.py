"""What an evaluation scores, and with which threshold: stubs stand for network and lexicon."""

import types

import jax
import numpy as np
import pytest
from sklearn.metrics import log_loss

from jaxcoder import scorer, sharding, trained
from jaxcoder.experiment import Experiment
from jaxcoder.fusion_weights import Weights
from jaxcoder.models.coder import CoderOptions
from jaxcoder.trained import TrainedCoder
from jaxcoder.tuned import Tuned

ROWS = sharding.batch_sharding(sharding.make_mesh(), sharding.DEFAULT_RULES)
LOGITS_BxL = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
SCORES_BxL = np.float32([[0.5, 0, 0], *[[0, 0, 0.25]] * 7])
TARGETS_BxL = np.float32([[1, 0, 0], *[[0, 1, 1]] * 7])
WEIGHTS = Weights((0.5, 2.0, -1.0, 3.0), (0.25, -2.0))
BATCH = {
    "tokens": np.zeros((8, 4), np.int32),
    "length": np.full(8, 4, np.int32),
    "labels": np.zeros((8, 8), np.int32),
    "_mask": np.ones(8, bool),
    "index": np.arange(8, dtype=np.int32),
}


def make_coder(tuned=None, lexicon=None):
    """A coder whose network gives LOGITS_BxL."""
    result = {"logits": LOGITS_BxL, "targets": TARGETS_BxL, "loss": np.zeros(8, np.float32)}
    placed = sharding.put_batch(result, ROWS)
    steps = types.SimpleNamespace(batch_sharding=ROWS, evaluate=lambda params, batch: placed)
    space = types.SimpleNamespace(hash="of the label space")
    return TrainedCoder(
        Experiment(), space, None, CoderOptions(), 7, tuned, 0.5, lexicon, steps, params=None
    )


def test_the_loss_of_a_fused_coder_is_that_of_its_probabilities():
    score = scorer.fused_score(make_coder(), WEIGHTS, lambda batch: SCORES_BxL)
    p_BxL, loss_B = jax.device_get(score(BATCH))
    first = 0.5 * LOGITS_BxL[0, 0] + 2 * np.log(0.5) - 0.5 + 3
    assert p_BxL[0, 0] == pytest.approx(1 / (1 + np.exp(-first)), rel=1e-5)
    for row, loss in enumerate(loss_B):
        expected = log_loss(TARGETS_BxL[row], p_BxL[row].astype(np.float64), normalize=False)
        assert loss == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def make_scorer(monkeypatch):
    """Makes a scorer of a coder; fusion that has to be fitted gets the weights `fitted`."""

    def make(coder, baseline=""):
        monkeypatch.setattr(
            trained,
            "restore",
            lambda workdir, which, alone=False: make_coder(coder.tuned) if alone else coder,
        )
        monkeypatch.setattr(scorer, "fit_fusion", lambda coder, data, scores: Weights())
        monkeypatch.setattr(scorer, "split_scores", lambda *_: lambda batch: SCORES_BxL)
        return scorer.make_scorer(None, None, baseline, "best")

    return make


def test_what_was_tuned_for_a_fused_coder_is_used_and_not_fitted_anew(make_scorer):
    lexicon = object()
    made = make_scorer(make_coder(Tuned(0.25, WEIGHTS), lexicon))
    assert (made.fusion, made.tuned) == (WEIGHTS, Tuned(0.25, WEIGHTS))
    assert made.details["fusion"] == {"found": WEIGHTS.found, "other": WEIGHTS.other}
    p_BxL, _ = made.score_of(None, "test")(BATCH)
    expected, _ = scorer.fused_score(make_coder(), WEIGHTS, lambda batch: SCORES_BxL)(BATCH)
    np.testing.assert_array_equal(p_BxL, expected)
    made = make_scorer(make_coder(None, lexicon))
    assert (made.fusion, made.tuned) == (Weights(), None)


def test_a_network_alone_hears_no_lexicon(make_scorer):
    made = make_scorer(make_coder(Tuned(0.25), object()), "network")
    assert (made.fusion, made.tuned, made.details["baseline"]) == (None, Tuned(0.25), "network")
    p_BxL, _ = made.score_of(None, "test")(BATCH)
    np.testing.assert_allclose(p_BxL, 1 / (1 + np.exp(-LOGITS_BxL)), rtol=1e-5)
