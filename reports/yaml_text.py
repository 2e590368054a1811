"""Plain values as YAML: block style, with every scalar as JSON writes it, which YAML 1.2 reads alike."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any


def lines(value: dict[str, Any], indent: int = 0) -> Iterator[str]:
    """The lines of a mapping; lists of mappings and of scalars may be in it.

    Args:
        value: keys are plain words.
        indent: spaces before each line.
    """
    for key, item in value.items():
        yield from _entry(f"{' ' * indent}{key}:", item, indent)


def _entry(head: str, item: Any, indent: int) -> Iterator[str]:
    if isinstance(item, dict) and item:
        yield head
        yield from lines(item, indent + 2)
    elif isinstance(item, (list, tuple)) and item:
        yield head
        for each in item:
            yield from _element(each, indent + 2)
    else:
        yield f"{head} {_scalar(item)}"


def _element(item: Any, indent: int) -> Iterator[str]:
    """A list's element; of a mapping, the first line carries the dash."""
    if isinstance(item, dict):
        first, *rest = lines(item, indent + 2)
        yield f"{' ' * indent}- {first.lstrip()}"
        yield from rest
    else:
        yield f"{' ' * indent}- {_scalar(item)}"


def _scalar(value: Any) -> str:
    if isinstance(value, float):
        if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        text = repr(value)
        # Readers of YAML 1.1 take 1e-05 for a word: they ask for a point.
        return text if "." in text else text.replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False)
