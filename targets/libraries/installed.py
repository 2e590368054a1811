"""Imports of the audited libraries: one line of advice where one is missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from dpaudit.errors import UsageError

# Aliases that scikit-learn dropped from this private module, and that diffprivlib 0.6.6 still imports.
_DROPPED = {"DOUBLE": np.float64, "DTYPE": np.float32}


def library(module: str, *, package: str, extra: str) -> ModuleType:
    """Import a module of an optional library.

    Args:
        module: dotted name, such as "opendp.prelude".
        package: name under which it is installed, for the error.
        extra: the extra of dpaudit that installs it.

    Raises:
        UsageError: the library is missing, or does not import beside what is installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"Expected {package} to import, found {error}. Run pip install 'dpaudit[{extra}]'."
        ) from error


def diffprivlib(part: str) -> ModuleType:
    """Import "mechanisms", "tools" or "models" of diffprivlib.

    Raises:
        UsageError: diffprivlib is missing or does not import.
    """
    with _dropped_names():
        return library(f"diffprivlib.{part}", package="diffprivlib", extra="diffprivlib")


@contextmanager
def _dropped_names() -> Iterator[None]:
    """Lend scikit-learn the two aliases while diffprivlib is imported, which it cannot be without them."""
    from sklearn.tree import _tree

    lent = [name for name in _DROPPED if not hasattr(_tree, name)]
    for name in lent:
        setattr(_tree, name, _DROPPED[name])
    try:
        yield
    finally:
        for name in lent:
            delattr(_tree, name)
