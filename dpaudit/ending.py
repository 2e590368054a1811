"""How a training script ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a script ended.

    Attributes:
        how: "finished", "crashed" (an exception, or an exit code that is not 0), "stopped" (by an attack) or
            "interrupted".
        code: that the interpreter would have ended with.
        message: of the exception, in one line.
        where: file and line in the user's own code.
        step: at which an attack stopped it.
    """

    how: str
    code: int = 0
    message: str = ""
    where: str = ""
    step: int | None = None
