import types

import jax
import numpy as np
import pytest
from sklearn.metrics import log_loss

from jaxcoder import baseline, experiment, sharding
from jaxcoder.errors import UserError
from jaxcoder.records.codes import LabelSpace
from jaxcoder.records.schema import Contact, Note
from jaxcoder.tokens.serialise import SerialiseOptions

SPACE = LabelSpace(("A00", "I10", "J45.9"))
ROWS = sharding.batch_sharding(sharding.make_mesh(), sharding.DEFAULT_RULES)


class Words:
    """A baseline that finds a code where its word stands; Z99 is outside the label space."""

    codes = {"cholera": {"A00": 0.5}, "asthma": {"J45.9": 1.0, "Z99": 0.75}}

    def scores(self, text):
        return {
            code: score
            for word, codes in self.codes.items()
            for code, score in codes.items()
            if word in text
        }


def test_each_row_of_a_batch_has_the_scores_of_its_contact():
    notes = ("cholera", "none", "asthma and cholera")
    contacts = [Contact(str(n), "p", notes=(Note(text),)) for n, text in enumerate(notes)]
    held = types.SimpleNamespace(split={"test": contacts}.__getitem__)
    data = types.SimpleNamespace(
        contacts=lambda: held, label_space=SPACE, serialise=SerialiseOptions()
    )
    score = baseline.split_scores(Words(), data, "test")
    scores_BxL = score({"index": np.array([2, -1, 0, 1])})  # -1 is a padding row
    expected = [[0.5, 0, 1], [0, 0, 0], [0.5, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(scores_BxL, np.float32(expected))


def test_the_loss_of_a_baseline_is_finite_where_it_is_sure_and_wrong():
    scores_BxL = np.tile(np.float32([0.5, 0.0, 1.0]), (8, 1))
    labels_BxK = np.full((8, 4), -1, np.int32)
    labels_BxK[0, :2] = [0, 2]  # right; row 1 has label 1, which is sure to be wrong; others none
    labels_BxK[1, 0] = 1
    score = baseline.baseline_score(lambda batch: scores_BxL, ROWS)
    p_BxL, loss_B = jax.device_get(score({"labels": labels_BxK}))
    np.testing.assert_array_equal(p_BxL, scores_BxL)
    p_L = np.clip(scores_BxL[0].astype(np.float64), 1e-6, 1 - 1e-6)
    for row, gold in enumerate([[1, 0, 1], [0, 1, 0], [0, 0, 0]]):
        # float32 has 1 − 1e-6 to within 6 %, so its logarithm to within 0.06.
        assert loss_B[row] == pytest.approx(
            log_loss(gold, p_L, labels=[0, 1], normalize=False), abs=0.1
        )


@pytest.mark.parametrize(
    ("loss", "has", "wants"),
    [
        ({"evidence_weight": 1.0}, "silver", "gold"),
        ({"evidence_weight": 1.0, "silver_weight": 1.0}, "silver", "gold"),
        ({"silver_weight": 1.0}, "gold", "silver"),
        ({}, "gold", "silver"),
    ],
)
def test_evidence_that_training_does_not_have_is_named_with_a_remedy(loss, has, wants):
    report = {"splits": {"train": {"evidence": {has: {"kept": 5}, wants: {"cut": 2}}}}}
    data = types.SimpleNamespace(path="tokens", report=report)
    with pytest.raises(UserError, match=f"no {wants} evidence.*fusion.enabled = False") as error:
        baseline.fit_evidence_lexicon(data, experiment.read({"loss": loss}))
    # With gold evidence in the loss silver alone does not help.
    assert ("with config.loss.evidence_weight = 0" in str(error.value)) == (wants == "gold")
