"""One error budget over all tests of a target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtr, ndtri

from dpaudit.check import FloatArray, in_range
from dpaudit.errors import UsageError


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    bad = {name: weight for name, weight in weights.items() if not (np.isfinite(weight) and weight >= 0)}
    total = sum(weights.values())
    if bad or (weights and total <= 0):
        raise UsageError(f"Expected weights >= 0 with a positive sum, found {dict(weights)!r}. Set them so.")
    return {name: weight / total for name, weight in weights.items()}


def split(alpha: float, weights: Mapping[str, float]) -> dict[str, float]:
    """Weighted Bonferroni: shares of alpha in proportion to the weights, by name.

    Raises:
        UsageError: alpha outside (0, 1), a negative weight, or weights that sum to 0.
    """
    in_range("alpha", alpha, 0.0, 1.0, open_low=True, open_high=True)
    return {name: alpha * share for name, share in _shares(weights).items()}


def holm(p_values: Mapping[str, float], weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Adjusted p-values of the weighted Holm procedure: reject where adjusted <= alpha.

    Holm 1979 (Scandinavian Journal of Statistics 6). Controls the probability of any false
    rejection under every dependence. Costs O(k log k).

    Args:
        p_values: one per hypothesis.
        weights: relative importance by the same names, fixed before the data; equal by default. What
            weighs nothing is never rejected.

    Raises:
        UsageError: a p-value outside [0, 1], or weights for other names.
    """
    shares = _shares(dict.fromkeys(p_values, 1.0) if weights is None else weights)
    if set(shares) != set(p_values):
        raise UsageError(
            f"Expected weights for {sorted(p_values)!r}, found {sorted(shares)!r}. Name the same tests."
        )
    for name, value in p_values.items():
        in_range(f"p_values[{name!r}]", value, 0.0, 1.0)
    adjusted = dict.fromkeys(p_values, 1.0)
    weighty = [name for name in p_values if shares[name] > 0]
    left, running = 1.0, 0.0
    for name in sorted(weighty, key=lambda name: p_values[name] / shares[name]):
        running = max(running, min(p_values[name] * left / shares[name], 1.0))
        adjusted[name] = running
        left -= shares[name]
    return adjusted


def spend(alpha: float, looks: int, *, early: bool = True) -> FloatArray:
    """Alpha of each of a planned number of looks at growing data; the shares sum to alpha.

    By the spending functions of Lan and DeMets 1983 (Biometrika 70), used as a union bound, so that the looks
    may depend on each other in any way.

    Args:
        alpha: over all looks together.
        looks: how many are planned, equally spaced.
        early: spend evenly at first (Pocock's form); otherwise save nearly all for the last look
            (O'Brien and Fleming's form).

    Returns:
        (looks,) shares in order.

    Raises:
        UsageError: alpha outside (0, 1), or no look.
    """
    in_range("alpha", alpha, 0.0, 1.0, open_low=True, open_high=True)
    in_range("looks", looks, 1, float("inf"))
    time = np.arange(looks + 1) / looks
    if early:
        spent = alpha * np.log1p((np.e - 1) * time)
    else:
        spent = 2 * ndtr(ndtri(alpha / 2) / np.sqrt(np.maximum(time, 1e-300)))
    return np.diff(spent)
