"""What the verdict says and does not say, in plain words, and the glossary."""

from __future__ import annotations

from collections.abc import Iterator

from dpaudit.estimate import Rate
from dpaudit.record import AuditRecord, TargetRecord
from dpaudit.reports import numbers
from dpaudit.verdict import Status

GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "Access",
        "What the adversary of an attack sees: the ledger, a replayed step, every step, or the final model.",
    ),
    (
        "Adjacency",
        "Which data sets count as neighbours: one record more or less (add-remove) or one "
        "exchanged (replace-one). Epsilons under different adjacencies are never compared.",
    ),
    (
        "AUC",
        "Chance that a membership score ranks a random member above a random non-member; 0.5 is guessing.",
    ),
    (
        "Canary",
        "A record or gradient that the audit itself inserts, so that its presence can be tested for.",
    ),
    (
        "Ceiling",
        "The largest lower bound that this many observations could have shown. Below the claim, "
        "the test could not have refuted it.",
    ),
    (
        "Claim",
        "The epsilon and delta that the training is said to satisfy, with its adjacency and unit.",
    ),
    (
        "Control",
        "The same attacks on a model that must be caught. A control that is not caught makes a "
        "quiet result worthless.",
    ),
    (
        "Delta (δ)",
        "The probability mass that the epsilon of a claim does not speak of.",
    ),
    (
        "Detectable",
        "The smallest true epsilon at which this design would refute the claim nine times in ten.",
    ),
    (
        "Epsilon (ε)",
        "How far one record can shift the odds of any conclusion drawn from the model, as a "
        "natural logarithm: ε 1 is a factor of 2.7, ε 5 a factor of 148.",
    ),
    (
        "FPR",
        "False-positive rate: the share of non-members that an attack calls members.",
    ),
    (
        "Ledger",
        "The phases of training that really ran: sampling rate, noise, clipping norm and steps.",
    ),
    (
        "Level (alpha)",
        "The probability of a false alarm if the claim holds; one level is spent over all tests together.",
    ),
    (
        "Lower bound",
        "The data contradict every smaller epsilon at the stated level. It says how much leaks at "
        "least, never how little.",
    ),
    (
        "p-value",
        "How surprising the observations would be if the claim held.",
    ),
    (
        "Reconstruction",
        "Recovering a record from the model or its gradients; its success is read against the "
        "best guess without them.",
    ),
    (
        "TPR",
        "True-positive rate: the share of members that an attack finds, read at a small FPR.",
    ),
    (
        "Trade-off curve",
        "The least false-negative rate that a claim leaves to any attack at each FPR.",
    ),
)

STATUS_WORDS = {
    "REFUTED": "What was observed contradicts a claim.",
    "NOT REFUTED": "The attacks had power and did not contradict the claim.",
    "INCONCLUSIVE": "Too little was observed to say.",
}


def audited(record: AuditRecord) -> tuple[TargetRecord, ...]:
    """The targets whose claim is judged."""
    return tuple(target for target in record.targets if target.role == "audited")


def controls(record: AuditRecord) -> tuple[TargetRecord, ...]:
    """The targets that must be caught."""
    return tuple(target for target in record.targets if target.role == "control")


def shown(record: AuditRecord) -> tuple[TargetRecord, ...]:
    """Every target in the order of a report: the audited ones, then the controls."""
    return (*audited(record), *controls(record))


def names(targets: tuple[TargetRecord, ...]) -> str:
    """The names of some targets as a phrase: `a, b and c`."""
    words = [target.name for target in targets]
    return (
        words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "no target"
    )


def claim(target: TargetRecord) -> str:
    """The claim of a target in one line."""
    if target.claim is None:
        return "no claim"
    return (
        f"ε {numbers.epsilon(target.claim.epsilon)} at δ {numbers.power_of_ten(target.claim.delta)}, "
        f"{target.claim.adjacency}, per {target.claim.unit}"
    )


def headline(record: AuditRecord) -> str:
    """The verdict of the whole audit as one sentence."""
    judged = audited(record)
    if record.status == Status.REFUTED:
        refuted = tuple(target for target in judged if target.verdict.status is Status.REFUTED) or judged
        noun = "claim" if len(refuted) == 1 else "claims"
        verb = "does" if len(refuted) == 1 else "do"
        return f"The {noun} of {names(refuted)} {verb} not hold."
    if record.status == Status.NOT_REFUTED:
        noun = "claim" if len(judged) == 1 else "claims"
        return f"This audit did not refute the {noun} of {names(judged)}."
    if judged and all(target.claim is None and target.verdict.decided_by == "linkage" for target in judged):
        return f"What is known of people in {names(judged)} without names."
    return f"This audit cannot say whether the claim of {names(judged)} holds."


def recovered(target: TargetRecord) -> tuple[str, ...]:
    """What attacks recovered of records, one sentence each, to be quoted."""
    return (*_named(target), *_guessed(target))


def _named(target: TargetRecord) -> Iterator[str]:
    """Games of one of n."""
    for curve in target.curves:
        if curve.kind != "reconstruction":
            continue
        for baseline in curve.x:
            n = round(1 / baseline)
            sources = (f"{curve.source}, 1 of {n}", *((curve.source,) if len(curve.x) == 1 else ()))
            for rate in target.rates:
                if rate.name == "reconstruction_success" and rate.source in sources:
                    yield (
                        f"{curve.source} named the right one of {n:,} candidates in "
                        f"{numbers.percent(rate.value)} of {rate.n:,} games "
                        f"({numbers.interval(rate.name, rate.lower, rate.upper)}); guessing names "
                        f"{numbers.percent(baseline)}{_allowed(rate)}."
                    )


def _guessed(target: TargetRecord) -> Iterator[str]:
    """Sensitive columns of members, beside people who were out."""
    shares = {(r.source, r.slice): r for r in target.rates if r.name == "attribute_success"}
    for (source, where), inside in shares.items():
        others = shares.get((source, "others"))
        if where == "members" and others is not None:
            yield (
                f"{source} guessed the sensitive value of {numbers.percent(inside.value)} of members "
                f"({numbers.interval(inside.name, inside.lower, inside.upper)}) and of "
                f"{numbers.percent(others.value)} of people who were out "
                f"({numbers.interval(others.name, others.lower, others.upper)}){_allowed(inside)}"
                f"{numbers.given(inside.assumptions)}."
            )


def _allowed(rate: Rate) -> str:
    if rate.limit is None:
        return ""
    return f", and the claim allows at most {numbers.rate(rate.name, rate.limit, end='upper')}"


def control_sentence(record: AuditRecord) -> str:
    """What the positive controls showed."""
    found = controls(record)
    if not found:
        return "No positive control ran, so nothing shows that these attacks would have caught a fault."
    caught = tuple(target for target in found if target.caught)
    missed = tuple(target for target in found if not target.caught)
    if not missed:
        noun = "control" if len(found) == 1 else "controls"
        return f"The same attacks caught the {noun} ({names(caught)}), as they must."
    return f"The same attacks did not catch {names(missed)}, as they must: a quiet result means nothing here."


def trials_sentence(record: AuditRecord) -> str:
    """Whether every trial of the plan is there."""
    missing = sum(trial.status not in ("finished", "cached") for trial in record.trials)
    if not missing:
        return ""
    return f"{numbers.count(missing)} of {numbers.many(len(record.trials), 'trial')} missing."


def not_said(record: AuditRecord) -> tuple[str, ...]:
    """What the verdict must not be taken for."""
    first = {
        "REFUTED": (
            "It does not say who is to blame or how many records leaked: the bound is about the adversary "
            f"with the stated access. Were every claim true, a refutation would be reported in at most "
            f"{numbers.level(record.alpha)} of audits like this one."
        ),
        "NOT REFUTED": (
            "It does not say that the claim is true. A lower bound says how much leaks at least, never how "
            "little; another attack, or more observations, may show more."
        ),
    }.get(
        record.status,
        "It is not a pass. Attacks that find nothing without the power to find something say nothing.",
    )
    units = sorted({f"{t.claim.unit} ({t.claim.adjacency})" for t in audited(record) if t.claim})
    skipped = sorted({row.attack for row in record.coverage if row.status == "NOT RUN"})
    lines = [first]
    if units:
        lines.append(f"It speaks of one {' and of one '.join(units)}, and of no other unit or relation.")
    if skipped:
        lines.append(f"It says nothing about what did not run: {', '.join(skipped)}.")
    lines.append("It is about these runs of this code on this data; a new training run needs a new audit.")
    return tuple(lines)
