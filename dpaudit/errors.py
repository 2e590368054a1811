"""The errors a user can meet: what was expected, what was found, and the remedy, in one line."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 24
"""Names that one line may list."""


class DpauditError(Exception):
    """Base of every error that is shown to the user as one line and ends with `exit_code`."""

    exit_code = 2


class UsageError(DpauditError):
    """The plan, the command or a file is wrong. Exit code 2."""


class TrialError(DpauditError):
    """A training run raised, returned nonsense or was lost. Exit code 4."""

    exit_code = 4


class Interrupted(DpauditError):
    """Somebody stopped the run. Exit code 130."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the nearest of `known`, or the list of what is known, shortened.

    Args:
        name: what was written.
        known: every right spelling.
    """
    options = sorted(known)
    close = get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f", and {len(options) - _LISTED} more" if len(options) > _LISTED else ""
    return f"known: {', '.join(options[:_LISTED])}{more}."
