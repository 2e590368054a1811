"""What every target of a library shares: seeds that are drawn from `rng`, and outputs as arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def random_state(rng: np.random.Generator) -> np.random.RandomState:
    """A legacy generator whose 128 bits of seed come from `rng`, so that a release can be repeated."""
    words = rng.integers(0, 2**32, size=4, dtype=np.uint32)
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([int(word) for word in words])))


def repeated(release: Callable[[], Any], size: int) -> NDArray[Any]:
    """Call `release` `size` times and stack the outputs; (size,) or (size, ...).

    The type that the library returns is kept: int64 for integers, bool for truths, float64 for floats.
    """
    outputs = [release() for _ in range(size)]
    return np.array(outputs)


def scalar(data: Any) -> Any:
    """The one value that `data` is, as a Python number: libraries refuse arrays of shape ()."""
    return data.item() if isinstance(data, np.ndarray | np.generic) else data
