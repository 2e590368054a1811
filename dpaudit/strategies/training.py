"""Gradients, phases and ledgers of training, for testing clipping and accounting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from dpaudit.check import FloatArray
from dpaudit.claim import Ledger, Phase


def gradients(
    *,
    max_batch: int = 8,
    max_dimension: int = 16,
    min_batch: int = 0,
    max_grad_norm: float = 1.0,
    finite: bool = True,
    largest: float = 1e30,
    dtype: DTypeLike = np.float32,
) -> st.SearchStrategy[NDArray[Any]]:
    """Per-record gradients (b, d) whose rows are chosen to upset clipping.

    Rows are zero, tiny (down to subnormal), huge, of norm exactly `max_grad_norm` or one ulp off,
    in one coordinate only, equal to the row before, its negative, or ordinary.

    Args:
        max_batch: largest b.
        max_dimension: largest d; the least is 1.
        min_batch: least b; 0 includes the empty Poisson batch.
        max_grad_norm: the clipping norm that the code under test uses.
        finite: False adds rows with a NaN or an infinity in one coordinate.
        largest: magnitude of the huge rows.
        dtype: of the array.
    """
    kinds = [*_ROWS, *([] if finite else ["nan", "inf", "-inf"])]

    def batch(dimension: int, drawn: list[str], seed: int) -> NDArray[Any]:
        rng = np.random.default_rng(seed)
        rows = np.zeros((len(drawn), dimension))
        for i, kind in enumerate(drawn):
            rows[i] = _row(kind, rows[i - 1] if i else rows[i], max_grad_norm, largest, rng)
        with np.errstate(over="ignore", under="ignore"):
            return rows.astype(dtype)

    return st.builds(
        batch,
        st.integers(1, max_dimension),
        st.lists(st.sampled_from(kinds), min_size=min_batch, max_size=max_batch),
        st.integers(0, 2**32 - 1),
    )


def phases(
    *,
    noise: tuple[float, float] = (0.5, 10.0),
    rate: tuple[float, float] = (1e-4, 1.0),
    max_steps: int = 1000,
    norm: tuple[float, float] = (1e-3, 100.0),
) -> st.SearchStrategy[Phase]:
    """Settings of a stretch of DP-SGD training.

    Args:
        noise: least and greatest noise multiplier.
        rate: least and greatest sampling rate.
        max_steps: greatest number of steps; the least is 1.
        norm: least and greatest clipping norm.
    """
    return st.builds(
        Phase,
        noise_multiplier=st.floats(*noise),
        sample_rate=st.floats(*rate),
        steps=st.integers(1, max_steps),
        max_grad_norm=st.floats(*norm),
    )


def ledgers(
    phase: st.SearchStrategy[Phase] | None = None, *, max_phases: int = 3
) -> st.SearchStrategy[Ledger]:
    """Ledgers of one to `max_phases` phases; some repeat a phase, as a resumed run does."""
    one = phases() if phase is None else phase
    repeated = st.builds(lambda p, n: (p,) * n, one, st.integers(1, max_phases))
    return st.lists(one, min_size=1, max_size=max_phases).map(tuple) | repeated


_ROWS = (
    "zero",
    "ordinary",
    "unit",
    "above",
    "below",
    "one-hot",
    "huge",
    "tiny",
    "subnormal",
    "same",
    "opposite",
)


def _row(kind: str, before: FloatArray, norm: float, largest: float, rng: np.random.Generator) -> FloatArray:
    """One gradient row (d,) of the named kind; `before` is the row above it."""
    ordinary = rng.normal(size=before.shape)
    unit = ordinary / np.linalg.norm(ordinary)
    single = np.zeros_like(ordinary)
    single[rng.integers(single.size)] = 1.0
    special = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    if kind in special:
        return np.asarray(np.where(single == 1.0, special[kind], ordinary))
    rows: dict[str, FloatArray] = {
        "zero": 0.0 * single,
        "ordinary": ordinary * 10.0 ** rng.uniform(-2, 3),
        "unit": unit * norm,
        "above": unit * norm * (1 + 2.0**-23),
        "below": unit * norm * (1 - 2.0**-24),
        "one-hot": single * norm * 10.0 ** rng.uniform(0, 6),
        "huge": unit * largest,
        "tiny": unit * 1e-30,
        "subnormal": single * 1.5e-45,
        "same": before,
        "opposite": -before,
    }
    return rows[kind]
