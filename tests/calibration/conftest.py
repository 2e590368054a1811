"""What all calibrations share: tests of the claim without the search for a bound, and a printed verdict."""

import numpy as np
import pytest
from scipy.stats import norm

from dpaudit.stats import clusters, known_null, noise, reconstruction, two_sample


@pytest.fixture
def only_tests(monkeypatch):
    """Leave out the searches for bounds, whose cost is that of thirty tests."""
    for module in (clusters, known_null, noise, reconstruction):
        monkeypatch.setattr(module, "epsilon_at", lambda *_: 0.0)
        monkeypatch.setattr(module, "detectable_epsilon", lambda *_: None)
    monkeypatch.setattr(two_sample, "_epsilon", lambda *_: 0.0)
    monkeypatch.setattr(two_sample, "detectable_epsilon", lambda *_: None)


@pytest.fixture
def attained():
    """Print the share of p-values at or below alpha, and hold it against alpha."""

    def check(what, p_values, alpha):
        p_values = np.asarray(p_values)
        level = float(np.mean(p_values <= alpha))
        most = alpha + 3 * np.sqrt(alpha * (1 - alpha) / p_values.size)
        print(f"{what}: refuted {level:.2%} of {p_values.size} true claims at nominal {alpha:.0%}")
        assert level <= most
        return level

    return check


@pytest.fixture
def ranked():
    """Optimal rank p-values against a mu-GDP mechanism, of any shape."""

    def draw(rng, mu, shape, n_references):
        scores = rng.normal(mu, 1.0, shape)
        return (1 + rng.binomial(n_references, norm.sf(scores))) / (n_references + 1)

    return draw
