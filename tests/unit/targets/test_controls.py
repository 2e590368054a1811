"""Correct uses of Opacus are never accused, and the audit still sees their noise.

Each p-value is uniform at least, so a level of 1e-6 makes a false alarm of this whole file a matter of 1e-4.
"""

import pytest

from dpaudit.evidence import BLIND, Note, Replay
from tests.training import (
    Tokens,
    audited,
    dp_sgd,
    findings,
    half_frozen,
    p_values,
)

LEVEL = 1e-6
# With step canaries, which the audits of `test_zoo` leave out; the other correct uses are there.
CONTROLS = {
    "reference": dp_sgd(),
    "functorch": dp_sgd(grad_sample_mode="functorch"),
    "per layer": dp_sgd(clipping="per_layer", max_grad_norm=[0.5] * 4),
    "adaptive": dp_sgd(
        clipping="adaptive",
        target_unclipped_quantile=0.5,
        clipbound_learning_rate=0.2,
        max_clipbound=10.0,
        min_clipbound=0.1,
        unclipped_num_std=2.0,
    ),
    "virtual batches": dp_sgd(micro_batch=6),
    "closure": dp_sgd(closure=True),
    "frozen layer": dp_sgd(model=half_frozen),
    "embedding": dp_sgd(model=Tokens),
    "sum reduction": dp_sgd(loss_reduction="sum"),
}
QUICK = ("reference", "functorch", "per layer", "virtual batches", "frozen layer", "sum reduction")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CONTROLS]
)
def test_a_correct_run_is_not_accused_and_its_noise_is_seen(name: str) -> None:
    view = audited(CONTROLS[name])
    assert findings(view) == []
    found = p_values(view)
    assert set(found) == {"replay", "step-canary"}
    assert min(found.values()) > LEVEL, found


def test_ghost_clipping_is_not_accused_and_its_clip_is_tested() -> None:
    view = audited(dp_sgd(grad_sample_mode="ghost"))
    assert findings(view) == []
    assert min(p_values(view).values()) > LEVEL
    assert not {e.check for e in view.evidence if isinstance(e, Note)} & set(BLIND)
    replay = next(e for e in view.evidence if isinstance(e, Replay))
    assert 0.99 < replay.sensitivity < 1.001 and "ghost mode" in replay.sensitivity_where
