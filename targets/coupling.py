"""Records of a batch that reach each other's gradients before these are formed: in the model or the loss.

Looked at before a backward pass, at private steps 0, 1, 2, 4, 8 and so on: the model's forward pass is
executed again with the other records changed, and the loss is differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from opacus.grad_sample import AbstractGradSampleModule, GradSampleModule
from opacus.optimizers import DPOptimizer

from dpaudit.evidence import Finding, Note
from dpaudit.targets.blends import Blends
from dpaudit.targets.collation import Collation
from dpaudit.targets.draws import Loaders
from dpaudit.targets.forward import Call, Untestable, kept_outputs, layers_of, row_that_moves, tensors_of
from dpaudit.targets.ghost import Ghost
from dpaudit.targets.items import Items
from dpaudit.targets.mixing import Mixing
from dpaudit.targets.places import caller
from dpaudit.targets.scaling import clip_norm
from dpaudit.targets.sway import swayed

_CALLS = 6
_LOOKS = 2
_CHECK = "one record, one gradient"


class Coupling:
    """Looks at forward and backward passes of private models."""

    def __init__(
        self,
        loaders: Loaders,
        ghost: Ghost,
        private: Callable[[Any], bool],
        optimizers: Sequence[DPOptimizer] = (),
    ):
        self._optimizers = optimizers
        self._loaders = loaders
        self._private = private
        self._steps: dict[int, int] = {}
        self._calls: list[Call] = []
        self._tested: list[Call] = []
        self._modules: dict[int, Any] = {}
        self._suspicions: dict[str, list[Finding]] = {}
        self._busy = False
        self.ghost = ghost
        self.blends = Blends()
        self.mixing = Mixing()
        self.collation = Collation()
        self.items = Items()
        self._watching = False
        self.looked = self.steps = 0
        self.untestable = ""

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Stand in for the forward pass of Opacus's wrappers and for `torch.autograd.backward`."""
        kinds: list[Any] = [AbstractGradSampleModule, GradSampleModule]
        forwards = [(kind, kind.forward) for kind in kinds]
        autograd: Any = torch.autograd
        backward = autograd.backward

        def watched(forward: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(forward)
            def call(module: Any, *args: Any, **kwargs: Any) -> Any:
                if self._busy or not self._due(module):
                    return forward(module, *args, **kwargs)
                return self._forward(module, lambda *a, **k: forward(module, *a, **k), args, kwargs)

            return call

        @wraps(backward)
        def watched_backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
            if self._calls and not self._busy:
                self._look(tensors, grad_tensors, caller())
            backward(tensors, grad_tensors, *args, **kwargs)

        for kind, forward in forwards:
            kind.forward = watched(forward)
        autograd.backward = watched_backward
        self._watching = True
        try:
            with self.ghost.watch(self._aside):
                yield
        finally:
            autograd.backward = backward
            for kind, forward in forwards:
                kind.forward = forward
            self._calls.clear()
            self.mixing.stop()

    def _due(self, module: Any) -> bool:
        step = self._steps.get(id(module), 0)
        known = len(self._calls) + len(self._tested)
        return step & (step - 1) == 0 and known < _CALLS and module.training and torch.is_grad_enabled()

    def _forward(self, module: Any, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run a pass that is looked at."""
        rows = self._loaders.last_size
        if rows is None or rows < 2 or not module.batch_first:
            self.untestable = self.untestable or "no data loader handed out a batch of several records"
            return run(*args, **kwargs)
        self._modules[id(module)] = module
        kind = next((p.device.type for p in module.parameters()), "cpu")
        autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        call = Call(module=module, run=run, arguments=args, keywords=kwargs, autocast=autocast)
        with kept_outputs(call, list(layers_of(module)), rows):
            output = run(*args, **kwargs)
        if call.outputs:
            self._calls.append(call)
        else:
            self.untestable = self.untestable or "no layer has a row for each record of the loader's batch"
        return output

    def _look(self, losses: Any, weights: Any, place: str) -> None:
        """Test the passes that these losses are made of."""
        losses, weights = _listed(losses), None if weights is None else _listed(weights)
        with self._aside(), self._hooks_off():
            for module in list(self._modules.values()):
                self._test([c for c in self._calls if c.module is module], losses, weights, place)

    def _test(self, calls: list[Call], losses: Sequence[Any], weights: Any, place: str) -> None:
        handed, rows = self._loaders.last_tensors, self._loaders.last_size or 0
        try:
            found = _twice(losses, weights, calls)
            for call, sway in zip(calls, found, strict=True):
                if sway is None:
                    continue
                # What is below this may be what a sum over the batch that cancels leaves.
                call.swayed = sway if sway > call.tolerance(call.outputs[0]) else 0.0
                call.place = place
                self.blends.look([*tensors_of((call.arguments, call.keywords))], handed)
                call.moved, call.apart = row_that_moves(call, handed, rows)
                self._done(call)
        except Exception as error:
            # Code of the user's own may refuse to run again: then nothing is known, and training goes on.
            self.untestable = str(error) if isinstance(error, Untestable) else type(error).__name__
            self._forget(calls)

    def _done(self, call: Call) -> None:
        self._forget([call])
        call.outputs.clear()
        call.arguments, call.keywords = (), {}
        self._tested.append(call)

    def _forget(self, calls: Sequence[Call]) -> None:
        self._calls = [kept for kept in self._calls if kept not in calls]

    def handed(self, root: Any) -> None:
        """A loader with this sampler hands out a batch."""
        if self._watching and self._private(root):
            self.mixing.begin(self._loaders.last_size or 0, self._loaders.last_tensors)

    def about_to_step(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """A private step is about to be made, or skipped until its batch is complete."""
        with self._aside():
            root, fetched = self._loaders.last_fetched
            if self._watching and self._private(root) and self.steps & (self.steps - 1) == 0:
                self.collation.look(fetched)
                self.items.look(self._loaders.latest)
            clip = clip_norm(self._optimizers, parameters)
            riding = self.ghost.left_out(parameters[0]) if parameters else None
            handed, rows = self._loaders.last_tensors, self._loaders.last_size
            dataset = self._loaders.latest
            self.mixing.end(parameters, handed, rows, clip, left_out=riding, dataset=dataset)

    def stepped(self) -> None:
        """A private step was made, or skipped until its batch is complete."""
        if self._watching:
            self.mixing.made()

    def step_made(self, optimizer: DPOptimizer) -> None:
        """Close the books of what the step is made of: it is suspect if all of its passes are.

        A pass over made-up or public records beside the private ones may mix those as it likes.
        """
        self.steps += 1
        self.ghost.step_made(optimizer)
        own = {id(p) for p in optimizer.params}
        for key, module in list(self._modules.items()):
            if not any(id(p) in own for p in module.parameters()):
                continue
            tested = [call for call in self._tested if call.module is module]
            self._calls = [call for call in self._calls if call.module is not module]
            self._tested = [call for call in self._tested if call.module is not module]
            self.looked += bool(tested)
            if tested and all(call.moved for call in tested):
                self._suspect("model", _in_model(tested[0]))
            elif tested and all(call.moved or bool(call.swayed) for call in tested):
                self._suspect("loss", _in_loss(next(call for call in tested if not call.moved)))
            self._steps[key] = self._steps.get(key, 0) + 1

    def _suspect(self, where: str, finding: Finding) -> None:
        self._suspicions.setdefault(where, []).append(finding)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """What runs inside is the audit's own."""
        before, self._busy = self._busy, True
        self.mixing.tape.paused = True
        try:
            yield
        finally:
            self._busy = self.mixing.tape.paused = before

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        """Keep Opacus from forming per-record gradients of what is differentiated here."""
        with ExitStack() as stack:
            for module in self._modules.values():
                if getattr(module, "hooks_enabled", False):
                    module.disable_hooks()
                    stack.callback(module.enable_hooks)
            yield

    def findings(self) -> Iterator[Finding]:
        """What was seen at two steps: at one, a dimension may happen to be as long as the batch."""
        yield from self.ghost.findings()
        for found in self._suspicions.values():
            if len(found) >= _LOOKS:
                yield found[0]
                return
        where = (
            self.items,
            self.collation,
            self.blends,
            self.mixing,
            self.mixing.carried,
            self.mixing.unhanded,
        )
        yield from next((seen for each in where if (seen := tuple(each.findings()))), ())

    def notes(self) -> Iterator[Note]:
        """What is no contradiction by itself, and that nothing is known of model and loss, and why."""
        yield from self.items.notes()
        yield from self.mixing.notes()
        if self._watching and self.steps and not self.looked:
            yield Note(
                check="records apart in model and loss",
                where="before the per-record gradients",
                measured=f"not tested: {self.untestable or 'no forward pass of a GradSampleModule'}",
                meaning="Layers and losses that mix the records of a batch would not have been seen.",
            )


def _twice(losses: Sequence[Any], weights: Any, calls: Sequence[Call]) -> list[float | None]:
    """How others sway a record's gradient, from the first layer on; if not possible there, from the last."""
    for i in (0, -1):
        try:
            return swayed(losses, weights, [call.outputs[i] for call in calls]) if calls else []
        except RuntimeError:
            if i:
                raise
    return []


def _listed(tensors: Any) -> list[Any]:
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def _in_model(call: Call) -> Finding:
    return _finding(
        where=f"input of layer {call.moved}",
        expected="features of a record that the other records of its batch do not change",
        measured=f"a record's features that move by {call.apart:.2g} of their norm when the others change",
        remedy="Use group or layer normalisation, and nothing else that is computed over a batch.",
    )


def _in_loss(call: Call) -> Finding:
    return _finding(
        where=f"loss at {call.place}" if call.place else "loss",
        expected="a gradient of each record that the features of the others do not change",
        measured=f"features of the others that change it {call.swayed:.2g} times as much as its own",
        remedy="Train on a mean over records: no pairs, no weights and no statistics of the batch.",
    )


def _finding(*, where: str, expected: str, measured: str, remedy: str) -> Finding:
    return Finding(
        check=_CHECK, where=where, expected=expected, measured=measured, epsilon=None, remedy=remedy
    )
