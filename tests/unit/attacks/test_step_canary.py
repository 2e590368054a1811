"""Step canaries of either kind against a Gaussian step that is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from dpaudit.attacks.step_canary import StepCanary
from dpaudit.errors import UsageError
from dpaudit.evidence import KnownNull
from dpaudit.stats import ranks
from dpaudit.stats.tradeoff import Gaussian
from tests.training import canaries

KINDS = pytest.mark.parametrize("kind", ["random", "dirac"])


class GaussianStep:
    """A step over d coordinates that clips to 1, sums and adds noise."""

    def __init__(self, d: int, noise: float, rng: np.random.Generator):
        self.sizes, self.index, self.phase, self.optimizer = (d,), 0, 0, 0
        self.max_grad_norm = 1.0
        self._noise, self._rng = noise, rng
        self._others = rng.normal(size=d).astype(np.float32)

    def release(self, *, insert=None, noise=True, clip=True):
        total = self._others.copy()
        if insert is not None:
            norm = float(np.linalg.norm(insert))
            total += insert / max(norm, 1.0) if clip else insert
        if noise:
            total += self._rng.normal(0, self._noise, total.size).astype(np.float32)
        return total


def ranked(kind: str, noise: float, steps: int, *, inserted: bool = True, d: int = 600) -> KnownNull:
    rng = np.random.default_rng(3)
    step = GaussianStep(d, noise, rng)
    session = StepCanary(kind=kind, references=400, replays=20).begin(canaries(), rng)
    for _ in range(steps):
        row = session.observe(step)
        session.released(step.release(insert=row if inserted else None))
    (evidence,) = session.evidence()
    return evidence


@KINDS
def test_ranks_are_those_of_a_gaussian_mechanism(kind: str) -> None:
    evidence = ranked(kind, 1.0, 60)
    scores = ranks.normal_score(evidence.p_values, evidence.n_references)
    expected, variance = ranks.moments(Gaussian(mu=1.0), evidence.n_references)
    assert evidence.n_references == 400
    # Directions in few dimensions are not orthogonal, so that the canary lifts its rivals a little, too.
    assert abs(scores.mean() - expected) < 4 * np.sqrt(variance / scores.size) + 0.03


@KINDS
def test_without_the_canary_ranks_are_uniform(kind: str) -> None:
    evidence = ranked(kind, 1.0, 400, inserted=False)
    real = evidence.p_values[20::21]
    assert abs(np.mean(real <= 0.1) - 0.1) < 3.5 * np.sqrt(0.09 / real.size)
    assert abs(np.mean(real) - 0.5) < 3.5 * np.sqrt(1 / 12 / real.size)


def test_dirac_canaries_make_do_with_the_coordinates_that_there_are() -> None:
    assert ranked("dirac", 1.0, 2, d=30).n_references == 29


def test_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="dirac"):
        StepCanary(kind="diract")
