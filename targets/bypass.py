"""Optimizer steps without clipping and noise, in code that also trains privately."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from opacus.optimizers import DPOptimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from dpaudit.evidence import ADDED, UNKNOWN, Access, Finding, Note
from dpaudit.targets.applied import Origin, Release, release_of
from dpaudit.targets.draws import Loaders
from dpaudit.targets.sources import Reader
from dpaudit.targets.standing import Standing
from dpaudit.targets.taken import Taken

_SOURCES = 256
_UNDER = "the optimizer under a private one"
_Data = dict[int, Any]


@dataclass(slots=True, kw_only=True)
class Plain:
    """Steps of one optimizer that no private optimizer stood before.

    Attributes:
        optimizer: which one.
        steps: how many.
        data: what the batches before them came from, by data set.
        after: steps made once a private optimizer existed, not on data that is known to be other.
        elsewhere: such steps on data that is.
        raw: steps made with raw gradients of a batch of which there was a release.
        unknown: steps made when no loader had handed out anything.
        passes: numbers of the backward passes that its gradients came from last.
    """

    optimizer: torch.optim.Optimizer
    steps: int = 0
    after: int = 0
    elsewhere: int = 0
    raw: int = 0
    unknown: int = 0
    data: _Data = field(default_factory=dict)
    passes: set[int] = field(default_factory=set)

    @property
    def words(self) -> str:
        """The optimizer and what it updates."""
        return f"{type(self.optimizer).__name__} over {len(parameters_of(self.optimizer))} parameters"


class Bypass:
    """Tells steps that were made through a `DPOptimizer` from those that were not."""

    def __init__(self, loaders: Loaders):
        self._loaders = loaders
        self._private: dict[int, DPOptimizer] = {}
        self._announced: dict[int, int] = {}
        self._private_data: _Data = {}
        self._reader = Reader()
        self._frozen: dict[int, Any] = {}
        self._reached: dict[int, int] = {}
        self._heard: dict[int, Any] = {}
        self._private_passes: set[int] = set()
        self._releases: dict[int, Release] = {}
        self._about: dict[int, Origin] = {}
        self._handed: dict[int, Release] = {}
        self._stepped_with: dict[int, Release] = {}
        self._last: dict[int, Any] = {}
        self.added = 0
        self.undone = 0
        self.standing = Standing()
        self.private_steps = 0
        self.plain: dict[int, Plain] = {}

    def private(self, optimizer: DPOptimizer) -> None:
        """Know a private optimizer and what it steps with."""
        self._private[id(optimizer.original_optimizer)] = optimizer
        self._listen(optimizer.original_optimizer)

    def made_private(self, dataset: Any, model: Any) -> None:
        """Know a data set and a model that an engine was given: its frozen weights are released, too."""
        module = getattr(model, "_module", model)
        self._private_data |= self._read(dataset)
        self._frozen |= {id(p): p for p in module.parameters() if not p.requires_grad}

    def private_step(self, optimizer: DPOptimizer, taken: Taken | None) -> None:
        """A private optimizer is about to make a step on that batch with its underlying one.

        Batches of other data may have been handed out after it.
        """
        key = id(optimizer.original_optimizer)
        self._announced[key] = self._announced.get(key, 0) + 1
        self.private_steps += 1
        self._private_passes |= self._latest(optimizer.original_optimizer)
        used = [batch.dataset for batch in taken.used] if taken is not None else []
        for dataset in used or [self._loaders.latest]:
            self._private_data |= self._read(dataset)
        for known in (self._releases, self._handed, self._stepped_with):
            known.pop(key, None)

    def handed(
        self, optimizer: DPOptimizer, raw: Sequence[torch.Tensor | None], applied: Callable[[], None]
    ) -> None:
        """That step hands a release, made of `raw`, to the underlying optimizer, whose hooks come next."""
        self._handed[id(optimizer.original_optimizer)] = release_of(optimizer, raw, applied)

    def released(
        self, optimizer: DPOptimizer, raw: Sequence[torch.Tensor | None], applied: Callable[[], None]
    ) -> None:
        """That step ended with a release, made of `raw`; the loop steps with it by itself, or does not."""
        key = id(optimizer.original_optimizer)
        self._announced[key] -= 1
        self._releases[key] = release_of(optimizer, raw, applied)

    def private_step_failed(self, optimizer: DPOptimizer) -> None:
        """That step raised before the underlying optimizer made it."""
        self._announced[id(optimizer.original_optimizer)] -= 1
        self.private_steps -= 1

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count the steps of every torch optimizer."""
        handles = [
            register_optimizer_step_pre_hook(self._about_to_step),
            register_optimizer_step_post_hook(self._stepped),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.standing.ended()
            for last in self._last.values():
                last.remove()
            for _, hook in self._heard.values():
                hook.remove()
            self._heard.clear()

    def _listen(self, optimizer: torch.optim.Optimizer) -> None:
        """Note for each parameter which backward pass reached it last."""

        def reached(parameter: torch.Tensor) -> None:
            self._reached[id(parameter)] = torch._C._current_graph_task_id()

        for parameter in parameters_of(optimizer):
            if id(parameter) not in self._heard and parameter.requires_grad and parameter.is_leaf:
                hook = parameter.register_post_accumulate_grad_hook(reached)
                self._heard[id(parameter)] = parameter, hook

    def _latest(self, optimizer: torch.optim.Optimizer) -> set[int]:
        return {self._reached[id(p)] for p in parameters_of(optimizer) if id(p) in self._reached}

    def _about_to_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Look at its gradients after all hooks of its own, which may change them: hooks run in order."""
        key = id(optimizer)
        if key in self._private:
            if key in self._last:
                self._last.pop(key).remove()
            self._last[key] = optimizer.register_step_pre_hook(self._reached_by)

    def _reached_by(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        key = id(optimizer)
        if self._announced.get(key, 0):
            handed = self._handed.get(key)
            found = Origin.RELEASE if handed is None else handed.origin()
            self.added += found is Origin.UNKNOWN
            self.undone += found is Origin.RAW
        elif release := self._releases.get(key) or self._stepped_with.get(key):
            self._about[key] = release.origin()

    def _of_release(self, key: int) -> tuple[bool, Origin | None]:
        """Whether a step was one with the last release, and what its gradients were made of.

        Of what was added nobody knows whether it is public. But a step on another batch of private data is
        none with that release.
        """
        release, origin = self._releases.get(key), self._about.pop(key, None)
        if origin is Origin.RELEASE and key in self._stepped_with:
            self._stepped_with[key].applied()  # What was released may be used as often as one likes.
            return True, origin
        if release is None or origin is None:
            return False, None
        undecided = release.fresh or not self._loaders.waiting or self._other_data()
        release.fresh = False
        if origin is Origin.RAW or (origin is Origin.UNKNOWN and not undecided):
            return False, origin
        self.added += origin is Origin.UNKNOWN
        release.applied()
        return True, origin

    def _other_data(self) -> bool:
        """Whether the last batch came from a data set that no private optimizer is known to train on."""
        found = self._read(self._loaders.latest)
        return bool(found) and not self._is_private(found)

    def _is_private(self, data: _Data) -> bool:
        private = self._private_data.values()
        return any(self._reader.share(one, other) for one in data.values() for other in private)

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        key = id(optimizer)
        if key in self._last:
            self._last.pop(key).remove()
        if self._announced.get(key, 0):
            self._announced[key] -= 1
            if key in self._handed:
                self._stepped_with[key] = self._handed.pop(key)
            return
        of_release, origin = self._of_release(key)
        if of_release:
            return
        plain = self.plain.setdefault(key, Plain(optimizer=optimizer))
        plain.steps += 1
        elsewhere = self._other_data() and origin is not Origin.RAW
        plain.after += bool(self._private) and not elsewhere
        plain.elsewhere += bool(self._private) and elsewhere
        plain.raw += origin is Origin.RAW
        plain.unknown += self._loaders.latest is None
        plain.passes |= self._latest(optimizer)
        self._listen(optimizer)
        if len(plain.data) < _SOURCES:
            plain.data |= self._read(self._loaders.latest)

    def _read(self, dataset: Any) -> _Data:
        """A data set by its identity; nothing where what it reads is not known."""
        return {id(dataset): dataset} if self._reader.of(dataset) else {}

    def shared(self) -> bool:
        """Whether another optimizer updates private weights, too."""
        return any(self._is_released(plain) for plain in self.plain.values())

    def _is_released(self, plain: Plain) -> bool:
        """Whether it updates weights that are released as private, trained ones or frozen ones."""
        trained = {id(p) for optimizer in self._private.values() for p in optimizer.params}
        return any(id(p) in trained or id(p) in self._frozen for p in parameters_of(plain.optimizer))

    def findings(self) -> Iterator[Finding]:
        """Weights that gradients of the private data moved without noise: private ones, or beside them."""
        if self.undone:
            yield _unprotected(
                _UNDER,
                "every update of these weights to be clipped and noised",
                f"{self.undone} of {self.private_steps} private steps with gradients that were not noised, "
                "put back after the release",
                "Leave the gradients alone that the private optimizer hands over.",
            )
        for key, plain in self.plain.items():
            itself = key in self._private and plain.after
            shares = self._is_released(plain)
            together = plain.passes & self._private_passes
            if itself or (shares and self._is_private(plain.data)):
                yield _unprotected(
                    plain.words,
                    "every update of these weights to be clipped and noised",
                    f"{plain.steps} such steps beside {self.private_steps} private ones on that data"
                    + (
                        f", {plain.raw} of them on raw gradients put back after a release"
                        if plain.raw
                        else ""
                    ),
                    "Step with the optimizer that make_private returned, from the first step to the last.",
                )
            elif together and key not in self._private:
                yield _unprotected(
                    plain.words,
                    "every weight that the loss of private records trains to be clipped and noised",
                    f"{len(together)} steps on gradients of the backward passes of private steps",
                    "Give make_private a model and an optimizer that have these parameters, or freeze them.",
                )

    def notes(self) -> Iterator[Note]:
        """Other steps without privacy, whose data has to be public."""
        if not self._private:
            return
        accused = {finding.where for finding in self.findings()}
        beside = sum(plain.elsewhere for key, plain in self.plain.items() if key in self._private)
        if self.added or beside:
            yield _added(self.added, beside)
        for plain in self.plain.values():
            if plain.words in accused:
                continue
            alarming = plain.unknown and self._is_released(plain)
            yield Note(
                check=UNKNOWN if alarming else "steps without privacy",
                where=plain.words,
                measured=f"{plain.steps} steps without clipping and noise, {self._after(plain)}",
                meaning="The guarantee is about the private steps alone: what these were made on has to be "
                "public, or these weights kept back.",
                source="ledger",
                access=Access.LEDGER,
            )

    def _after(self, plain: Plain) -> str:
        """The data that its steps came after, in words."""
        if not plain.data:
            return "on data that no loader handed out"
        return f"after batches of {'the private' if self._is_private(plain.data) else 'other'} data"


def _added(added: int, beside: int) -> Note:
    """Something that nobody knows the origin of went to an optimizer that a private one steps with."""
    what = f"{added} steps with gradients that are not what was released" if added else ""
    other = f"{beside} steps of it on other data" if beside else ""
    return Note(
        check=ADDED,
        where=_UNDER,
        measured=" and ".join(words for words in (what, other) if words),
        meaning="What was made of releases and public data alone is post-processing; a trace cannot tell.",
        source="ledger",
        access=Access.LEDGER,
    )


def _unprotected(where: str, expected: str, measured: str, remedy: str) -> Finding:
    return Finding(
        check="steps without privacy",
        where=where,
        expected=expected,
        measured=measured,
        epsilon=float("inf"),
        remedy=remedy,
        source="ledger",
        access=Access.LEDGER,
    )


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Everything that an optimizer updates."""
    return [p for group in optimizer.param_groups for p in group["params"]]
