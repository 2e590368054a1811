"""How near something rebuilt comes to its original: in a number, and in a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How near rebuilt records come to the originals.

    Attributes:
        name: "ssim", "psnr" and "psnr, no box" (dB), "correlation", "average" (correlation with the average
            of a class), "mean record" (dB, where that is guessed), or shares of records: "rebuilt",
            "features", "labels", "beyond known" (nearer than any that the adversary has), "beyond others"
            (nearer than any that was not trained on), "picked" (of the candidates).
        mean: over the records; NaN without any.
        lower: of a 95 % interval for that mean; it describes, and no verdict rests on it. None without one.
        upper: its other end.
        n: how many records.
        blind: the same measure for a guess made without the release; None where there is none.
        bound: what the mechanism allows an adversary with no prior at all to expect; None where nothing does.
    """

    name: str
    mean: float
    lower: float | None
    upper: float | None
    n: int
    blind: float | None = None
    bound: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A small picture for a report.

    Attributes:
        row: what it is: "original", or the condition under which it was rebuilt.
        column: which of the pictures.
        pixels: (h, w) grey levels from 0 to 255.
        real: whether it shows a record of the data; those are kept only where the plan asks for it.
    """

    row: str
    column: int
    pixels: tuple[tuple[int, ...], ...]
    real: bool


def picture(shape: tuple[int, ...], height: int, width: int) -> tuple[int, int] | None:
    """Height and width of a record of this shape as a picture; None where it is none.

    Args:
        shape: (h, w) or (channels, h, w), or of a flat row whose pixels are `height` times `width`.
        height: 0 to go by the shape.
        width: likewise.
    """
    if height * width and height * width == math.prod(shape):
        return height, width
    return (shape[-2], shape[-1]) if len(shape) > 1 and min(shape[-2:]) > 2 else None
