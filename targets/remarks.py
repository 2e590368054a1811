"""What the observed steps, loaders and accountants of one run say that needs no statistics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from dpaudit.accounting import pld_epsilon
from dpaudit.claim import Ledger, Sampler
from dpaudit.evidence import WRITTEN, Access, Finding, Note
from dpaudit.stats.composition import scaled
from dpaudit.targets.draws import typed_seed
from dpaudit.targets.steps import Step, beyond_records

if TYPE_CHECKING:
    from dpaudit.targets.observe import Observation

_FEW = 5
_OFTEN = 0.1
_SLACK = 0.02


def findings(
    steps: Sequence[Step],
    ledger: Ledger,
    delta: float | None,
    *,
    other_rows: tuple[int, int] | None = None,
) -> Iterator[Finding]:
    """Contradictions between what the loader promises and the batches that came.

    Args:
        steps: in order.
        ledger: as it ran.
        delta: at which epsilons are stated; None leaves them out.
        other_rows: gradients of a step and how many are of its batch, where the others were seen not to be.
    """
    elsewhere = [step for step in steps if step.elsewhere]
    if elsewhere:
        yield _finding(
            where=elsewhere[0].loader,
            expected="Poisson batches, from the loader that make_private returned",
            measured=f"{len(elsewhere)} of {len(steps)} steps on batches of another loader",
            remedy="Train on the loader that make_private returned.",
        )
    double = [step for step in steps if step.double]
    if len(double) > _OFTEN * len(steps):
        yield _finding(
            where=double[0].loader,
            expected="each record at most once in a batch",
            measured=f"a record twice or more in {len(double)} of {len(steps)} batches",
            remedy="Do not sample with replacement within a batch: such a record counts twice in the sum.",
        )
    own = other_rows[1] / other_rows[0] if other_rows else 1.0
    copies = {round(step.copies * own) for step in steps if step.rows and step.size}
    several = sum(bool(step.rows and step.size) for step in steps)
    if several >= _FEW and len(copies) == 1 and (k := copies.pop()) > 1:
        yield Finding(
            check="one gradient for each record",
            where="per-record gradients",
            expected="as many rows as the batch has records",
            measured=f"{k} rows for each record in {several} steps: it moves the sum by {k} clipping norms",
            epsilon=pld_epsilon(scaled(ledger, 1 / k), delta, coarsest=3e-3) if delta else None,
            remedy="Average a record's gradients, of its augmentations or backward passes, before clipping.",
            source="ledger",
            access=Access.LEDGER,
        )
    elif not other_rows:
        yield from beyond_records(steps)


def _finding(*, where: str, expected: str, measured: str, remedy: str) -> Finding:
    return Finding(
        check="sampler",
        where=where,
        expected=expected,
        measured=measured,
        epsilon=None,
        remedy=remedy,
        source="ledger",
        access=Access.LEDGER,
    )


def noise_seeds(observation: Observation, seeds: Iterable[int]) -> Iterator[Finding]:
    """Generators that were handed to Opacus for its noise with a seed that stands in the code."""
    for optimizer in observation.optimizers:
        seed = typed_seed(optimizer.generator) if optimizer.generator is not None else None
        if seed is not None and seed not in set(seeds):
            yield Finding(
                check="noise seed",
                where="noise_generator",
                expected="noise that nobody can draw again",
                measured=f"a generator seeded with {seed}: who knows the code subtracts the noise",
                epsilon=math.inf,
                remedy="Leave `noise_generator=` out; turn secure_mode on for the model that is released.",
                source="ledger",
                access=Access.LEDGER,
            )
            return


def notes(observation: Observation) -> Iterator[Note]:
    """What limits the worth of the accountant's figure without contradicting it."""
    yield from _engine_notes(observation)
    books = observation.books
    told = books.told()
    names = books.mechanisms()
    if len({id(known.history) for known in books.accountants if known.history}) > 1:
        yield _note(
            "composition",
            f"{len(names)} accountants",
            f"{', '.join(names)}, each stating only its own steps",
            "On the same records epsilons add up: the claim here is their sum, each at its share of delta.",
        )
    if books.shared():
        yield _note(
            "accountant's history",
            f"{len(books.accountants)} accountants",
            "two accountants write into one list, as after load_state_dict of the same state",
            "Steps of one appear in the figure of the other. Load a deep copy of the state.",
        )
    before = sum(phase.steps for phase in books.before())
    if before:
        yield _note(
            "accountant's history",
            "before the first step",
            f"{before} steps that this run did not make",
            "They are counted at the accountant's word: an earlier session has to be audited by itself.",
        )
    more = sum(phase.steps for phase in told) - before - sum(phase.steps for phase in observation.ledger)
    if more > 0 and not books.shared():
        yield _note(
            "accountant's history",
            "after the last step",
            f"{more} accounted steps that no optimizer made",
            "The figure is larger than needed, or steps were made where this audit does not see them.",
        )
    for epsilon, delta in observation.targets:
        spent = books.epsilon(delta)
        if spent > epsilon * (1 + _SLACK) + _SLACK:
            yield _note(
                "target epsilon",
                "make_private_with_epsilon",
                f"{epsilon:g} asked for at delta {delta:g}, {spent:.3g} accounted",
                "More was accounted than the noise was computed for: the target is not what was spent.",
            )
    if "gdp" in names:
        yield _note(
            "GDP accountant",
            "accountant='gdp'",
            "a central-limit figure, which is no upper bound",
            "It can be far below what was spent (Gopi et al. 2021, arXiv:2106.02848). Use accountant='prv'.",
        )


def unwatched(observation: Observation) -> Iterator[Note]:
    """Steps and writes of which nothing is known."""
    if not observation.sessions:
        return
    for probe in observation.probes:
        if probe.unwatched_from is not None:
            yield Note(
                check="unwatched steps",
                where="while training",
                measured=f"parameters were frozen or unfrozen before step {probe.unwatched_from}",
                meaning="Nothing is known of clip and noise from there on: audit each part by itself.",
            )
    written = sum(probe.written for probe in observation.probes)
    after = observation.bypass.standing.left
    if (written or after) and not observation.bypass.shared():
        steps = sum(probe.index for probe in observation.probes)
        when = f"before {written} of {steps} private steps" if written else ""
        yield Note(
            check=WRITTEN,
            where="training loop",
            measured=" and ".join(w for w in (when, "after the last step" if after else "") if w)
            + ", by no optimizer",
            meaning="They may depend on the data through releases alone: `dpaudit run` tests that.",
        )
    if observation.planted.lost:
        yield Note(
            check="planted records",
            where="training loop",
            measured=observation.planted.lost,
            meaning="Step canaries made of records stopped there: use random directions.",
        )
    stepped = [probe for probe in observation.probes if probe.index]
    unseen = sum(not probe.watched for probe in stepped)
    if unseen:
        yield Note(
            check="unwatched steps",
            where=f"{len(stepped)} private optimizers",
            measured=f"{unseen} of them were not replayed",
            meaning="Nothing is known of the clip and noise of these: audit each by itself.",
        )


def _engine_notes(observation: Observation) -> Iterator[Note]:
    if any(not engine.secure_mode for engine in observation.engines):
        yield _note(
            "secure mode",
            "PrivacyEngine(secure_mode=False)",
            "noise and batches from a pseudo-random generator, in floating point",
            "Whoever learns the seed subtracts the noise, and its low-order bits can tell the sum (Mironov "
            "2012). Turn secure_mode on for the model that is released.",
        )
    rates = {phase.sample_rate for phase in observation.ledger if phase.sampler is not Sampler.FULL_BATCH}
    if observation.engines and rates and observation.dataset_size:
        rate = min(rates)
        yield _note(
            "dependence on N",
            "make_private",
            f"sample rate {rate:.4g} and the divisor were computed from N = {observation.dataset_size}",
            "Neighbours that differ in N would train with another rate and divisor: N counts as public.",
        )


def _note(check: str, where: str, measured: str, meaning: str) -> Note:
    return Note(
        check=check, where=where, measured=measured, meaning=meaning, source="ledger", access=Access.LEDGER
    )
