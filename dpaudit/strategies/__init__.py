"""Hypothesis strategies for testing private code: neighbours, special values, gradients, ledgers.

Special values are written out rather than hoped for: a lower clip that is missing, a NaN that passes
`np.clip`, a sum that wraps, are found by the inputs below and seldom by uniformly random ones.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "dpaudit.strategies needs Hypothesis, which is not installed: run `pip install hypothesis`.",
        name="hypothesis",
    ) from None

from dpaudit.strategies.answers import answer_patterns, neighbouring_answers
from dpaudit.strategies.containers import (
    REPEATS,
    neighbouring_arrays,
    neighbouring_columns,
    neighbouring_lists,
    neighbouring_records,
)
from dpaudit.strategies.elements import (
    Element,
    boolean,
    category,
    integer,
    joint,
    real,
    record,
    texts,
    vector,
)
from dpaudit.strategies.neighbours import Neighbours, neighbouring
from dpaudit.strategies.numbers import numbers, special_floats, special_integers
from dpaudit.strategies.patterns import list_patterns, user_patterns
from dpaudit.strategies.texts import special_texts
from dpaudit.strategies.training import gradients, ledgers, phases
from dpaudit.strategies.users import neighbouring_users
from dpaudit.strategies.values import neighbouring_values, value_patterns

__all__ = [
    "REPEATS",
    "Element",
    "Neighbours",
    "answer_patterns",
    "boolean",
    "category",
    "gradients",
    "integer",
    "joint",
    "ledgers",
    "list_patterns",
    "neighbouring",
    "neighbouring_answers",
    "neighbouring_arrays",
    "neighbouring_columns",
    "neighbouring_lists",
    "neighbouring_records",
    "neighbouring_users",
    "neighbouring_values",
    "numbers",
    "phases",
    "real",
    "record",
    "special_floats",
    "special_integers",
    "special_texts",
    "texts",
    "user_patterns",
    "value_patterns",
    "vector",
]
