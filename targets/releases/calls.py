"""How a mechanism wants to be called: with which random state, and for one output or for many."""

from __future__ import annotations

import inspect
import random
import re
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpaudit.errors import UsageError

GENERATOR, SEED, TORCH, NONE = "generator", "seed", "torch generator", "none"
PYTHON, LEGACY = "python", "random state"
_ANNOTATED = (
    (r"\btorch\b", TORCH),
    (r"\brandom\.Random\b|^Random\b", PYTHON),
    (r"\bRandomState\b", LEGACY),
    (r"\bGenerator\b", GENERATOR),
    (r"\bint\b", SEED),
)
"""What an annotation says of a random state, if it says one thing."""
_GENERATORS = ("rng", "generator", "gen", "random")
_SEEDS = ("seed", "random_state", "random_seed")
_SIZES = ("size", "batch_size", "n_samples", "n_outputs", "samples")
_PLAIN = (int, float, str, bool, bytes, type(None))
_FORMS = "f(data, rng), f(data, size, rng), f(data, random_state=...) or f(data)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A mechanism and how it is called.

    Attributes:
        function: the mechanism itself.
        random_name: of the parameter that takes its random state; empty where it is the next positional one.
        random: what is passed there: "generator" (numpy's), "random state" (numpy's older one), "python"
            (`random.Random`), "torch generator", "seed" (an integer) or "none".
        size_name: of the parameter that takes the number of outputs; empty where one call gives one output.
        reseed: whether it draws from the global random states, which are then seeded before each call.
    """

    function: Callable[..., Any]
    random: str
    random_name: str = ""
    size_name: str = ""
    reseed: bool = False

    @property
    def many(self) -> bool:
        """Whether one call gives many outputs."""
        return bool(self.size_name)

    def __call__(self, data: Any, seed: Sequence[int], size: int | None = None) -> Any:
        """One release, or `size` of them, of `data` (which it may change) with a random state of its own."""
        arguments: dict[str, Any] = {}
        extra: tuple[Any, ...] = ()
        if self.reseed:
            reseed(seed)
        if self.random != NONE:
            state = _state(self.random, seed)
            if self.random_name:
                arguments[self.random_name] = state
            else:
                extra = (state,)
        if self.size_name:
            arguments[self.size_name] = size
        return self.function(data, *extra, **arguments)


def call_of(mechanism: Any) -> Call:
    """Find out how a mechanism is called.

    Args:
        mechanism: an object with `sample(data, size, rng)`, or a callable of the data and, if it takes one, a
            random state.

    Raises:
        UsageError: it is neither, or asks for more.
    """
    method = getattr(mechanism, "sample", None)
    if callable(method) and not inspect.isclass(mechanism):
        return Call(function=method, random=GENERATOR, random_name="rng", size_name="size")
    if inspect.isclass(mechanism) and _makes_objects_that_release(mechanism):
        raise UsageError(
            f"Expected a mechanism to be a function or an object, found the class {mechanism.__name__}. "
            f"Name an object of it, such as `mechanism = {mechanism.__name__}(...)` in its module."
        )
    if not callable(mechanism):
        raise UsageError(
            f"Expected a mechanism to be a function of the data, found {type(mechanism).__name__}. "
            f"Write it as {_FORMS}."
        )
    try:
        parameters = list(inspect.signature(mechanism).parameters.values())
    except (TypeError, ValueError):
        return Call(function=mechanism, random=NONE)
    return _from_parameters(mechanism, parameters)


def _makes_objects_that_release(kind: type) -> bool:
    return any(name in vars(each) for each in kind.__mro__ for name in ("__call__", "sample"))


def _from_parameters(mechanism: Any, parameters: list[inspect.Parameter]) -> Call:
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not named:
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return Call(function=mechanism, random=NONE)
        raise UsageError(f"Expected a mechanism to take the data, found no parameter. Write it as {_FORMS}.")
    rest = named[1:]
    size = next((p for p in rest if p.name in _SIZES and p.default is p.empty), None)
    state = next((p for p in rest if p.name in _GENERATORS + _SEEDS), None)
    needed = [p for p in rest if p.default is p.empty and p is not size and p is not state]
    if state is None and len(needed) == 1:
        state, needed = needed[0], []
    if needed:
        raise UsageError(
            f"Expected a mechanism of data and a random state, found that it needs {needed[0].name!r} too. "
            f"Write it as {_FORMS}, or fix the rest with functools.partial."
        )
    positional = state is not None and state.kind is state.POSITIONAL_ONLY
    return Call(
        function=mechanism,
        random=NONE if state is None else _kind(state),
        random_name="" if state is None or positional else state.name,
        size_name="" if size is None else size.name,
    )


def _kind(parameter: inspect.Parameter) -> str:
    if parameter.annotation is not parameter.empty:
        words = inspect.formatannotation(parameter.annotation).strip("'")
        said = [kind for pattern, kind in _ANNOTATED if re.search(pattern, words)]
        if len(said) == 1 or TORCH in said:
            return said[0]
    return SEED if parameter.name in _SEEDS else GENERATOR


def _state(kind: str, seed: Sequence[int]) -> Any:
    if kind == GENERATOR:
        return np.random.default_rng(list(seed))
    number = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    if kind == SEED:
        return number
    if kind == LEGACY:
        return np.random.RandomState(number)
    if kind == PYTHON:
        return random.Random(number)
    import torch

    return torch.Generator().manual_seed(number)


def reseed(seed: Sequence[int]) -> None:
    """Seed the global random states of Python, numpy and, where it is loaded, torch."""
    number = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


def fresh(data: Any) -> Any:
    """A copy of a data set, so that what a mechanism does to its input stays without consequences."""
    if isinstance(data, list) and all(isinstance(item, _PLAIN) for item in data):
        return list(data)
    if isinstance(data, np.ndarray) and data.dtype.kind != "O":
        return data.copy()
    return data if isinstance(data, _PLAIN) else deepcopy(data)
