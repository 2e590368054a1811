"""Domains of data as text: a small grammar, read without evaluating it.

`list(float(0, 10), max_size=50)` looks like Python and is parsed as Python, but only calls of the known
words with constants are understood; nothing that was written is executed.
"""

from __future__ import annotations

import ast
import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy

from dpaudit.claim import Adjacency
from dpaudit.domain_forms import CONTAINERS, ELEMENTS, Built, Wanted
from dpaudit.errors import UsageError, nearest
from dpaudit.registry import resolve
from dpaudit.strategies import Neighbours
from dpaudit.strategies.neighbours import wrapped

LONGEST = 10_000
"""Characters of the longest domain that is read."""
EXAMPLE = "list(float(0, 10))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """The data that a mechanism is claimed to protect, and how to draw neighbours of it.

    Attributes:
        text: the domain as written.
        adjacency: the relation between the data sets of a pair.
        pairs: strategy for neighbouring data sets.
        patterns: pairs to try before any is drawn, each directly followed by itself in the other order;
            those outside of the domain come last.
        summary: the domain in words, for a report.
    """

    text: str
    adjacency: Adjacency
    pairs: SearchStrategy[Neighbours[Any]]
    patterns: tuple[Neighbours[Any], ...]
    summary: str


def drawn_by(
    strategy: SearchStrategy[Any], *, adjacency: Adjacency | None = None, inside: bool = False
) -> Domain:
    """The domain of whatever a strategy of the user's own draws; other arguments as for `parse`."""
    text = repr(strategy)
    built = _drawn_by(strategy, text, Wanted(adjacency=adjacency, inside=inside))
    return Domain(
        text=text, adjacency=built.adjacency, pairs=built.pairs, patterns=(), summary="pairs of a strategy"
    )


def parse(
    text: str, *, adjacency: Adjacency | None = None, inside: bool = False, path: Path | None = None
) -> Domain:
    """Read a domain such as `list(float(0, 10))`, or import a strategy named as `module:object`.

    Args:
        text: the domain, in the grammar of `docs/domains.md`.
        adjacency: the relation between the data sets; add-remove for data sets of records and
            replace-one for single values and answers if None.
        inside: draw nothing outside of the domain. A strategy of the user's own is drawn as it is, less
            the pairs that say they lie outside.
        path: a folder to find the user's module in, first.

    Raises:
        UsageError: the text is not in the grammar, a word or argument is unknown, a value is impossible,
            or the user's object cannot be imported or is no strategy.
    """
    wanted = Wanted(adjacency=adjacency, inside=inside)
    text = text.strip()
    built = _own(text, wanted, path) if ":" in text and "(" not in text else _data(_tree(text), wanted)
    return Domain(
        text=text,
        adjacency=built.adjacency,
        pairs=built.pairs,
        patterns=built.patterns,
        summary=built.summary,
    )


def _tree(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise UsageError(f"Expected a domain of at most {LONGEST} characters, found {len(text)}. Shorten it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise UsageError(f"Expected a domain such as {EXAMPLE}, found {_cut(text)!r}: {why}.") from None


def _data(node: ast.expr, wanted: Wanted) -> Built:
    """The data set that the whole text stands for."""
    name = _name(node)
    if name in ELEMENTS and name not in CONTAINERS:
        found = _cut(ast.unparse(node))
        raise UsageError(
            f"Expected a domain of data sets, found the element {found}. "
            f"Write value({found}) for a single one, or list({found}) for many."
        )
    if name not in CONTAINERS:
        raise UsageError(
            f"Expected a known domain, found {name!r}: {nearest(name, [*CONTAINERS, *ELEMENTS])}"
        )
    build = CONTAINERS[name]
    built: Built = _called(name, partial(build, wanted), build, node)
    return built


def _value(node: ast.expr) -> object:
    """An argument: a constant, or an element."""
    constant = _constant(node)
    if constant is not None:
        return constant[0]
    name = _name(node)
    if name in ELEMENTS:
        return _called(name, ELEMENTS[name], ELEMENTS[name], node)
    if name in CONTAINERS:
        raise UsageError(
            f"Expected an element inside of the domain, found the data set {_cut(ast.unparse(node))}. "
            f"Elements: {', '.join(ELEMENTS)}."
        )
    raise UsageError(f"Expected a known element, found {name!r}: {nearest(name, ELEMENTS)}")


def _constant(node: ast.expr) -> tuple[object] | None:
    """The constant in a tuple of its own, because None is one; None if the node is something else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str | None):
        return (node.value,)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return (math.inf if node.id == "inf" else math.nan,)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _constant(node.operand)
        if inner is not None and type(inner[0]) in (int, float):
            size: Any = inner[0]
            return (-size if isinstance(node.op, ast.USub) else size,)
    return None


def _name(node: ast.expr) -> str:
    """The word that a call calls."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id
    found = _cut(ast.unparse(node))
    words = {*CONTAINERS, *ELEMENTS}
    remedy = f"Write {found}(...)." if found in words else "Only calls with constants are read."
    raise UsageError(f"Expected a domain such as {EXAMPLE}, found {found!r}. {remedy}")


def _called(name: str, call: Callable[..., Any], signed: Callable[..., Any], node: ast.expr) -> Any:
    """Call what a word stands for; `signed` has the signature that its arguments must fit."""
    assert isinstance(node, ast.Call)
    signature = inspect.signature(signed)
    kept = [p for p in signature.parameters.values() if p.kind is not p.POSITIONAL_ONLY]
    usage = f"{name}({', '.join(_usage(p) for p in kept)})"
    open_names = any(p.kind is p.VAR_KEYWORD for p in kept)
    given: dict[str, object] = {}
    for keyword in node.keywords:
        word = keyword.arg
        if word is None:
            raise UsageError(f"Expected {usage}, found **. Write every argument out.")
        if word not in {p.name for p in kept} and not open_names:
            right = [p.name for p in kept if p.kind is not p.VAR_POSITIONAL]
            hint = nearest(word, right) if right else "it takes no named arguments."
            raise UsageError(f"Expected {usage}, found {word!r}: {hint}")
        if word in given:
            raise UsageError(f"Expected {usage}, found {word!r} twice. Remove one.")
        given[word] = _value(keyword.value)
    for argument in node.args:
        if isinstance(argument, ast.Starred):
            raise UsageError(f"Expected {usage}, found *. Write every argument out.")
    values = [_value(argument) for argument in node.args]
    try:
        signature.replace(parameters=kept).bind(*values, **given)
    except TypeError as error:
        raise UsageError(f"Expected {usage}, found {_cut(ast.unparse(node))}: {error}.") from None
    return call(*values, **given)


def _usage(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"{parameter.name}..."
    if parameter.kind is parameter.VAR_KEYWORD:
        return "name=element..."
    return str(parameter.replace(annotation=inspect.Parameter.empty))


def _cut(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _own(text: str, wanted: Wanted, path: Path | None) -> Built:
    """A user's own strategy, or what a function of theirs without arguments gives."""
    found = resolve("domain", text, {}, path=path)
    if callable(found) and not isinstance(found, SearchStrategy):
        try:
            found = found()
        except Exception as error:
            raise UsageError(
                f"Expected {text} to give a strategy when called without arguments, "
                f"found {type(error).__name__}: {error}. Give every argument a default."
            ) from error
    if not isinstance(found, SearchStrategy):
        raise UsageError(
            f"Expected {text} to be a Hypothesis strategy of neighbours, found {type(found).__name__}. "
            "Write it with dpaudit.strategies.neighbouring, or draw 2-tuples."
        )
    return _drawn_by(found, text, wanted)


def _drawn_by(strategy: SearchStrategy[Any], text: str, wanted: Wanted) -> Built:
    adjacency = wanted.adjacency or Adjacency.ADD_REMOVE

    def pair(drawn: object) -> Neighbours[Any]:
        made = wrapped(drawn, adjacency)
        if made is None:
            raise UsageError(
                f"Expected {text} to draw Neighbours or 2-tuples, found {type(drawn).__name__}. "
                "Draw (data, neighbour)."
            )
        return made

    pairs = strategy.map(pair)
    return Built(
        adjacency=adjacency,
        pairs=pairs.filter(lambda made: not made.outside) if wanted.inside else pairs,
        patterns=(),
        summary=f"pairs drawn by {text}",
    )
