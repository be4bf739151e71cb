import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from jaxcoder.metrics.isotonic import Isotonic


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_is_that_of_scikit_learn_with_ties_and_weights(seed):
    rng = np.random.default_rng(seed)
    x, weight = np.round(rng.random(300), 2), rng.integers(0, 5, 300)
    y = (rng.random(300) < x).astype(float)
    line = Isotonic.fit(x, y, weight)
    kept = weight > 0
    theirs = IsotonicRegression(out_of_bounds="clip").fit(x[kept], y[kept], weight[kept])
    asked = np.linspace(-0.5, 1.5, 401)
    np.testing.assert_allclose(line(asked), theirs.predict(asked), atol=1e-9)
    assert (np.diff(line(asked)) >= 0).all()


def test_nothing_to_fit_is_refused():
    with pytest.raises(ValueError, match="at least one point"):
        Isotonic.fit(np.array([1.0]), np.array([1.0]), np.array([0]))
    with pytest.raises(ValueError, match="finite"):
        Isotonic.fit(np.array([np.nan]), np.array([1.0]))
