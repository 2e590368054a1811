"""What a data set holds that has rows, in itself and in the variables that its methods read."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CellType, CodeType, ModuleType
from typing import Any

import numpy as np
import torch

from dpaudit.check import IntArray

FEWEST_ROWS = 8
_DEPTH = 4
_MOST_PARTS = 32
_PLAIN = (str, bytes, int, float, bool, complex, type(None), ModuleType, type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something that has rows.

    Attributes:
        name: of the attribute or variable.
        rows: the thing itself.
        of_items: whether it has one for each item of what holds it.
    """

    name: str
    rows: Any
    of_items: bool


@dataclass(frozen=True, slots=True)
class Variable:
    """What methods of a data set read: an attribute of a class, a global variable, or that of a function.

    Attributes:
        name: in the source.
        scope: a class, a cell, or the names of a module.
        key: in the scope.
    """

    name: str
    scope: Any
    key: str

    def get(self) -> Any:
        """What it refers to."""
        return self.scope[self.key] if isinstance(self.scope, dict) else getattr(self.scope, self.key)

    def set(self, value: Any) -> None:
        """Let it refer to something else."""
        if isinstance(self.scope, dict):
            self.scope[self.key] = value
        else:
            setattr(self.scope, self.key, value)


class Copies:
    """Copies of a data set and of what its methods read.

    Attributes:
        held: arrays, sparse ones, frames and long sequences in them.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        size = items(dataset)
        seen: set[int] = set()
        found = list(_held(dataset, _DEPTH, seen, size))
        self._variables = []
        for variable in _variables(type(dataset)):
            more = list(_named(variable.name, variable.get(), _DEPTH, seen, size))
            if more:
                self._variables.append((variable, variable.get()))
            found += more
        self.held = tuple(found)
        self._shared = {id(part): part for part in _never_copied(dataset, _DEPTH)}

    @contextmanager
    def instead(self, others: Mapping[int, Any]) -> Iterator[Any]:
        """A copy in which other things stand for those with these identities.

        A data set may count, keep and draw; what cannot be copied is shared.
        """
        known = self._shared | dict(others)
        for variable, value in self._variables:
            variable.set(copy.deepcopy(value, known))
        try:
            yield copy.deepcopy(self._dataset, known)
        finally:
            for variable, value in self._variables:
                variable.set(value)


def held_by(dataset: Any) -> tuple[Held, ...]:
    """What a data set, and those that it is made of, hold that has rows."""
    return tuple(_held(dataset, _DEPTH, set(), items(dataset)))


def items(value: Any) -> int:
    """How many items a data set has; 0 of anything else."""
    if not hasattr(type(value), "__getitem__"):
        return 0
    try:
        return len(value)
    except (TypeError, NotImplementedError):
        return 0


def count(rows: Any) -> int:
    """Number of rows."""
    return int(rows.shape[0]) if hasattr(rows, "shape") else len(rows)


def of_records(rows: Any) -> bool:
    """Whether rows can be records, and not the numbers, lengths or places of such."""
    if isinstance(rows, Sequence):
        return not isinstance(rows[0], (int, float, bool))
    return len(rows.shape) > 1 or (isinstance(rows, np.ndarray) and rows.dtype.kind == "O")


def taken(rows: Any, index: IntArray) -> Any:
    """Rows in another order, or some of them, in a container of the same kind."""
    if isinstance(rows, Sequence):
        chosen = [copy.deepcopy(rows[i]) for i in index]
        return tuple(chosen) if isinstance(rows, tuple) else chosen
    if hasattr(rows, "iloc"):
        return rows.iloc[index].set_axis(rows.index[: len(index)])
    return rows[torch.as_tensor(index, device=rows.device)] if isinstance(rows, torch.Tensor) else rows[index]


@contextmanager
def replaced(rows: Any, i: int) -> Iterator[Any]:
    """Let another row stand for one; in place where that is possible."""
    j = (i + count(rows) // 2) % count(rows)
    if not isinstance(rows, (np.ndarray, torch.Tensor, list)):
        index = np.arange(count(rows))
        index[i] = j
        yield taken(rows, index)
        return
    before = copy.deepcopy(rows[i])
    rows[i] = copy.deepcopy(rows[j])
    try:
        yield rows
    finally:
        rows[i] = before


def size_in_bytes(rows: Any) -> int:
    """Size of an array; of anything else, as if its rows were of a kilobyte each."""
    return int(getattr(rows, "nbytes", count(rows) << 10)) if _is_array(rows) else count(rows) << 10


def _held(value: Any, depth: int, seen: set[int], size: int) -> Iterator[Held]:
    """Things with rows in the attributes of something that has as many items."""
    if depth >= 0 and not isinstance(value, _PLAIN) and not _has_rows(value) and id(value) not in seen:
        seen.add(id(value))
        for name, part in getattr(value, "__dict__", {}).items():
            yield from _named(name, part, depth, seen, size)


def _named(name: str, part: Any, depth: int, seen: set[int], size: int) -> Iterator[Held]:
    for each in _parts(part):
        if not _has_rows(each):
            yield from _held(each, depth - 1, seen, items(each))
        elif id(each) not in seen:
            seen.add(id(each))
            yield Held(name=name, rows=each, of_items=FEWEST_ROWS <= size == count(each))


def _parts(value: Any) -> list[Any]:
    """What a short container holds; anything else is one part."""
    if isinstance(value, (tuple, list, Mapping)) and len(value) <= _MOST_PARTS:
        return [value, *(value.values() if isinstance(value, Mapping) else value)]
    return [value]


def of_numbers(rows: Any) -> bool:
    """Whether it is an array of numbers."""
    return _is_array(rows) and getattr(rows.dtype, "kind", "f") in "fiub"


def _is_array(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim > 0


def _has_rows(value: Any) -> bool:
    """Whether it is an array, a sparse one, a frame or a long sequence."""
    if isinstance(value, (list, tuple)):
        return len(value) > _MOST_PARTS
    table = not isinstance(value, type) and (hasattr(value, "iloc") or hasattr(value, "tocsr"))
    return _is_array(value) or (table and len(value.shape) == 2)


def _variables(kind: type) -> Iterator[Variable]:
    """Of a class itself, and what its methods, and functions of their module that these call, look up."""
    functions: list[Any] = []
    for each in kind.__mro__:
        if not each.__module__.startswith(("builtins", "torch.", "typing")):
            functions += [inspect.unwrap(value) for value in vars(each).values() if callable(value)]
            yield from (Variable(name, each, name) for name in vars(each) if not name.startswith("__"))
    seen: set[CodeType] = set()
    given: set[tuple[int, str]] = set()
    while functions:
        function = functions.pop()
        code = getattr(function, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        for variable in _looked_up(function, code):
            key, value = (id(variable.scope), variable.key), variable.get()
            if inspect.isfunction(value) and value.__module__ == function.__module__:
                functions.append(value)
            elif key not in given:
                given.add(key)
                yield variable


def _looked_up(function: Any, code: CodeType) -> Iterator[Variable]:
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        if _filled(cell):
            yield Variable(name, cell, "cell_contents")
    for name in sorted(_names(code) & function.__globals__.keys()):
        yield Variable(name, function.__globals__, name)


def _filled(cell: CellType) -> bool:
    try:
        return not isinstance(cell.cell_contents, type)
    except ValueError:
        return False


def _names(code: CodeType) -> set[str]:
    """That a function, and those inside of it, look up."""
    inside = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names, inside))


def _never_copied(value: Any, depth: int) -> Iterator[Any]:
    """Parts that no copy can be made of, such as locks and open files."""
    try:
        copy.deepcopy(value, {id(held.rows): held.rows for held in held_by(value)})
    except Exception:
        parts = getattr(value, "__dict__", {})
        if depth < 0 or not parts:
            yield value
        for part in parts.values():
            yield from _never_copied(part, depth - 1)
