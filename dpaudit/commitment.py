"""What is fixed before training: plan, policy, data, draw, code and packages by their hashes, and the trials.

`commitment.json` lies in the record's folder before the first model is trained. Data and draw are hashed
with a salt that stays in `trials/`, so that nobody who guesses the data can confirm it from the record.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dpaudit.errors import UsageError
from dpaudit.record import RECORD_NAME, TrialRecord, load
from dpaudit.store import write_atomic

COMMITMENT_NAME = "commitment.json"
SALT_NAME = "trials/salt.json"
_SALT_BYTES = 16


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
    folder: Path,
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

    An audit that goes on keeps the time of its first commitment; one of another content is written anew.

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
    earlier = read(folder)
    if earlier is not None and replace(earlier, created=made.created) == made:
        return earlier
    write_atomic(folder / COMMITMENT_NAME, made.dump())
    return made


def read(folder: Path) -> Commitment | None:
    """The commitment in a folder; None if there is none, or none that can be read."""
    try:
        document = json.loads((folder / COMMITMENT_NAME).read_bytes())
        tuples = {name: tuple(document[name]) for name in ("packages", "trials")}
        return Commitment(**{**document, **tuples})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def salted(salt: str, digest: str) -> str:
    """SHA-256 of a salt and a digest, both given in hexadecimal digits; empty for an empty digest."""
    return hashlib.sha256(bytes.fromhex(salt + digest)).hexdigest() if digest else ""


def salt_of(folder: Path) -> str | None:
    """The salt of a record's hashes of data, in hexadecimal digits; None where it is not there."""
    try:
        salt = json.loads((folder / SALT_NAME).read_bytes())["salt"]
        return salt if len(bytes.fromhex(salt)) == _SALT_BYTES else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def installed() -> tuple[str, ...]:
    """Every installed distribution with its version, such as "numpy==2.4.6", in order."""
    found = importlib.metadata.distributions()
    return tuple(sorted({f"{item.name.lower()}=={item.version}" for item in found if item.name}))


def counted(folder: Path, trials: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Trials with the number of times they were started, as far as an earlier record in `folder` tells."""
    try:
        earlier = {trial.key: trial.attempts for trial in load(folder / RECORD_NAME).trials}
    except UsageError:
        earlier = {}

    def attempts(trial: TrialRecord) -> int:
        before = earlier.get(trial.key, 0)
        return max(before, 1) if trial.status == "cached" else before + 1

    return tuple(replace(trial, attempts=attempts(trial)) for trial in trials)


def excluded(folder: Path, planned: Iterable[str]) -> tuple[str, ...]:
    """Names of finished trials that lie in the folder and are no part of the plan."""
    return tuple(sorted({path.stem for path in (folder / "trials").glob("*.npz")} - set(planned)))


def drawn_salt(folder: Path) -> str:
    """The salt of a folder, in hexadecimal digits, drawn when it is first asked for.

    Raises:
        StoreError: the folder cannot be written.
    """
    if (salt := salt_of(folder)) is not None:
        return salt
    salt = secrets.token_hex(_SALT_BYTES)
    write_atomic(folder / SALT_NAME, json.dumps({"salt": salt}).encode())
    return salt
