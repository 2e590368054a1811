"""Noise of one run, as it is taken down: its size in every parameter, and samples of it to test its law."""

from __future__ import annotations

import numpy as np

from dpaudit.check import FloatArray
from dpaudit.evidence import NoiseSample
from dpaudit.protocols import RowArray
from dpaudit.stats import noise_law

_KEPT_COORDINATES = 2048
_KEPT_DRAWS = 512
_KEPT_VALUES = 400_000
_REPEATED = 1e-4
_REMEMBERED = 20_000


class NoiseLog:
    """Draws of the noise, in units of the clipping norm and at the scale of the first step's claim."""

    def __init__(self, names: tuple[str, ...], sizes: tuple[int, ...], claimed: float, precision: float):
        self._names, self._sizes = names, sizes
        self._starts = np.cumsum([0, *sizes[:-1]])
        self.claimed = claimed
        self._precision = precision
        self.squares: FloatArray = np.zeros(len(sizes))
        self.draws = 0.0
        each = max(64, _KEPT_COORDINATES // len(sizes))
        self._parts = [
            slice(start, start + min(size, each)) for start, size in zip(self._starts, sizes, strict=True)
        ]
        self._kept: list[RowArray] = []
        self._largest: FloatArray = np.zeros((_REMEMBERED, noise_law.LARGEST))
        self._where: list[str] = []
        self.repeated: list[tuple[str, str]] = []
        self._ties = False

    def add(self, z: FloatArray, *, clip: float, claimed: float, where: str, draws: float = 1.0) -> None:
        """Take down one draw.

        Args:
            z: (d,) noise in the units of a release.
            clip: clipping norm at that step.
            claimed: noise multiplier at that step; under a schedule, steps are brought to one scale.
            where: the draw in words.
            draws: how many independent draws it is worth: less than 1 for deviations about an estimated mean.
        """
        scaled = z * ((self.claimed / claimed if claimed > 0 else 1.0) / clip)
        if self._was_there(scaled, where):
            return
        self.squares += np.add.reduceat(scaled**2, self._starts)
        self.draws += draws
        if len(self._kept) < _KEPT_DRAWS:
            self._kept.append(np.concatenate([scaled[part] for part in self._parts]).astype(np.float32))

    def _was_there(self, scaled: FloatArray, where: str) -> bool:
        """Whether these are the values of an earlier draw, in any order and with any sign."""
        if self._precision >= _REPEATED:
            return False
        largest = noise_law.largest(scaled)
        self._ties = self._ties or noise_law.tied(largest)
        count = len(self._where)
        same = noise_law.same_values(self._largest[:count], largest, rounding=_REPEATED)
        if same is not None:
            self.repeated.append((self._where[same], where))
            return True
        if largest.size and count < _REMEMBERED:
            self._largest[count] = largest
            self._where.append(where)
        return False

    def samples(self, within: FloatArray | None) -> tuple[NoiseSample, ...]:
        """What was measured of each parameter.

        Args:
            within: (parameters,) largest movement by one record in each, over the clipping norm.
        """
        return tuple(
            NoiseSample(
                where=name,
                sum_of_squares=float(square),
                count=round(size * self.draws),
                claimed_std=self.claimed,
                sensitivity=None if within is None else float(within[i]),
            )
            for i, (name, size, square) in enumerate(zip(self._names, self._sizes, self.squares, strict=True))
        )

    def law(self) -> tuple[tuple[str, float], ...]:
        """P-values of what normal noise that is drawn anew and independently must satisfy."""
        if len(self._kept) < 2:
            return ()
        z = np.stack(self._kept).astype(np.float64)
        parts = np.split(z, np.cumsum([part.stop - part.start for part in self._parts])[:-1], axis=1)
        parts = [part / np.sqrt(np.mean(part**2)) for part in parts if part.any()]
        joined = np.concatenate(parts, axis=1) if parts else z
        if not joined.any(axis=1).all() or not np.isfinite(joined).all():
            return ()
        # Scales may differ over parameters and over steps: the law is about what is left.
        height = np.sqrt(np.mean(joined**2, axis=1, keepdims=True))
        joined, unit = joined / height, [part / height for part in parts]
        values = joined.ravel()[:_KEPT_VALUES]
        raw = np.concatenate([row for row in self._kept])
        coarse = self._precision >= _REPEATED
        ties = self._ties or (not coarse and noise_law.tied(noise_law.largest(raw)))
        coordinates = [noise_law.independent_coordinates(part) for part in unit]
        evened = [part for part in map(noise_law.directions, parts) if part is not None]
        return (
            ("continuous law", 0.0 if ties else 1.0),
            ("normal law", noise_law.normal(values, rounding=self._precision)),
            ("independence of steps", noise_law.uncorrelated_steps(evened) if evened else 1.0),
            ("independence of coordinates", min(1.0, len(unit) * min(coordinates))),
            ("independence of parameters", min(1.0, _between(evened))),
        )


def _between(parts: list[FloatArray]) -> float:
    """P-value of "no two parameters share noise", coordinate for coordinate, Bonferroni over the pairs."""
    p_values = []
    for i, first in enumerate(parts):
        for second in parts[i + 1 : i + 9]:
            d = min(first.shape[1], second.shape[1])
            if first.shape[0] * d >= 32:
                one, other = noise_law.directions(first[:, :d]), noise_law.directions(second[:, :d])
                if one is not None and other is not None:
                    p_values.append(noise_law.shared(one, other))
    return len(p_values) * min(p_values, default=1.0)
