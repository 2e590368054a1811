"""Training under observation: every Opacus engine and optimizer that is made inside is instrumented.

The training code runs unchanged. What ran is written down as it runs (the ledger), and each step is
offered to the step attacks before it happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer

from dpaudit.canary import Canaries
from dpaudit.check import IntArray
from dpaudit.claim import Adjacency, Claim, Ledger, Phase, Sampler, Spending
from dpaudit.evidence import Access, Batch, Evidence, Finding, Note
from dpaudit.protocols import BatchSession, RowArray, StepAttack, StepSession, StopTraining
from dpaudit.riding import Plants, Several
from dpaudit.targets import remarks
from dpaudit.targets.books import Books
from dpaudit.targets.bypass import Bypass
from dpaudit.targets.coupling import Coupling
from dpaudit.targets.draws import Loaders, root_of
from dpaudit.targets.ghost import Ghost
from dpaudit.targets.inversion import Models
from dpaudit.targets.leaves import Units
from dpaudit.targets.passed_over import PassedOver
from dpaudit.targets.places import names_of
from dpaudit.targets.planted import Planted
from dpaudit.targets.probe import OptimizerProbe
from dpaudit.targets.steps import Step, beside_records, step_of
from dpaudit.targets.taken import Rule, Taken, batch_of, rule_used
from dpaudit.targets.transcript import Transcript

_ACTIVE: ContextVar[Observation | None] = ContextVar("observation", default=None)
_MOST_OPTIMIZERS = 16
STREAM = 0xA0D1
"""Sets the random stream of attacks apart from all that a plain seed leads to."""

_Settings = tuple[float, float, float, Sampler]


class Observation:
    """What was seen of one training run."""

    def __init__(
        self,
        attacks: Sequence[StepAttack],
        canaries: Canaries,
        rng: np.random.Generator,
        seeds: Sequence[int] = (),
        transcript: Transcript | None = None,
    ):
        self._rng = rng
        self.sessions: Sequence[StepSession] = tuple(attack.begin(canaries, rng) for attack in attacks)
        self._batch_sessions = tuple(s for s in self.sessions if isinstance(s, BatchSession))
        self._riders = tuple(s for s in self.sessions if not isinstance(s, BatchSession))
        self._claimed = 0
        self.engines: list[PrivacyEngine] = []
        self.targets: list[tuple[float, float]] = []
        self.names: dict[int, str] = {}
        self.place = ""
        self.optimizers: list[DPOptimizer] = []
        self.loaders = Loaders(seeds)
        self.books = Books()
        self.bypass = Bypass(self.loaders)
        plants = [attack for attack in attacks if isinstance(attack, Plants) and attack.planted]
        self.planted = Planted(max((attack.planted for attack in plants), default=0), rng)
        ghost = Ghost(self.planted, lambda index: any(attack.due(index) for attack in plants))
        self.units = Units()
        self.passed_over = PassedOver(self.loaders, self._private)
        self.coupling = Coupling(self.loaders, ghost, self._private, self.optimizers)
        self.loaders.handed = self.coupling.handed
        self._returned: dict[int, tuple[Any, Rule]] = {}
        self._phases: dict[_Settings, int] = {}
        self._steps: list[Step] = []
        self.probes: list[OptimizerProbe] = []
        self._seeds = tuple(seeds)
        self.transcript = transcript
        self.models = Models(attacks)
        self._taken: Taken | None = None
        self._drawn: Batch | None = None
        self._rate = 1.0
        self.dataset_size = int(canaries.member.sum()) or None

    @property
    def engine(self) -> PrivacyEngine | None:
        """The engine that made an optimizer private last."""
        return self.engines[-1] if self.engines else None

    def claim_sessions(self) -> tuple[int, Sequence[StepSession]]:
        """Hand the sessions to an optimizer at its first step: to later ones those that ride on several."""
        number, self._claimed = self._claimed, self._claimed + 1
        riders = [s for s in self._riders if not number or (isinstance(s, Several) and s.several)]
        return number, riders if number < _MOST_OPTIMIZERS else ()

    def strip(self, parameters: Sequence[torch.nn.Parameter]) -> RowArray:
        """Look at the batch of the step that is about to be made, and take planted records out of it."""
        self.coupling.about_to_step(parameters)
        return self.planted.strip(parameters)

    def riding(self, root: Any, records: IntArray, batch: Any) -> tuple[IntArray, Any]:
        """Plant records in what a private loader hands out."""
        return records, self.planted.passing(batch, len(records)) if self._private(root) else batch

    def _private(self, root: Any) -> bool:
        return any(root is known for known, _ in self._returned.values())

    def seed(self) -> int:
        """A seed for the random stream of re-executed steps."""
        return int(self._rng.integers(2**62))

    def first_step(self, place: str) -> None:
        """Keep the line that made the first noisy step of all."""
        self.place = self.place or place

    def engine_made(self, engine: PrivacyEngine, optimizer: DPOptimizer, loader: Any, model: Any) -> None:
        """Write down how the loader that Opacus returned says that it draws its batches."""
        if all(engine is not known for known in self.engines):
            self.engines.append(engine)
        self.books.open(engine.accountant)
        self.dataset_size = len(loader.dataset)
        self.bypass.made_private(loader.dataset, model)
        self.units.look(loader.dataset)
        self.model_made(model)
        root = root_of(loader._index_sampler)
        self._returned[id(optimizer)] = (root, self.loaders.rule(root, loader.dataset))

    def model_made(self, model: Any) -> None:
        """Know a private model and the names of its parameters."""
        self.names |= names_of(model)
        self.models.made(model)
        inner = getattr(model, "_module", model)
        self.passed_over.made(inner)
        self.coupling.mixing.carried.models.append(inner)

    def optimizer_made(self, optimizer: DPOptimizer) -> None:
        """Take its steps down from now on."""
        self.optimizers.append(optimizer)
        self.bypass.private(optimizer)
        self.probes.append(OptimizerProbe(optimizer, self))

    def step_made(self, optimizer: DPOptimizer, batch_size: int | None) -> int:
        """Enter one noisy step into the ledger and return the index of its phase."""
        self._tell()
        root, stated = self._returned.get(id(optimizer), (None, None))
        self._taken = taken = self.loaders.taken(batch_size, [known for known, _ in self._returned.values()])
        self.bypass.private_step(optimizer, taken)
        self.coupling.step_made(optimizer)
        rule = rule_used(taken, stated)
        self._drawn = batch_of(rule, taken, batch_size)
        self.passed_over.step_made(taken)
        self._steps.append(step_of(taken, batch_size, root, stated))
        noise = float(optimizer.noise_multiplier)
        norm = float(np.linalg.norm(np.atleast_1d(np.asarray(optimizer.max_grad_norm, dtype=float))))
        self._rate, sampler = (rule.sample_rate, rule.sampler) if rule else (1.0, Sampler.UNKNOWN)
        settings = (noise, self._rate, norm, sampler)
        self._phases[settings] = self._phases.get(settings, 0) + 1
        return list(self._phases).index(settings)

    def step_unmade(self, optimizer: DPOptimizer, phase: int) -> None:
        """Take back the step that was entered last."""
        settings = list(self._phases)[phase]
        self._phases[settings] -= 1
        if not self._phases[settings]:
            del self._phases[settings]
        self._steps.pop()
        self._drawn = None
        self.bypass.private_step_failed(optimizer)

    def releasing(
        self,
        parameters: Sequence[torch.nn.Parameter],
        released: RowArray,
        *,
        rows: Callable[[], RowArray],
        settings: tuple[float, ...],
        clip: float,
        precision: float,
        random: Callable[[], str],
    ) -> None:
        """Enter a release into the transcript, if one is kept.

        Raises:
            StopTraining: the transcript has enough.
        """
        transcript, taken = self.transcript, self._taken
        if transcript is None:
            return
        transcript.step(
            parameters,
            settings=(*settings, self._rate),
            records=taken.records if taken is not None else np.zeros(0, dtype=np.int64),
            rows=rows(),
            released=released,
            clip=clip,
            precision=precision,
            random=random(),
        )
        if transcript.enough:
            raise StopTraining(len(transcript.steps), "enough was seen")

    def _tell(self) -> None:
        """Show the batch of the last step, which was made, to those who look at batches."""
        if self._drawn is not None:
            batch = replace(self._drawn, accounted=self.books.last_rate)
            for session in self._batch_sessions:
                session.drawn(batch)
        self._drawn, self.books.last_rate = None, 0.0

    @property
    def ledger(self) -> Ledger:
        """The phases as they ran, by their settings, in the order of their first steps."""
        return tuple(
            Phase(noise_multiplier=noise, sample_rate=rate, steps=steps, max_grad_norm=norm, sampler=sampler)
            for (noise, rate, norm, sampler), steps in self._phases.items()
        )

    def claim(self, delta: float) -> Claim | None:
        """What the run's own accountants state together, with the ledger as it ran; None without any.

        Steps of an earlier session, which a loaded accountant knows of, are taken at its word.
        """
        if not self.books.accountants:
            return None
        names = self.books.mechanisms()
        source = f"opacus {names[0]} accountant" if len(names) == 1 else f"{len(names)} opacus accountants"
        return Claim(
            epsilon=self.books.epsilon(delta),
            delta=delta,
            adjacency=Adjacency.ADD_REMOVE,
            ledger=(*self.ledger, *self.books.before()) if self._phases else (),
            source=source,
            dataset_size=self.dataset_size,
        )

    def accounted(self) -> Ledger:
        """The phases that the run's accountants were told of."""
        return self.books.told()

    def spending(self, delta: float) -> tuple[Spending, ...]:
        """Epsilon over the course of training, as the run's accountants state it."""
        return self.books.spending(delta)

    def evidence(self) -> tuple[Evidence, ...]:
        """What the step attacks collected, and what a user should know."""
        self._tell()
        collected = tuple(item for session in self.sessions for item in session.evidence())
        return (*collected, *self.notes())

    def findings(self, delta: float | None = None) -> tuple[Finding, ...]:
        """Contradictions between what was declared and what came, that need no statistics.

        Args:
            delta: at which epsilons are stated; None leaves them out.
        """
        return (
            *remarks.findings(self._steps, self.ledger, delta, other_rows=self.coupling.mixing.other_rows),
            *remarks.noise_seeds(self, self._seeds),
            *self.passed_over.findings(self._steps),
            *self.units.findings(),
            *self.bypass.findings(),
            *self.coupling.findings(),
        )

    def notes(self) -> tuple[Note, ...]:
        """What contradicts no claim by itself but limits what it is worth."""
        beside = () if self.coupling.mixing.other_rows else beside_records(self._steps)
        return (
            *remarks.notes(self),
            *self.bypass.notes(),
            *self.coupling.notes(),
            *beside,
            *self.passed_over.notes(),
            *remarks.unwatched(self),
        )


@contextmanager
def observe(
    attacks: Sequence[StepAttack],
    canaries: Canaries,
    rng: np.random.Generator,
    *,
    seeds: Sequence[int] = (),
    transcript: Transcript | None = None,
    prepare: Callable[[DPOptimizer], None] | None = None,
) -> Iterator[Observation]:
    """Instrument every `PrivacyEngine` and `DPOptimizer` made inside, and undo it afterwards.

    Args:
        attacks: that ride along.
        canaries: of the run.
        rng: of the attacks.
        seeds: that the caller hands to the training code; a generator seeded with one is not public.
        transcript: kept of the private steps; None keeps none.
        prepare: called with each optimizer that an engine made private.
    """
    observation = Observation(attacks, canaries, rng, seeds, transcript)
    make_private, initialise = PrivacyEngine.make_private, DPOptimizer.__init__

    @wraps(make_private)
    def observed_make_private(engine: PrivacyEngine, /, *args: Any, **kwargs: Any) -> Any:
        made = make_private(engine, *args, **kwargs)
        optimizer = next(o for o in made if isinstance(o, DPOptimizer))
        observation.engine_made(engine, optimizer, made[-1], made[0])
        if prepare is not None:
            prepare(optimizer)
        return made

    @wraps(initialise)
    def observed_initialise(optimizer: DPOptimizer, /, *args: Any, **kwargs: Any) -> None:
        initialise(optimizer, *args, **kwargs)
        observation.optimizer_made(optimizer)

    token = _ACTIVE.set(observation)
    with ExitStack() as stack:
        for watch in (observation.loaders.watch, observation.books.watch, observation.bypass.watch):
            stack.enter_context(watch())
        if transcript is not None:
            stack.enter_context(transcript.watch())
            observation.loaders.passing = transcript.passing
        elif observation.planted.wanted:
            observation.loaders.passing = observation.riding
        if any(attack.access is Access.REPLAY for attack in attacks):
            stack.enter_context(observation.coupling.watch())
        elif observation.planted.wanted:
            stack.enter_context(observation.coupling.ghost.watch(nullcontext, looks=False))
        stack.enter_context(observation.books.asked(observation.targets))
        PrivacyEngine.make_private = observed_make_private
        DPOptimizer.__init__ = observed_initialise
        try:
            yield observation
        finally:
            _ACTIVE.reset(token)
            PrivacyEngine.make_private = make_private
            DPOptimizer.__init__ = initialise


def active() -> Observation | None:
    """The observation that this code runs under, if any."""
    return _ACTIVE.get()
