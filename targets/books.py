"""What accountants were told, and what they made of it, while training ran."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import numpy as np
from opacus import PrivacyEngine
from opacus.accountants import GaussianAccountant, IAccountant, PRVAccountant, RDPAccountant
from opacus.accountants.analysis import rdp

from dpaudit.accounting import remembered
from dpaudit.check import IntArray
from dpaudit.claim import Ledger, Phase, Spending

_POINTS = 40
_FEWEST = 3
_SECONDS = 0.15
_BEYOND, _MANY = 1e3, 100.0
History = list[tuple[float, float, int]]


class Books:
    """Every accountant that was given a step or belongs to an engine, in the order of appearance.

    Attributes:
        last_rate: the sampling rate that one was told of last; 0 if none was.
    """

    def __init__(self) -> None:
        self._accountants: list[IAccountant] = []
        self._before: dict[int, History] = {}
        self._asked: list[float] = []
        self._asking = 0
        self.last_rate = 0.0
        self._answers: dict[tuple[int, tuple[tuple[float, float, int], ...], float], float] = {}

    def open(self, accountant: IAccountant) -> None:
        """Know an accountant from now on, with what it was told before."""
        if all(accountant is not known for known in self._accountants):
            self._accountants.append(accountant)

    @property
    def accountants(self) -> tuple[IAccountant, ...]:
        """Those known, less those whose whole history another one was loaded with, and goes on from."""
        return tuple(known for known in self._accountants if not self._went_on(known))

    def _went_on(self, known: IAccountant) -> bool:
        others = (each for each in self._accountants if each.history is not known.history)
        return any(known.history and self._before.get(id(each)) == known.history for each in others)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Take note of every step that any of Opacus's accountants is told of, and of what it is asked."""
        kinds = (RDPAccountant, PRVAccountant, GaussianAccountant)
        originals: list[tuple[Any, Callable[..., Any], Callable[..., Any]]] = [
            (kind, kind.step, kind.get_epsilon) for kind in kinds
        ]

        def watched(step: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(step)
            def observed(accountant: IAccountant, /, *args: Any, **kwargs: Any) -> Any:
                self.open(accountant)
                self._before.setdefault(id(accountant), list(accountant.history))
                result = step(accountant, *args, **kwargs)
                self.last_rate = float(accountant.history[-1][1]) if accountant.history else 0.0
                return result

            return observed

        def heard(get_epsilon: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(get_epsilon)
            def observed(accountant: IAccountant, /, delta: float, *args: Any, **kwargs: Any) -> Any:
                # One accountant may ask another, at a delta of its own.
                if not self._asking:
                    self._asked.append(float(delta))
                self._asking += 1
                try:
                    answer = get_epsilon(accountant, delta, *args, **kwargs)
                finally:
                    self._asking -= 1
                if not (args or kwargs) and any(accountant is known for known in self._accountants):
                    self._answers[id(accountant), tuple(accountant.history), float(delta)] = float(answer)
                return answer

            return observed

        for kind, step, get_epsilon in originals:
            kind.step, kind.get_epsilon = watched(step), heard(get_epsilon)
        try:
            with remembered():
                yield
        finally:
            for kind, step, get_epsilon in originals:
                kind.step, kind.get_epsilon = step, get_epsilon

    @contextmanager
    def asked(self, targets: list[tuple[float, float]]) -> Iterator[None]:
        """Enter every epsilon and delta that an engine is asked to compute its noise for."""
        original = PrivacyEngine.make_private_with_epsilon

        @wraps(original)
        def observed(engine: PrivacyEngine, /, *args: Any, **kwargs: Any) -> Any:
            if "target_epsilon" in kwargs and "target_delta" in kwargs:
                targets.append((float(kwargs["target_epsilon"]), float(kwargs["target_delta"])))
            return original(engine, *args, **kwargs)

        PrivacyEngine.make_private_with_epsilon = observed
        try:
            yield
        finally:
            PrivacyEngine.make_private_with_epsilon = original

    def last_delta(self, default: float) -> float:
        """The delta at which training code asked for its epsilon last."""
        right = [delta for delta in self._asked if 0 < delta < 1]
        return right[-1] if right else default

    def told(self) -> Ledger:
        """The phases that the accountants were told of, those loaded from elsewhere included."""
        return tuple(_phase(entry) for known in self.accountants for entry in known.history)

    def before(self) -> Ledger:
        """The phases that accountants already had when their first step came: of an earlier session."""
        ran = [known.history for known in self._accountants if self._went_on(known)]
        found = (self._before.get(id(known), []) for known in self._accountants)
        return tuple(_phase(entry) for history in found if history not in ran for entry in history)

    def shared(self) -> bool:
        """Whether two accountants write into one history, as after `load_state_dict` of one state."""
        histories = [id(known.history) for known in self._accountants if known.history]
        return len(set(histories)) < len(histories)

    def epsilon(self, delta: float) -> float:
        """What the accountants state together: their sum, each at its share of delta. 0 without steps."""
        told = [known for known in self.accountants if known.history]
        return sum(max(self._figure(known, delta / len(told), known.history), 0.0) for known in told)

    def _figure(self, accountant: IAccountant, delta: float, history: History) -> float:
        """What a known accountant says, or said, of a history; the accountant itself is left as it is."""
        key = (id(accountant), tuple(history), float(delta))
        if key not in self._answers:
            asked = copy.copy(accountant)
            asked.history = list(history)
            renyi = _renyi_figure(history, delta) if _next_to_no_noise(accountant, history) else 0.0
            # The grid of a PRV grows with epsilon: with next to no noise it is never done, and says no more.
            self._answers[key] = renyi if renyi > _BEYOND else float(asked.get_epsilon(delta))
        return self._answers[key]

    def mechanisms(self) -> tuple[str, ...]:
        """Names of the accountants that were told of steps; of all if none was."""
        told = [known for known in self._accountants if known.history] or self._accountants
        return tuple(known.mechanism() for known in told)

    def spending(self, delta: float) -> tuple[Spending, ...]:
        """Epsilon over the course of training, each accountant by itself.

        The accountant is asked again at up to 40 checkpoints with its history cut there, and at fewer where
        it takes long: what it would have said, without slowing training down.
        """
        with remembered():
            return tuple(
                _spending(known, delta, partial(self._figure, known, delta))
                for known in self.accountants
                if known.history
            )


def _spending(accountant: IAccountant, delta: float, figure: Callable[[History], float]) -> Spending:
    history = list(accountant.history)
    total = sum(int(steps) for _, _, steps in history)
    at = np.unique(np.round(np.linspace(1, total, min(_POINTS, total)))).astype(int)
    if type(accountant) is RDPAccountant:
        values = [*_renyi([_cut(history, int(step)) for step in at[:-1]], delta), figure(history)]
    else:
        asked = dict(_affordable(lambda step: figure(_cut(history, step)), at))
        at, values = np.array(sorted(asked)), [asked[step] for step in sorted(asked)]
    return Spending(
        accountant=f"opacus {accountant.mechanism()} accountant",
        delta=delta,
        steps=at.astype(np.float64),
        epsilon=np.array([max(value, 0.0) if math.isfinite(value) else math.inf for value in values]),
    )


def _affordable(figure: Callable[[int], float], at: IntArray) -> Iterator[tuple[int, float]]:
    """Figures after these steps for as long as there is time: the ends, then the middle of what is widest."""
    start = time.perf_counter()
    for asked, place in enumerate(_ends_first(len(at))):
        if asked >= _FEWEST and time.perf_counter() - start > _SECONDS:
            return
        yield int(at[place]), figure(int(at[place]))


def _ends_first(count: int) -> list[int]:
    """The numbers below `count`, so that those before any point lie about evenly apart."""
    order, gaps = [count - 1, 0], [(0, count - 1)]
    for low, high in gaps:
        middle = (low + high) // 2
        if low < middle < high:
            order.append(middle)
            gaps += [(middle, high), (low, middle)]
    return order[:1] if count == 1 else order


def _next_to_no_noise(accountant: IAccountant, history: History) -> bool:
    """Whether a PRV accountant is asked for an epsilon of hundreds, by the central limit (Bu et al. 2020)."""
    if type(accountant) is not PRVAccountant:
        return False
    squares = [steps * rate**2 * math.expm1(min(sigma**-2, 50.0)) for sigma, rate, steps in history if sigma]
    return sum(squares) > _MANY or not all(sigma for sigma, _, _ in history)


def _renyi_figure(history: History, delta: float) -> float:
    return next(_renyi([history], delta))


def _renyi(histories: Sequence[History], delta: float) -> Iterator[float]:
    """What Opacus's Renyi accountant says of each history, by its own functions.

    It computes the divergence of a step anew for each figure, which takes half a second.
    """
    orders = RDPAccountant.DEFAULT_ALPHAS
    kinds = {(sigma, rate) for history in histories for sigma, rate, _ in history}
    one = {
        (sigma, rate): rdp.compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=orders)
        for sigma, rate in kinds
    }
    for history in histories:
        divergence = sum(steps * one[sigma, rate] for sigma, rate, steps in history)
        yield float(rdp.get_privacy_spent(orders=orders, rdp=divergence, delta=delta)[0])


def _cut(history: History, steps: int) -> History:
    """The first so many steps."""
    kept: History = []
    for sigma, rate, count in history:
        if steps <= 0:
            break
        kept.append((sigma, rate, min(int(count), steps)))
        steps -= int(count)
    return kept


def _phase(entry: tuple[float, float, int]) -> Phase:
    sigma, rate, steps = entry
    return Phase(noise_multiplier=float(sigma), sample_rate=min(float(rate), 1.0), steps=int(steps))
