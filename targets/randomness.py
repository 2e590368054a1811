"""The random state of training, put back after whatever is executed beside it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizer


class ReplayRandomness:
    """Random states of re-executed steps, apart from that of training, which is left as it was found.

    `frozen` replays all start from the state in which the real step will start; `fresh` ones go on
    in a stream of their own. numpy's and Python's global generators are kept, too: some noise is drawn there.
    """

    def __init__(self, optimizer: DPOptimizer | None = None, seed: int = 0):
        self._optimizer = optimizer
        self._seed = seed
        self._stream: list[Any] | None = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Restore the state at exit, so that the next call starts from it again."""
        before = self.state()
        try:
            yield
        finally:
            self.set(before)

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Draw from the replay stream and keep its place for the next call."""
        before = self.state()
        if self._stream is None:
            for generator in self._generators():
                generator.manual_seed(self._seed)
            np.random.seed(self._seed % 2**32)
            random.seed(self._seed)
        else:
            self.set(self._stream)
        try:
            yield
        finally:
            self._stream = self.state()
            self.set(before)

    def _generators(self) -> list[torch.Generator]:
        generators = [torch.default_generator]
        if torch.cuda.is_available():
            generators += list(torch.cuda.default_generators)
        own = getattr(self._optimizer, "generator", None)
        if isinstance(own, torch.Generator):
            generators.append(own)
        return generators

    def of_torch(self) -> list[torch.Tensor]:
        """State of the generators that noise is drawn from."""
        return [generator.get_state() for generator in self._generators()]

    def state(self) -> list[Any]:
        """Of every generator."""
        return [np.random.get_state(), random.getstate(), *self.of_torch()]

    def set(self, states: list[Any]) -> None:
        """Put back what `state` returned."""
        np.random.set_state(states[0])
        random.setstate(states[1])
        for generator, state in zip(self._generators(), states[2:], strict=False):
            generator.set_state(state)
