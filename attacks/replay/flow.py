"""What a step does besides releasing a sum: the same for every batch, or it tells something about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dpaudit.check import FloatArray
from dpaudit.evidence import Finding, Note
from dpaudit.protocols import Execution

_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An execution under frozen noise, and the batch in words."""

    batch: str
    execution: Execution


def of_one(seen: Seen) -> Iterator[Finding]:
    """A step hands over one gradient and is accounted for once."""
    done = seen.execution
    if done.updates != 1:
        yield Finding(
            check="one release for each step",
            where=seen.batch,
            expected="one gradient handed to the underlying optimizer",
            measured=f"{done.updates} different ones" if done.updates else "none: the step was skipped",
            epsilon=None,
            remedy="Make exactly one noisy update for each batch that was drawn, an empty one included.",
        )
    if done.accounted is not None and done.accounted != 1:
        yield Finding(
            check="one accounted step for each step",
            where=seen.batch,
            expected="one call of the accountant",
            measured=f"{done.accounted}",
            epsilon=None,
            remedy="Call the step hook exactly once for each noisy step.",
        )


def of_two(one: Seen, other: Seen) -> Iterator[Finding]:
    """What the step does beside its release does not tell two neighbouring batches apart."""
    where = f"{one.batch} and {other.batch}"
    first, second = one.execution, other.execution
    if (first.updates, first.accounted) != (second.updates, second.accounted):
        yield Finding(
            check="control flow",
            where=where,
            expected=f"{first.updates} updates and {first.accounted} accounted steps for both",
            measured=f"{second.updates} and {second.accounted}",
            epsilon=float("inf"),
            remedy="Never skip, repeat or account a step because of what is in the batch.",
        )
    if first.updates and second.updates and first.beside != second.beside:
        yield Finding(
            check="weights written beside the release",
            where=where,
            expected="weights that change through the underlying optimizer only",
            measured="the step itself wrote into the weights, and differently for the two batches",
            epsilon=float("inf"),
            remedy="Update the weights from the noisy gradient alone.",
        )


def noise_apart(one: FloatArray, other: FloatArray, words: str, rounding: float = 0.0) -> Iterator[Finding]:
    """Under one random state, the noise is the same for every batch.

    Args:
        one: (d,) noise of one batch.
        other: (d,) noise of another.
        words: the batches.
        rounding: norm of what rounding may have changed in either.
    """
    size = float(np.linalg.norm(one))
    apart = float(np.linalg.norm(one - other))
    if size > 0 and not apart <= _ROUNDING * size + rounding:
        yield Finding(
            check="noise does not depend on the batch",
            where=words,
            expected="the same noise under the same random state",
            measured=f"noise that differs by {apart / size:.2g} of its norm",
            epsilon=None,
            remedy="Draw the noise from noise_multiplier and max_grad_norm alone, and divide by the expected "
            "batch size, not by the actual one.",
        )


def residual(released: FloatArray, clip: float, words: str) -> Iterator[Finding]:
    """A batch of zero gradients, without noise, releases nothing.

    Args:
        released: (d,) release of such a batch.
        clip: the clipping norm.
        words: the step.
    """
    size = float(np.linalg.norm(released)) / clip
    if not size <= _ROUNDING:
        yield Finding(
            check="no state carried over",
            where=words,
            expected="a release of nothing from a batch of zero gradients, without noise",
            measured=f"one of norm {size:.3g} clipping norms, left over from earlier batches",
            epsilon=None,
            remedy="Clear summed gradients after each step: call optimizer.zero_grad().",
        )


def settings_apart(
    one: tuple[float, ...], again: tuple[float, ...], other: tuple[float, ...], words: str
) -> Iterator[Finding]:
    """A clipping norm or learning rate that is computed from the batch carries noise of its own.

    Args:
        one: clipping norm and learning rates after a batch.
        again: after the same batch under other noise.
        other: after a neighbouring batch.
        words: the step.
    """
    if one[0] == again[0] and one[0] != other[0]:
        yield _unnoised("clipping norm", one[0], other[0], words)
    rates = zip(one[1:], again[1:], other[1:], strict=True)
    for first, second, third in rates:
        if first == second and first != third:
            yield _unnoised("learning rate", first, third, words)
            return


def _unnoised(what: str, one: float, other: float, words: str) -> Finding:
    return Finding(
        check=f"{what} without noise",
        where=words,
        expected=f"a {what} that does not change with one record, or carries noise",
        measured=f"{one:.4g} after a batch, whatever the noise, and {other:.4g} after its neighbour",
        epsilon=float("inf"),
        remedy=f"Add noise to the statistic that adapts the {what}, and account for it.",
    )


def repeated(words: str) -> Finding:
    """Noise that was drawn before."""
    return Finding(
        check="noise drawn anew",
        where=words,
        expected="different noise in two draws",
        measured="the same values",
        epsilon=float("inf"),
        remedy="Do not seed the noise generator inside the step, and draw the noise of every tensor anew.",
    )


def raised(batch: str, error: Exception) -> Note:
    """A batch on which the step does not run at all."""
    return Note(
        check="the step runs on every batch",
        where=batch,
        measured=f"{type(error).__name__}: {error}"[:200],
        meaning="A run that dies says what its batch was like; batches of this kind must not occur.",
    )


def not_finite(kind: str, released: FloatArray) -> Note | None:
    """What a record that is not a number does to a release."""
    bad = int((~np.isfinite(released)).sum())
    if not bad:
        return None
    return Note(
        check="records that are not finite",
        where=f"a gradient of {kind}",
        measured=f"{bad} of {released.size} released values are not finite",
        meaning="No noise hides such a record. Opacus lets it through, too: make sure that no record can "
        "overflow the forward or backward pass, or set such gradients to 0.",
    )


def post_processed(batches: int) -> Note:
    """What is released is made of the noisy sum, at which the step was looked at."""
    return Note(
        check="post-processing",
        where="every step",
        measured="what is released is a function of the noisy sum: "
        f"the same for {batches} batches whose noisy sums were made equal",
        meaning="Post-processing costs no privacy. Sensitivity and noise were measured at the noisy sum.",
    )


def lost_noise(words: str) -> Note:
    """A release in which noise cannot be told from an overflow."""
    return Note(
        check="releases that are not finite",
        where=words,
        measured="noise that is not a number",
        meaning="The gradients of the batch, or state that the step keeps, overflowed: such releases are no "
        "draw of the noise.",
    )
