import jax.numpy as jnp
import numpy as np

from jaxcoder.metrics.ranking import gold_ranks


def test_equal_probabilities_stand_in_the_order_of_labels():
    probabilities = jnp.array([[0.5, 0.9, 0.5, 0.5, 0.1]])
    assert gold_ranks(probabilities, jnp.array([[2, 0, 1, 4, 3]])).tolist() == [[3, 2, 1, 5, 4]]


def test_ranks_are_those_of_a_stable_sort():
    rng = np.random.default_rng(0)
    probabilities = np.round(rng.random((6, 40)), 1).astype(np.float32)
    labels = np.stack([rng.choice(40, 7, replace=False) for _ in range(6)]).astype(np.int32)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    position = np.argsort(order, axis=1)
    expected = 1 + np.take_along_axis(position, labels, axis=1)
    np.testing.assert_array_equal(
        gold_ranks(jnp.asarray(probabilities), jnp.asarray(labels)), expected
    )
