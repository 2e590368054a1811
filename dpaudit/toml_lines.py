"""At which line of a TOML text each key stands: the parser does not say."""

from __future__ import annotations

import tomllib
from typing import Any

KeyPath = tuple[str, ...]


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line of every key and table, by its path; lines inside multi-line values may be missed."""
    found: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        bare = line.strip()
        if bare.startswith("["):
            table = _path_of(bare)
            if bare.startswith("[[") and table:
                counts[table] = counts.get(table, -1) + 1
                table = (*table, str(counts[table]))
            found.setdefault(table, number)
        elif "=" in bare and not bare.startswith("#"):
            found.setdefault(table + _path_of(bare.split("=", 1)[0] + "= 0"), number)
    return found


def _path_of(line: str) -> KeyPath:
    """The path that one line of TOML names; empty if the line is not a whole statement."""
    try:
        value: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(value, (dict, list)) and value:
        if isinstance(value, list):
            value = value[0]
            continue
        key, value = next(iter(value.items()))
        path.append(key)
    return split(tuple(path))


def split(path: KeyPath) -> KeyPath:
    """The same path for a quoted key with a dot and for two bare keys."""
    return tuple(part for key in path for part in key.split("."))
