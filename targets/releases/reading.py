"""From whatever a mechanism puts out to a table: numbers, arrays, dicts, exceptions, None, fitted models."""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import ismodule
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpaudit.errors import UsageError
from dpaudit.outputs import Outputs, text_hash

MOST_NUMBERS = 512
"""Numbers of one output that are looked at."""
MOST_PLACES = 4096
"""Different keys and places over all outputs of a draw."""
CLOSED = " (not looked into)"
"""Ends the label of an output of which nothing but its type is known."""
_DEEPEST = 6
_LONGEST_TEXT = 200
"""Characters that are shown; all are compared."""
_READ_TEXT = 2000
_WRITTEN_NUMBERS = 8
_READ_OFF = 64
_WRITTEN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
"""Of a text, so many characters are searched for so many numbers."""
_EXACT_INTEGERS = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An output that is none: the mechanism raised, hung, or took its process with it.

    Attributes:
        label: such as "raised ValueError".
        message: of the exception, which may say more than it should.
    """

    label: str
    message: str = ""


OUT_OF_TIME = Failure(label="ran out of time")
DIED = Failure(label="killed its process")


@dataclass(slots=True)
class _Leaves:
    """Numbers and words of one output by path, and what is read off them, which takes no place of theirs."""

    numbers: dict[str, float] = field(default_factory=dict)
    read_off: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    dropped: int = 0

    def number(self, path: str, value: float) -> None:
        if len(self.numbers) < MOST_NUMBERS:
            self.numbers[path] = value
        else:
            self.dropped += 1

    def word(self, path: str, text: str) -> None:
        if len(self.words) < MOST_NUMBERS:
            self.words[path] = text
        else:
            self.dropped += 1

    def off(self, path: str, value: float) -> None:
        """A number that is only read off something; of these the first are enough."""
        if len(self.read_off) < _READ_OFF:
            self.read_off[path] = value

    def text(self, path: str, text: str) -> None:
        """A text that may say more than it should: itself, its length, and the numbers written in it."""
        self.word(path, text)
        self.off(f"{path}#length", float(len(text)))
        for i, found in enumerate(islice(_WRITTEN.finditer(text[:_READ_TEXT]), _WRITTEN_NUMBERS)):
            self.off(f"{path}#{i}", float(found[0]))

    def raw(self, path: str, content: bytes) -> None:
        """Bytes: their text in hexadecimal digits, their length, and the first of them."""
        self.word(path, content.hex())
        self.off(f"{path}#length", float(len(content)))
        for i, byte in enumerate(content[:_WRITTEN_NUMBERS]):
            self.off(f"{path}#{i}", float(byte))


def read(outputs: Sequence[Any]) -> Outputs:
    """One row for each output.

    Fitted estimators become what they learned: their public attributes that end with an underscore, as
    scikit-learn names them. Costs one Python call per number, except for plain floats and for arrays of one
    shape.
    """
    if outputs and all(type(output) is float for output in outputs):
        return read_array(np.array(outputs), label="float")
    if outputs and all(type(output) is np.ndarray for output in outputs):
        shapes = {(output.shape, output.dtype) for output in outputs}
        if len(shapes) == 1 and outputs[0].dtype.kind in "fiub":
            return read_array(np.stack(outputs))
    labels, rows = [], []
    for output in outputs:
        leaves = _Leaves()
        labels.append(_leaf(output, "", leaves, 0))
        rows.append(leaves)
    return _table(labels, rows)


def read_array(values: NDArray[Any], *, label: str = "") -> Outputs:
    """(n, ...) outputs of a mechanism that gave all of them at once."""
    n = len(values)
    if values.dtype.kind not in "fiub":
        return read(list(values))
    flat = values.reshape(n, -1)
    shape = values.shape[1:]
    name = label or f"{values.dtype} {shape}" if shape else label or str(values.dtype)
    return Outputs(
        kinds=np.zeros(n, dtype=np.int64),
        labels=(name,),
        numbers=flat[:, :MOST_NUMBERS].astype(np.float64),
        paths=tuple(_index(shape, i) for i in range(min(flat.shape[1], MOST_NUMBERS))),
        words=np.zeros((n, 0), dtype=np.uint64),
        word_paths=(),
        dropped=max(0, flat.shape[1] - MOST_NUMBERS),
    )


def _index(shape: tuple[int, ...], flat: int) -> str:
    return "".join(f"[{int(i)}]" for i in np.unravel_index(flat, shape)) if shape else ""


def _table(labels: list[str], rows: list[_Leaves]) -> Outputs:
    names = list(dict.fromkeys(labels))
    paths = list(dict.fromkeys(path for row in rows for path in row.numbers))
    word_paths = list(dict.fromkeys(path for row in rows for path in row.words))
    # Leaving some out here would make what is said of one output depend on the others.
    if len(paths) + len(word_paths) > MOST_PLACES:
        raise UsageError(
            f"Expected outputs with at most {MOST_PLACES:,} different keys or places, found more. "
            "Return an array, or lists in a fixed order."
        )
    paths += dict.fromkeys(path for row in rows for path in row.read_off)
    values = np.full((len(rows), len(paths)), np.nan)
    words = np.zeros((len(rows), len(word_paths)), dtype=np.uint64)
    vocabulary: dict[int, str] = {}
    place, word_place = {p: j for j, p in enumerate(paths)}, {p: j for j, p in enumerate(word_paths)}
    for i, row in enumerate(rows):
        for path, value in (*row.numbers.items(), *row.read_off.items()):
            if path in place:
                values[i, place[path]] = value
        for path, text in row.words.items():
            if path in word_place:
                code = text_hash(text)
                words[i, word_place[path]] = code
                if len(vocabulary) < 1000:
                    vocabulary[code] = text[:_LONGEST_TEXT]
    return Outputs(
        kinds=np.array([names.index(label) for label in labels], dtype=np.int64),
        labels=tuple(names),
        numbers=values,
        paths=tuple(paths),
        words=words,
        word_paths=tuple(word_paths),
        vocabulary=tuple(vocabulary.items()),
        dropped=max((row.dropped for row in rows), default=0),
    )


def _leaf(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    """Add what `value` consists of, and return what sort of thing it is."""
    try:
        return _readable(value, path, leaves, depth)
    except Exception as error:
        # Whatever a mechanism puts out is an output, even if its own code fails when one looks at it.
        return f"{type(value).__name__} that raises {type(error).__name__} when it is read"


def _readable(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    """See `_leaf`; raises what the value's own code raises."""
    if isinstance(value, Failure):
        if value.message:
            leaves.text(f"{path}message", value.message)
        return value.label
    if value is None:
        return "None"
    if isinstance(value, (bool, np.bool_)):
        leaves.number(path, float(value))
        return "bool"
    if isinstance(value, numbers.Number):
        return _number(value, path, leaves)
    if isinstance(value, str):
        leaves.text(path, value)
        return type(value).__name__
    if isinstance(value, (bytes, bytearray)):
        leaves.raw(path, bytes(value))
        return type(value).__name__
    for fits, add in _COMPOSITES:
        if fits(value):
            return add(value, path, leaves, depth) if depth < _DEEPEST else f"deeper{CLOSED}"
    text = _stable_text(value)
    leaves.word(path, text)
    return f"{type(value).__name__}{CLOSED if text == type(value).__name__ else ''}"


def _number(value: Any, path: str, leaves: _Leaves) -> str:
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        leaves.number(f"{path}.real", float(value.real))
        leaves.number(f"{path}.imag", float(value.imag))
        return type(value).__name__
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    leaves.number(path, number)
    if isinstance(value, numbers.Integral) and abs(int(value)) > _EXACT_INTEGERS:
        leaves.word(path, str(int(value)))
        # A float has no room for the last digits, where some generators leave their traces.
        leaves.off(f"{path}#remainder", float(int(value) % 2**32))
    return type(value).__name__


def _array(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return _sequence(array.tolist() if array.ndim else [array.item()], path, leaves, depth)
    flat = array.ravel()
    for i in range(min(flat.size, MOST_NUMBERS)):
        leaves.number(path + _index(array.shape, i), float(flat[i]))
    leaves.dropped += max(0, flat.size - MOST_NUMBERS)
    return f"{array.dtype} {array.shape}" if array.ndim else str(array.dtype)


def _tensor(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    plain = value.detach().cpu()
    if str(plain.dtype) == "torch.bfloat16":  # numpy has none
        return "tensor of bfloat16, " + _array(plain.float().numpy(), path, leaves, depth)
    return "tensor of " + _array(plain.numpy(), path, leaves, depth)


def _sequence(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    inner = [_leaf(item, f"{path}[{i}]", leaves, depth + 1) for i, item in enumerate(value)]
    if len(set(inner)) > 1:
        leaves.word(f"{path}#types", ", ".join(inner))
    return f"{type(value).__name__} of {len(inner)}" + _odd(inner)


def _consumed(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    return _sequence(list(islice(value, MOST_NUMBERS)), path, leaves, depth)


def _odd(kinds: list[str]) -> str:
    """Names the kinds inside, where they are not all numbers."""
    others = sorted(set(kinds) - {"float", "int", "float64", "int64", "bool", "str"})
    return f" with {', '.join(others)}" if others else ""


def _mapping(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    # The order in which keys were set may be that of the data.
    leaves.word(f"{path}.keys()", ", ".join(str(key) for key in value))
    return _items(value, path, leaves, depth)


def _items(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    keys = sorted(value, key=lambda key: (str(type(key)), str(key)))
    kinds = [_leaf(value[key], f"{path}[{key!r}]", leaves, depth + 1) for key in keys]
    shown = ", ".join(str(key)[:40] for key in keys[:8]) + (", ..." if len(keys) > 8 else "")
    return f"{type(value).__name__} of {len(keys)} ({shown})" + _odd(kinds)


def _set(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    return "set: " + _sequence(sorted(value, key=repr), path, leaves, depth)


def _frame(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    data = {str(name): np.asarray(value[name]) for name in value.columns}
    return "frame: " + _mapping(data, path, leaves, depth)


def _fields(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    data = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return f"{type(value).__name__}: " + _items(data, path, leaves, depth)


def _estimator(value: Any, path: str, leaves: _Leaves, depth: int) -> str:
    """What a fitted model learned."""
    learned = sorted(name for name in vars(value) if name.endswith("_") and not name.startswith("_"))
    dot = "." if path else ""
    kinds = [_leaf(getattr(value, name), f"{path}{dot}{name}", leaves, depth + 1) for name in learned]
    return f"{type(value).__name__} with {', '.join(learned) or 'nothing learned'}" + _odd(kinds)


def _stable_text(value: Any) -> str:
    """The text of an object, less the address that Python's own texts contain."""
    text = repr(value)
    return type(value).__name__ if f"{id(value):x}" in text else text


def _plain_object(value: Any) -> bool:
    """Whether an object holds its state in attributes, and is no function, class or module."""
    return bool(getattr(value, "__dict__", None)) and not callable(value) and not ismodule(value)


_COMPOSITES: tuple[tuple[Callable[[Any], bool], Callable[[Any, str, _Leaves, int], str]], ...] = (
    (lambda value: isinstance(value, (np.ndarray, np.generic)), _array),
    (lambda value: hasattr(value, "detach") and hasattr(value, "cpu"), _tensor),
    (lambda value: hasattr(value, "columns") and hasattr(value, "to_numpy"), _frame),
    (lambda value: hasattr(value, "to_numpy"), lambda v, p, o, d: "series: " + _array(v.to_numpy(), p, o, d)),
    (lambda value: isinstance(value, Mapping), _mapping),
    (lambda value: isinstance(value, (set, frozenset)), _set),
    (lambda value: isinstance(value, (list, tuple, range)), _sequence),
    (lambda value: isinstance(value, Iterator), lambda v, p, o, d: "iterator: " + _consumed(v, p, o, d)),
    (lambda value: dataclasses.is_dataclass(value) and not isinstance(value, type), _fields),
    (lambda value: hasattr(value, "get_params") and hasattr(value, "__dict__"), _estimator),
    (
        lambda value: hasattr(value, "state_dict"),
        lambda v, p, o, d: "model: " + _items(v.state_dict(), p, o, d),
    ),
    (_plain_object, lambda v, p, o, d: f"{type(v).__name__}: " + _items(vars(v), p, o, d)),
)
