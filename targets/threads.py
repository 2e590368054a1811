"""Threads of the libraries that numpy and scipy bring along."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from threadpoolctl import ThreadpoolController

_OWN = ("numpy.libs", "scipy.libs")
"""Where wheels carry a library that nobody else loads."""


@cache
def threads_of_numpy() -> ThreadpoolController:
    """Those that spin after each product and slow torch's own down.

    A library that torch shares with numpy is left alone: on its threads depends what a step comes to.
    """
    every = ThreadpoolController()
    own = [each.filepath for each in every.lib_controllers if Path(each.filepath).parent.name in _OWN]
    return every.select(filepath=own)
