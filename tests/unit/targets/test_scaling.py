"""How far a record moves a clipped sum whose terms the batch divides, against a loop over neighbours."""

from collections.abc import Callable

import pytest
import torch

from dpaudit.targets.scaling import Rows, candidates, movement

ROWS = 8


def gradients(weights: torch.Tensor, *, divided: bool) -> tuple[torch.Tensor, Callable[[torch.Tensor], Rows]]:
    """Gradients of single records, and those of a batch of them in two parameters."""
    single = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(0)).double()

    def played(index: torch.Tensor) -> Rows:
        chosen = weights[index]
        divisor = chosen.mean() if divided else 2.0
        rows = single[index] * (chosen / divisor)[:, None]
        return [rows[:, :2], rows[:, 2:]]

    return single, played


def naive(played: Callable[[torch.Tensor], Rows], clip: float) -> float:
    """The farthest of all neighbours whose other records are copies of one, or half of two."""
    farthest = 0.0
    for most in range(ROWS):
        for others in range(ROWS):
            sums = []
            for one in range(ROWS):
                index = torch.tensor([most] * (ROWS // 2) + [one] + [others] * (ROWS // 2 - 1))
                total = torch.zeros(5).double()
                for row in torch.cat(list(played(index)), dim=1):
                    total += row * min(1.0, clip / (float(row.norm()) + 1e-6))
                sums.append(total)
            farthest = max([farthest, *(float((a - b).norm()) / clip for a in sums for b in sums)])
    return farthest


@pytest.mark.parametrize(("divided", "clip"), [(True, 3.0), (True, 1e-3), (False, 3.0), (False, 1.0)])
def test_movement_agrees_with_a_loop(divided: bool, clip: float) -> None:
    weights = torch.tensor([0.1, 0.1, 0.1, 1.0, 1.0, 5.0, 5.0, 5.0]).double()
    _, played = gradients(weights, divided=divided)
    found = movement(played, range(ROWS), ROWS, clip)
    assert found is not None
    # The loop takes two records in both orders, of which one has a copy more.
    assert found <= naive(played, clip) * (1 + 1e-9)
    assert (found > 2) == (naive(played, clip) > 2) == (divided and clip == 3.0)


def test_what_is_not_finite_is_not_measured() -> None:
    assert movement(lambda index: [torch.full((ROWS, 2), torch.nan)], [0, 1], ROWS, 1.0) is None


def test_candidates_are_of_all_labels_and_below_the_clip_where_some_are() -> None:
    norms = torch.tensor([0.5, 3.0, 0.9, 2.0, 5.0])
    assert candidates(norms, torch.tensor([0, 0, 0, 1, 1]), 1.0) == [2, 3, 1, 4]
    assert candidates(norms, torch.zeros(5).long(), 10.0) == [4]
    alone = candidates(norms, None, 1.0)
    assert 0 in alone or 2 in alone
    assert len(alone) <= 4
