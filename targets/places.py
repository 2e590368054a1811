"""Names that a user knows things by: of parameters in the model, and of the line that makes the steps."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

_LIBRARIES = ("site-packages", "dist-packages", "<frozen", contextlib.__file__, functools.__file__)
_WRAPPERS = re.compile(r"^(_?module\.)+")


def names_of(module: Any) -> dict[int, str]:
    """Names of parameters by identity, without the prefixes of the wrappers that training adds."""
    if not isinstance(module, nn.Module):
        return {}
    return {id(parameter): _WRAPPERS.sub("", name) for name, parameter in module.named_parameters()}


def definition(function: Any) -> str:
    """File and line where a function begins; empty where its source is not at hand."""
    try:
        file, (_, line) = inspect.getsourcefile(function), inspect.getsourcelines(function)
    except (OSError, TypeError):
        return ""
    return f"{Path(file).name}:{line}" if file else ""


def caller() -> str:
    """File and line of the innermost code that belongs to no library; empty where there is none.

    The frames beyond the one that calls a training function are of whoever audits.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module, file = str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename
        if module == "dpaudit.targets.observed":
            return ""
        if not module.startswith("dpaudit.") and not any(mark in file for mark in _LIBRARIES):
            return f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
