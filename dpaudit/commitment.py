"""What is fixed before training: plan, policy, data, draw, code and packages by their hashes, and the trials.

`commitment.json` lies in the record's folder before the first model is trained. Data and draw are hashed
with a salt that stays in `trials/`, so that nobody who guesses the data can confirm it from the record.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from dpaudit.address import Place
from dpaudit.documents import contents, json_of
from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, TrialRecord, load
from dpaudit.store import unread, write_atomic, write_first

COMMITMENT_NAME = "commitment.json"
SALT_NAME = "trials/salt.json"
_SALT_BYTES = 16
_LOOKS, _BETWEEN = 10, 0.1
"""How often a salt is looked for that another driver is writing, and seconds from look to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """What an audit is going to do.

    Attributes:
        created: when it was written, ISO 8601, UTC.
        plan_sha256: of the plan.
        policy_sha256: of the policy file that applies, or empty.
        data_sha256: of salt and data.
        canary_commitment: of salt and draw: who is in, and which records are canaries.
        code_sha256: of attacks, targets and the user's own modules.
        lock_sha256: of `packages`.
        packages: every installed distribution with its version.
        seed: from which every random stream is derived.
        alpha: error probability of the whole audit.
        weights: by which it is shared among the attacks.
        trials: names of the trials that are planned.
    """

    created: str
    plan_sha256: str
    policy_sha256: str
    data_sha256: str
    canary_commitment: str
    code_sha256: str
    lock_sha256: str
    packages: tuple[str, ...]
    seed: int
    alpha: float
    weights: dict[str, float]
    trials: tuple[str, ...]

    def sha256(self) -> str:
        """Of its file."""
        return hashlib.sha256(self.dump()).hexdigest()

    def dump(self) -> bytes:
        """Its file: JSON with sorted keys."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


def commit(
    folder: Place,
    *,
    data: str,
    draw: str,
    plan: str,
    policy: str,
    code: str,
    seed: int,
    alpha: float,
    weights: Mapping[str, float],
    trials: Iterable[str],
) -> Commitment:
    """Write the commitment of an audit, or find that it stands already.

    An audit that goes on keeps the time of its first commitment; so do several drivers that begin at once.
    One of another content is written anew.

    Args:
        folder: of the record.
        data: SHA-256 of the data, without salt.
        draw: SHA-256 of the draw, likewise.
        plan: SHA-256 of the plan.
        policy: SHA-256 of the policy file, or empty.
        code: SHA-256 of the code.
        seed: of the plan.
        alpha: of the plan.
        weights: of the attacks.
        trials: names of the planned trials.

    Raises:
        StoreError: the folder cannot be written.
    """
    salt = drawn_salt(folder)
    packages = installed()
    made = Commitment(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        plan_sha256=plan,
        policy_sha256=policy,
        data_sha256=salted(salt, data),
        canary_commitment=salted(salt, draw),
        code_sha256=code,
        lock_sha256=hashlib.sha256("\n".join(packages).encode()).hexdigest(),
        packages=packages,
        seed=seed,
        alpha=alpha,
        weights=dict(sorted(weights.items())),
        trials=tuple(trials),
    )
    file = folder / COMMITMENT_NAME
    earlier = read(folder)
    if earlier is None and not write_first(file, made.dump()):
        earlier = read(folder)
    if earlier is not None and replace(earlier, created=made.created) == made:
        return earlier
    write_atomic(file, made.dump())
    return made


def read(folder: Place) -> Commitment | None:
    """The commitment in a folder; None if there is none, or none that can be read."""
    try:
        document = json_of(contents(folder / COMMITMENT_NAME))
        tuples = {name: tuple(document[name]) for name in ("packages", "trials")}
        return Commitment(**{**document, **tuples})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def salted(salt: str, digest: str) -> str:
    """SHA-256 of a salt and a digest, both given in hexadecimal digits; empty for an empty digest."""
    return hashlib.sha256(bytes.fromhex(salt + digest)).hexdigest() if digest else ""


def salt_of(folder: Place) -> str | None:
    """The salt of a record's hashes of data, in hexadecimal digits; None where it is not there."""
    try:
        return _salt(folder)
    except OSError:
        return None


def _salt(folder: Place) -> str | None:
    try:
        salt: str = json_of(contents(folder / SALT_NAME))["salt"]
        return salt if len(bytes.fromhex(salt)) == _SALT_BYTES else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def installed() -> tuple[str, ...]:
    """Every installed distribution with its version, such as "numpy==2.4.6", in order."""
    found = importlib.metadata.distributions()
    return tuple(sorted({f"{item.name.lower()}=={item.version}" for item in found if item.name}))


def counted(folder: Place, trials: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Trials with the number of times they were started, as far as an earlier record in `folder` tells."""
    try:
        earlier = {trial.key: trial.attempts for trial in load(folder / RECORD_NAME).trials}
    except UsageError:
        earlier = {}

    def attempts(trial: TrialRecord) -> int:
        before = earlier.get(trial.key, 0)
        return max(before, 1) if trial.status == "cached" else before + 1

    return tuple(replace(trial, attempts=attempts(trial)) for trial in trials)


def excluded(folder: Place, planned: Iterable[str]) -> tuple[str, ...]:
    """Names of finished trials that lie in the folder and are no part of the plan.

    Raises:
        StoreError: the folder cannot be read.
    """
    try:
        found = {path.stem for path in (folder / "trials").iterdir() if path.suffix == ".npz"}
    except OSError as error:
        raise unread(folder / "trials", error) from None
    return tuple(sorted(found - set(planned)))


def drawn_salt(folder: Place) -> str:
    """The salt of a folder, in hexadecimal digits, drawn when it is first asked for.

    Drivers that begin at once take that of the first one: trials are named by it, and shared. One that is
    damaged is drawn anew; one that cannot be read is not, since no trial would be found again.

    Raises:
        StoreError: the folder cannot be written, or the salt not read.
    """
    drawn = json.dumps({"salt": secrets.token_hex(_SALT_BYTES)}).encode()
    for _ in range(_LOOKS):
        if (salt := _readable_salt(folder)) is not None:
            return salt
        if not write_first(folder / SALT_NAME, drawn):
            time.sleep(_BETWEEN)
    write_atomic(folder / SALT_NAME, drawn)
    return str(json.loads(drawn)["salt"])


def _readable_salt(folder: Place) -> str | None:
    try:
        return _salt(folder)
    except OSError as error:
        raise unread(folder / SALT_NAME, error) from None
