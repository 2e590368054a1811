"""Training under observation: every Opacus engine and optimizer that is made inside is instrumented.

The training code runs unchanged. What ran is written down as it runs (the ledger), and each step is
offered to the step attacks before it happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

import numpy as np
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import (
    DistributedUniformWithReplacementSampler,
    UniformWithReplacementSampler,
)

from dpaudit.canary import Canaries
from dpaudit.claim import Adjacency, Claim, Ledger, Phase, Sampler
from dpaudit.evidence import Evidence, Finding
from dpaudit.protocols import StepAttack, StepSession
from dpaudit.targets.probe import OptimizerProbe

_ACTIVE: ContextVar[Observation | None] = ContextVar("observation", default=None)
_POISSON = (UniformWithReplacementSampler, DistributedUniformWithReplacementSampler)


class Observation:
    """What was seen of one training run."""

    def __init__(self, attacks: Sequence[StepAttack], canaries: Canaries, rng: np.random.Generator):
        self._rng = rng
        self._unused: Sequence[StepSession] = tuple(attack.begin(canaries, rng) for attack in attacks)
        self.sessions = self._unused
        self.engine: PrivacyEngine | None = None
        self._sampling: dict[int, tuple[float, Sampler]] = {}
        self._phases: list[Phase] = []
        self.batch_sizes: list[int] = []
        self.dataset_size = int(canaries.member.sum())

    def claim_sessions(self) -> Sequence[StepSession]:
        """Hand the sessions to the first optimizer that steps; later ones are only counted."""
        sessions, self._unused = self._unused, ()
        return sessions

    def seed(self) -> int:
        """A seed for the random stream of re-executed steps."""
        return int(self._rng.integers(2**62))

    def engine_made(self, engine: PrivacyEngine, optimizer: DPOptimizer, loader: Any) -> None:
        """Write down how the loader that Opacus returned draws its batches."""
        self.engine = engine
        sampler = getattr(loader, "batch_sampler", None)
        self.dataset_size = len(loader.dataset)
        if isinstance(sampler, _POISSON):
            self._sampling[id(optimizer)] = (float(sampler.sample_rate), Sampler.POISSON)
        else:
            self._sampling[id(optimizer)] = (1.0 / len(loader), Sampler.SHUFFLE)

    def step_made(self, optimizer: DPOptimizer, batch_size: int | None) -> int:
        """Enter one noisy step into the ledger and return the index of its phase."""
        rate, sampler = self._sampling.get(id(optimizer), (1.0, Sampler.UNKNOWN))
        norm = float(np.linalg.norm(np.atleast_1d(np.asarray(optimizer.max_grad_norm, dtype=float))))
        noise = float(optimizer.noise_multiplier)
        if batch_size is not None:
            self.batch_sizes.append(batch_size)
        last = self._phases[-1] if self._phases else None
        if last and (last.noise_multiplier, last.sample_rate, last.max_grad_norm) == (noise, rate, norm):
            steps = last.steps + 1
            self._phases.pop()
        else:
            steps = 1
        self._phases.append(
            Phase(noise_multiplier=noise, sample_rate=rate, steps=steps, max_grad_norm=norm, sampler=sampler)
        )
        return len(self._phases) - 1

    @property
    def ledger(self) -> Ledger:
        """The phases as they ran."""
        return tuple(self._phases)

    def claim(self, delta: float) -> Claim | None:
        """What the run's own accountant states, with the ledger as it ran; None without an engine."""
        if self.engine is None:
            return None
        history = self.engine.accountant.history
        epsilon = float(self.engine.get_epsilon(delta)) if history else 0.0
        return Claim(
            epsilon=max(epsilon, 0.0),
            delta=delta,
            adjacency=Adjacency.ADD_REMOVE,
            ledger=self.ledger,
            source=f"opacus {self.engine.accountant.mechanism()} accountant",
            dataset_size=self.dataset_size,
        )

    def accounted(self) -> Ledger:
        """The phases that the run's accountant was told of."""
        history = self.engine.accountant.history if self.engine is not None else []
        return tuple(
            Phase(noise_multiplier=float(sigma), sample_rate=float(rate), steps=int(steps))
            for sigma, rate, steps in history
        )

    def evidence(self) -> tuple[Evidence, ...]:
        """What the step attacks collected."""
        return tuple(item for session in self.sessions for item in session.evidence())

    def findings(self) -> tuple[Finding, ...]:
        """Contradictions between the sampling that was declared and the batches that came.

        A Poisson sampler's batch sizes have variance N*q*(1-q). That all of at least 20 batches but the
        last of an epoch have one size, where the expected variance is above 4, has a probability
        below (0.2)^19 under Poisson sampling: it is treated as certain.
        """
        poisson = [p for p in self._phases if p.sampler is Sampler.POISSON]
        if not poisson or len(self.batch_sizes) < 20:
            return ()
        rate = poisson[0].sample_rate
        variance = self.dataset_size * rate * (1 - rate)
        _, counts = np.unique(self.batch_sizes, return_counts=True)
        if variance > 4 and counts.max() >= 0.9 * len(self.batch_sizes):
            return (
                Finding(
                    check="sampler",
                    where="batch sizes",
                    expected=f"Poisson batches with variance {variance:.1f}",
                    measured=f"{counts.max()} of {len(self.batch_sizes)} batches of one size",
                    epsilon=None,
                    remedy="Train on the loader that make_private returned.",
                ),
            )
        return ()


@contextmanager
def observe(
    attacks: Sequence[StepAttack], canaries: Canaries, rng: np.random.Generator
) -> Iterator[Observation]:
    """Instrument every `PrivacyEngine` and `DPOptimizer` made inside, and undo it afterwards."""
    observation = Observation(attacks, canaries, rng)
    make_private, initialise = PrivacyEngine.make_private, DPOptimizer.__init__

    @wraps(make_private)
    def observed_make_private(engine: PrivacyEngine, /, *args: Any, **kwargs: Any) -> Any:
        made = make_private(engine, *args, **kwargs)
        observation.engine_made(engine, next(o for o in made if isinstance(o, DPOptimizer)), made[-1])
        return made

    @wraps(initialise)
    def observed_initialise(optimizer: DPOptimizer, /, *args: Any, **kwargs: Any) -> None:
        initialise(optimizer, *args, **kwargs)
        OptimizerProbe(optimizer, observation)

    PrivacyEngine.make_private = observed_make_private
    DPOptimizer.__init__ = observed_initialise
    token = _ACTIVE.set(observation)
    try:
        yield observation
    finally:
        _ACTIVE.reset(token)
        PrivacyEngine.make_private = make_private
        DPOptimizer.__init__ = initialise


def active() -> Observation | None:
    """The observation that this code runs under, if any."""
    return _ACTIVE.get()
