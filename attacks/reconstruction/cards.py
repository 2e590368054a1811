"""Test cards: pictures that the audit draws itself, so that a report can show some and show no record."""

from __future__ import annotations

import numpy as np

from dpaudit.check import FloatArray
from dpaudit.likeness import Panel
from dpaudit.protocols import RowArray

WIDEST = 32
"""Pixels of the longer side of a picture in a record."""


def cards(height: int, width: int, count: int) -> FloatArray:
    """Ring, cross, staircase and bars in turn, (count, height, width) from 0 to 1; later ones are turned."""
    y, x = (np.arange(size) - (size - 1) / 2 for size in (height, width))
    down, right = np.meshgrid(2 * y / height, 2 * x / width, indexing="ij")
    radius = np.hypot(down, right)
    drawn = (
        np.exp(-np.square((radius - 0.6) / 0.22)),
        np.maximum(np.abs(down) < 0.26, np.abs(right) < 0.26) * (radius < 1.0),
        np.clip(np.floor(2.0 * (down + right + 2.0)) / 7.0, 0.0, 1.0),
        (np.floor((right + 1.0) * 2.0) % 2 == 0) * (0.55 + 0.45 * down),
    )
    pictures = [np.rot90(each, 2) if i >= len(drawn) else each for i, each in enumerate(drawn * 8)]
    return np.stack([pictures[i % len(pictures)] for i in range(count)]).astype(np.float64)


def panels(
    pictures: RowArray | FloatArray, low: float, high: float, row: str, *, real: bool
) -> tuple[Panel, ...]:
    """Pictures (n, h, w) as grey levels, thinned to at most 32 pixels a side."""
    step = max(1, -(-max(pictures.shape[1:]) // WIDEST))
    levels = np.clip((pictures[:, ::step, ::step] - low) / max(high - low, 1e-300), 0.0, 1.0)
    grey = np.rint(np.nan_to_num(levels) * 255).astype(int)
    return tuple(
        Panel(row=row, column=i, pixels=tuple(map(tuple, each.tolist())), real=real)
        for i, each in enumerate(grey)
    )
