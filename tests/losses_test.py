import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcoder import losses
from jaxcoder.losses import GOLD, SILVER, LossOptions

LOGITS = np.array([[0.0, 2.0, -1.0, 3.0], [1.0, -2.0, 0.5, -4.0], [9.0, 9.0, 9.0, 9.0]], np.float32)
LABELS = np.array([[1, 3, -1], [2, -1, -1], [-1, -1, -1]], np.int32)
TARGETS = np.array([[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], np.float32)
MASK = np.array([True, True, False])


def test_labels_become_targets_and_padding_does_not():
    np.testing.assert_array_equal(losses.multi_hot(LABELS, 4), TARGETS)
    twice = np.array([[2, 2, -1]], np.int32)
    np.testing.assert_array_equal(losses.multi_hot(twice, 4), [[0, 0, 1, 0]])


def test_cross_entropy_is_summed_over_labels_and_averaged_over_real_documents():
    batch = {"labels": LABELS, "_mask": MASK}
    loss, metrics = losses.coder_loss(LOGITS, None, batch, LossOptions())
    by_optax = optax.sigmoid_binary_cross_entropy(LOGITS, TARGETS).sum(-1)
    assert float(loss) == pytest.approx(float(by_optax[0] + by_optax[1]) / 2, rel=1e-6)
    assert metrics.keys() == {"loss", "bce"}
    # log 2, log(1 + e^-2), log(1 + e^-1), log(1 + e^-3), by hand
    assert float(by_optax[0]) == pytest.approx(0.693147 + 0.126928 + 0.313262 + 0.048587, abs=1e-5)


def test_no_real_document_is_no_loss():
    batch = {"labels": LABELS, "_mask": np.zeros(3, bool)}
    assert float(losses.coder_loss(LOGITS, None, batch, LossOptions())[0]) == 0


def test_cross_entropy_of_sure_logits_is_finite():
    sure = jnp.array([[1e4, -1e4]])
    loss, gradient = jax.value_and_grad(
        lambda logits: losses.document_loss(logits, jnp.array([[0.0, 1.0]])).sum()
    )(sure)
    assert float(loss) == pytest.approx(2e4)
    np.testing.assert_allclose(gradient, [[1, -1]])


def test_label_smoothing_moves_the_targets():
    ours = losses.document_loss(LOGITS, TARGETS, 0.2)
    smooth = np.where(TARGETS == 1, 0.9, 0.1)
    np.testing.assert_allclose(
        ours, optax.sigmoid_binary_cross_entropy(LOGITS, smooth).sum(-1), rtol=1e-6
    )


ATTENTION = np.array(
    [
        [[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]],
        [[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]],
        [[0.9, 0.1, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]],
    ],
    np.float32,
)
LOG_ATTENTION = np.log(np.maximum(ATTENTION, 1e-30))
EVIDENCE = np.array(
    [
        # Two spans of one label that overlap: tokens 1, 2 and 3, each counted once.
        [[0, 1, 3, GOLD], [0, 2, 4, GOLD], [1, 0, 1, SILVER], [-1, 0, 4, GOLD]],
        [[0, 1, 2, GOLD], [0, 0, 0, SILVER], [-1, 0, 0, 0], [-1, 0, 0, 0]],
        [[0, 1, 2, GOLD], [0, 1, 2, SILVER], [-1, 0, 0, 0], [-1, 0, 0, 0]],  # a padding row
    ],
    np.int32,
)


def test_evidence_loss_by_hand():
    batch = {"labels": LABELS, "_mask": MASK, "evidence": EVIDENCE}
    options = LossOptions(evidence_weight=2.0, silver_weight=0.5)
    loss, metrics = losses.coder_loss(LOGITS, LOG_ATTENTION, batch, options)
    gold = -(np.log(0.2 + 0.3 + 0.4) + np.log(0.5)) / 2  # two labels have a gold span
    silver = -np.log(0.7)  # the empty span of document 1 is none
    assert float(metrics["evidence_loss"]) == pytest.approx(gold, rel=1e-5)
    assert float(metrics["silver_loss"]) == pytest.approx(silver, rel=1e-5)
    assert float(loss) == pytest.approx(float(metrics["bce"]) + 2 * gold + 0.5 * silver, rel=1e-5)


def test_evidence_loss_without_evidence_is_nothing():
    batch = {"labels": LABELS, "_mask": MASK, "evidence": np.full_like(EVIDENCE, -1)}
    options = LossOptions(evidence_weight=1.0)

    def loss(log_attention):
        return losses.coder_loss(LOGITS, log_attention, batch, options)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(LOG_ATTENTION))
    assert float(value) == pytest.approx(
        float(losses.coder_loss(LOGITS, None, batch, LossOptions())[0])
    )
    assert np.all(gradient == 0)


def test_a_span_outside_the_document_is_none():
    log_attention = LOG_ATTENTION.copy()
    log_attention[1, 0, 1] = -1e9  # padding, and all of the span of document 1
    total, count = losses.evidence_loss(log_attention, LABELS, EVIDENCE, GOLD)
    assert float(count) == 1
    assert float(total) == pytest.approx(-np.log(0.9), rel=1e-5)


def test_evidence_gradient_moves_attention_into_the_span():
    def loss(scores):
        total, count = losses.evidence_loss(
            jax.nn.log_softmax(scores, axis=-1), LABELS, EVIDENCE, GOLD
        )
        return total / count

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(LOG_ATTENTION)))
    assert np.all(gradient[0, 0, 1:] < 0) and gradient[0, 0, 0] > 0
    assert np.all(gradient[0, 1:] == 0)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"evidence_weight": -1.0}, "evidence_weight = -1.0: expected at least 0"),
        ({"silver_weight": -0.5}, "silver_weight = -0.5: expected at least 0"),
        ({"label_smoothing": 1.0}, "label_smoothing = 1.0: expected"),
    ],
)
def test_wrong_options_say_what_was_expected(values, message):
    with pytest.raises(ValueError, match=message):
        LossOptions(**values)
