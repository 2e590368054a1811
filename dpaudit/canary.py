"""The records of the membership game: who could be in, who was, and a commitment made before training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpaudit.check import BoolArray, FloatArray, IntArray
from dpaudit.crafting import SECRET, choose, craft
from dpaudit.errors import UsageError
from dpaudit.secret import Secrets

Groups = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """A pool of records and the random half of it that is trained on.

    Attributes:
        x: (n, ...) features of the pool, raw as the user's preprocessing expects them.
        y: (n,) labels; those of mislabelled canaries are deliberately wrong.
        member: (n,) whether the record is in the training set.
        canary: (n,) whether the record is a planted canary.
        test_x: (k, ...) records outside the game, for accuracy and as reconstruction candidates.
        test_y: (k,) their labels.
        groups: what the pool is divided by, such as wards or users, each (n,); training does not see it.
        secrets: where secrets were planted in the pool; None without any.
    """

    x: FloatArray
    y: IntArray
    member: BoolArray
    canary: BoolArray
    test_x: FloatArray
    test_y: IntArray
    groups: Groups = field(default_factory=dict)
    secrets: Secrets | None = None

    def commitment(self) -> str:
        """SHA-256 of the draw, to be published before training."""
        return _sha256(self.x, self.y, self.member, self.canary)

    @property
    def train_x(self) -> FloatArray:
        """Features of the members."""
        return self.x[self.member]

    @property
    def train_y(self) -> IntArray:
        """Labels of the members."""
        return self.y[self.member]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The records of an audit before anybody is drawn: fields as in `Canaries`.

    `member` is None but for a model that was trained by somebody else.
    """

    x: FloatArray
    y: IntArray
    canary: BoolArray
    test_x: FloatArray
    test_y: IntArray
    member: BoolArray | None = None
    groups: Groups = field(default_factory=dict)
    secrets: Secrets | None = None

    def as_given(self) -> Canaries:
        """The members of a model that was trained by somebody else.

        Raises:
            UsageError: nobody said who they are.
        """
        if self.member is None:
            raise UsageError("Expected known members, found none. Name data.non_members.")
        return self._with(self.member)

    def draw(self, rng: np.random.Generator) -> Canaries:
        """Put a random half of the canaries and a random half of the other records in.

        Exactly half, so that every training set has the same size: dropping a record would otherwise
        change the sample rate that Opacus derives from it. The neighbouring relation is replace-one.
        """
        member = np.zeros(len(self.y), dtype=np.bool_)
        for group in (np.flatnonzero(self.canary), np.flatnonzero(~self.canary)):
            member[rng.permutation(group)[: len(group) // 2]] = True
        drawn = self._with(member)
        if self.secrets is None:
            return drawn
        # Secrets are drawn anew: those of several runs would otherwise tell about one another.
        x, secrets = self.secrets.plant(self.x, self.secrets.planted, rng)
        return replace(drawn, x=x, secrets=secrets)

    def _with(self, member: BoolArray) -> Canaries:
        return Canaries(
            x=self.x,
            y=self.y,
            member=member,
            canary=self.canary,
            test_x=self.test_x,
            test_y=self.test_y,
            groups=self.groups,
            secrets=self.secrets,
        )

    def sha256(self) -> str:
        """Hash of the pool and the records beside it; without groups, which nothing is trained on."""
        given = () if self.member is None else (self.member,)
        planted = () if self.secrets is None else self.secrets.parts()
        return _sha256(self.x, self.y, self.canary, self.test_x, self.test_y, *given, *planted)


def given_pool(
    members: tuple[FloatArray, IntArray],
    others: tuple[FloatArray, IntArray],
    *,
    test_fraction: float,
    rng: np.random.Generator,
    groups: tuple[Groups, Groups] | None = None,
) -> Pool:
    """The pool of a model that is trained already.

    Args:
        members: (n, ...) features and (n,) labels that it was trained on.
        others: (k, ...) and (k,) that it was not trained on; a share of them stays outside the game.
        test_fraction: that share.
        rng: draws which.
        groups: of the members and of the others; those that only one side has are left out.

    Raises:
        UsageError: records of another shape, a record on both sides, or too few of one side.
    """
    if members[0].shape[1:] != others[0].shape[1:]:
        raise UsageError(
            f"Expected members and non-members of one shape, found {members[0].shape[1:]} and "
            f"{others[0].shape[1:]}. Bring both into the form that the model takes."
        )
    if min(len(members[1]), len(others[1])) < 20:
        raise UsageError(
            f"Expected at least 20 members and 20 non-members, found {len(members[1])} and "
            f"{len(others[1])}. Use more records."
        )
    both = len(_rows(*members) & _rows(*others))
    if both:
        raise UsageError(
            f"Expected no record on both sides, found {both}. Remove them from data.non_members."
        )
    order = rng.permutation(len(others[1]))
    test, rest = np.split(order, [max(1, round(len(order) * test_fraction))])
    x = np.concatenate([members[0], others[0][rest]])
    ours, theirs = groups or ({}, {})
    return Pool(
        x=x,
        y=np.concatenate([members[1], others[1][rest]]),
        canary=np.zeros(len(x), dtype=np.bool_),
        test_x=others[0][test],
        test_y=others[1][test],
        member=np.arange(len(x)) < len(members[1]),
        groups={
            name: np.concatenate([ours[name], theirs[name][rest]]) for name in ours.keys() & theirs.keys()
        },
    )


def _rows(x: FloatArray, y: IntArray) -> set[bytes]:
    """Each record as bytes."""
    joined = np.concatenate([x.reshape(len(x), -1), y[:, None]], axis=1, dtype=np.float64)
    return {row.tobytes() for row in joined}


def _sha256(*parts: NDArray[Any]) -> str:
    """Hash of types, shapes and bytes: without the first two, different arrays could share one hash."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def make_pool(
    x: FloatArray,
    y: IntArray,
    *,
    n_canaries: int,
    test_fraction: float,
    rng: np.random.Generator,
    kind: str = "mislabelled",
    groups: Groups | None = None,
    secrets: Secrets | None = None,
) -> Pool:
    """Set records aside for testing and make canaries of `n_canaries` of the rest.

    Args:
        x: (n, ...) features.
        y: (n,) labels.
        n_canaries: how many; a memorising model knows a mislabelled one only from having seen it.
        test_fraction: share of the records that stays outside the game.
        rng: source of the draw.
        kind: see `dpaudit.crafting.craft`.
        groups: (n,) each, to be reported apart.
        secrets: places for the secrets of canaries of the kind "secret".

    Raises:
        UsageError: fewer than 20 records or 2 classes, more canaries than half of the pool, or a kind of
            canary that is not known or cannot be had so often.
    """
    n, n_classes = len(y), int(y.max(initial=0)) + 1
    if n < 20 or n_classes < 2:
        raise UsageError(
            f"Expected at least 20 records and 2 classes, found {n} and {n_classes}. Use more data."
        )
    order = rng.permutation(n)
    n_test = max(1, round(n * test_fraction))
    test, pool = order[:n_test], order[n_test:]
    if n_canaries > len(pool) // 2:
        raise UsageError(
            f"Expected data.canaries={n_canaries} to be at most half of the pool of {len(pool)} records. "
            "Plant fewer."
        )
    outside = x[test], y[test]
    pool = pool[choose(kind, x[pool], y[pool], outside)]
    canary = np.zeros(len(pool), dtype=np.bool_)
    canary[:n_canaries] = True
    features, labels = x[pool].copy(), y[pool].copy()
    features[canary], labels[canary] = craft(kind, features[canary], labels[canary], outside, n_classes, rng)
    planted = None
    if kind == SECRET:
        features, planted = _planted(features, canary, secrets and secrets.of(pool), rng)
    return Pool(
        x=features,
        y=labels,
        canary=canary,
        test_x=x[test],
        test_y=y[test],
        groups={name: values[pool] for name, values in (groups or {}).items()},
        secrets=planted,
    )


def _planted(
    x: FloatArray, canary: BoolArray, places: Secrets | None, rng: np.random.Generator
) -> tuple[FloatArray, Secrets]:
    if places is None:
        raise UsageError(
            f'Expected places for secrets in the data source, found none for canary_kind = "{SECRET}". '
            'Return them as its fourth part, or use "tickets" or "clinical-notes".'
        )
    return places.plant(x, np.flatnonzero(canary).astype(np.int64), rng)
