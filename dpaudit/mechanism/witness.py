"""A witness: two neighbouring data sets and an event, written down so that anybody can count again."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dpaudit import __version__
from dpaudit.attacks.event_search.events import Event
from dpaudit.check import in_range
from dpaudit.documents import contents, json_of
from dpaudit.errors import UsageError
from dpaudit.mechanism.confirmation import Confirmation
from dpaudit.mechanism.encoding import decode, encode
from dpaudit.stats.guarantees import ApproximateDP, GaussianDP, Guarantee, RenyiDP, SeveralDP
from dpaudit.store import write_atomic

SCHEMA_VERSION = 1
_KINDS: dict[str, type[Any]] = {
    "approximate": ApproximateDP,
    "several": SeveralDP,
    "gaussian": GaussianDP,
    "renyi": RenyiDP,
}
_LARGEST = 50_000_000
_MOST_TRIALS = 10**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What to draw, what to count, and what was counted.

    Attributes:
        schema_version: of this document.
        mechanism: name by which it is imported, or text of what was passed.
        claim_kind: "approximate", "several", "gaussian" or "renyi".
        claim: its fields.
        domain: of the data.
        adjacency: between the data sets.
        outside: whether a record lies outside of the domain.
        likelier: data set, encoded, on which the event is likelier.
        other: its neighbour, encoded.
        event: what is counted.
        event_words: the same for a reader.
        hits: on the likelier data set.
        other_hits: on the neighbour.
        trials: outputs on the likelier data set.
        other_trials: outputs on the neighbour.
        alpha: of the test, over all events that were tested on the same outputs.
        event_alpha: the part of it with which the exact test at the end bounds this event: with it, the
            counts give `lower`, unless bets on the way gave more. None in older files.
        lower: lower bound of the claim's parameter.
        epsilon_lower: lower bound of epsilon at the claim's delta.
        p_value: of the test.
        seed: of the audit.
        random_state: where the mechanism's randomness came from.
        versions: of what ran.
        created: when, UTC.
    """

    schema_version: int
    mechanism: str
    claim_kind: str
    claim: dict[str, Any]
    domain: str
    adjacency: str
    outside: bool
    likelier: Any
    other: Any
    event: Event
    event_words: str
    hits: int
    other_hits: int
    trials: int
    other_trials: int
    alpha: float
    lower: float
    epsilon_lower: float
    p_value: float
    seed: int
    random_state: str
    versions: dict[str, str]
    created: str
    event_alpha: float | None = None

    def __post_init__(self) -> None:
        """Refuse counts, claims and seeds that cannot be, such as in a file that somebody changed."""
        for name in ("trials", "other_trials"):
            in_range(name, getattr(self, name), 1, _MOST_TRIALS, remedy="Restore the file.")
        in_range("hits", self.hits, 0, self.trials, remedy="Restore the file.")
        in_range("other_hits", self.other_hits, 0, self.other_trials, remedy="Restore the file.")
        in_range("seed", self.seed, 0, 2**63, remedy="Restore the file.")
        _ = self.guarantee

    @property
    def guarantee(self) -> Guarantee:
        """The claim.

        Raises:
            UsageError: it is none.
        """
        if self.claim_kind not in _KINDS:
            raise UsageError(f"Expected a kind of claim among {sorted(_KINDS)}, found {self.claim_kind!r}.")
        try:
            fields = {k: tuple(map(tuple, v)) if k == "points" else v for k, v in self.claim.items()}
            made: Guarantee = _KINDS[self.claim_kind](**fields)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"Expected a {self.claim_kind} claim, found {str(self.claim)[:200]}: {error}."
            ) from None
        return made

    def data(self) -> tuple[Any, Any]:
        """The likelier data set and its neighbour.

        Raises:
            UsageError: they are no plain data, so that they were only written as text.
        """
        try:
            return decode(self.likelier), decode(self.other)
        except RecursionError:
            raise UsageError("Expected data sets, found data too deep to be any. Restore the file.") from None

    def save(self, path: Path) -> None:
        """Write JSON, at once or not at all."""
        document = _ADAPTER.dump_python(self, mode="python")
        write_atomic(path, json.dumps(_readable(document), indent=1).encode())


_ADAPTER: TypeAdapter[Witness] = TypeAdapter(Witness)


def witness(
    confirmation: Confirmation,
    guarantee: Guarantee,
    *,
    mechanism: str,
    domain: str,
    seed: int,
    random_state: str,
) -> Witness:
    """Write a confirmation down."""
    choice, pair = confirmation.tried.choice, confirmation.tried.pair
    assert choice is not None
    likelier, other = (pair.second, pair.first) if choice.swapped else (pair.first, pair.second)
    counts = confirmation.counts
    kind = next(name for name, made in _KINDS.items() if isinstance(guarantee, made))
    return Witness(
        schema_version=SCHEMA_VERSION,
        mechanism=mechanism,
        claim_kind=kind,
        claim=asdict(guarantee),  # type: ignore[call-overload]
        domain=domain,
        adjacency=str(pair.adjacency),
        outside=pair.outside,
        likelier=encode(likelier),
        other=encode(other),
        event=choice.event,
        event_words=choice.event.words(),
        hits=counts.hits,
        other_hits=counts.other_hits,
        trials=counts.trials,
        other_trials=counts.other_trials,
        alpha=confirmation.alpha,
        event_alpha=confirmation.event_alpha,
        lower=confirmation.lower,
        epsilon_lower=confirmation.epsilon_lower,
        p_value=confirmation.p_value,
        seed=seed,
        random_state=random_state,
        versions=_versions(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("numpy", "scipy", "scikit-learn", "hypothesis")}
    return {"dpaudit": __version__, "python": platform.python_version(), **found}


def load(path: Path) -> Witness:
    """Read a witness; nothing in it is executed.

    Raises:
        UsageError: missing, too large, not JSON, of a newer schema, or not a witness.
    """
    try:
        document = json_of(contents(path, _LARGEST))
    except FileNotFoundError:
        raise UsageError(
            f"Expected a witness at {path}, found nothing. `dpaudit mechanism` writes one."
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"Expected {path} to be a JSON witness, found: {error}.") from None
    number = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(number, int) or number > SCHEMA_VERSION:
        raise UsageError(
            f"Expected schema_version<={SCHEMA_VERSION} in {path}, found {number!r}. "
            "It is no witness, or was written by a newer dpaudit."
        )
    try:
        return _ADAPTER.validate_python(_unreadable(document))
    except (RecursionError, OverflowError) as error:
        raise UsageError(f"Expected a witness in {path}, found: {error}. Restore the file.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"Expected a complete witness in {path}, found at {where}: {first['msg']}."
        ) from None


def _readable(value: Any) -> Any:
    """Infinities and NaN, for which JSON has no word, as their texts."""
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return {"$": "float", "value": repr(value)}
    return value


def _unreadable(value: Any) -> Any:
    """The reverse, except in data, which have their own decoding."""
    if isinstance(value, dict):
        if value.keys() == {"$", "value"} and value["$"] == "float" and isinstance(value["value"], str):
            return float(value["value"]) if value["value"] in ("nan", "inf", "-inf") else value
        return {k: v if k in ("likelier", "other") else _unreadable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_unreadable(item) for item in value]
    return value
