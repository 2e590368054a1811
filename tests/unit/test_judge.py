"""Verdicts from views: nothing is refuted without evidence, and nothing passes without power."""

from dataclasses import replace

import numpy as np
import pytest

from dpaudit.claim import Adjacency, Claim, Phase
from dpaudit.errors import UsageError
from dpaudit.estimate import Estimate
from dpaudit.evidence import Access, Finding, Guesses, KnownNull, NoiseSample, Replay
from dpaudit.judge import judge_audit, verdict
from dpaudit.plan import AuditPlan, parse
from dpaudit.protocols import View
from dpaudit.record import TrialRecord
from tests.training import canaries

LEDGER = (Phase(noise_multiplier=1.0, sample_rate=1.0, steps=2),)
CLAIM = Claim(epsilon=6.58, delta=1e-5, ledger=LEDGER)
FINDING = Finding(check="noise", where="#0", expected="1", measured="none", epsilon=9.0, remedy="Add it.")


def estimate(lower: float | None, p: float | None, *, ceiling: float = 10.0, source: str = "a") -> Estimate:
    return Estimate(
        epsilon_lower=lower,
        delta=1e-5,
        alpha=0.01,
        adjacency=Adjacency.ADD_REMOVE,
        method="test",
        source=source,
        access=Access.STEP,
        ceiling=ceiling,
        n_observations=10,
        p_value=p,
        claimed_epsilon=2.78,
    )


def decide(*estimates: Estimate, findings=(), claim=CLAIM, lost=0) -> str:
    return str(verdict(claim, estimates, findings, {"a": 1.0, "b": 1.0}, 0.05, lost).status)


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ([estimate(2.0, 0.3)], "NOT REFUTED"),
        ([estimate(3.0, 0.001)], "REFUTED"),
        ([estimate(2.0, 0.03), estimate(1.0, 0.9, source="b")], "NOT REFUTED"),
        ([estimate(2.0, 0.3, ceiling=2.0)], "INCONCLUSIVE"),
        ([estimate(None, None, ceiling=0.0)], "INCONCLUSIVE"),
        ([], "INCONCLUSIVE"),
    ],
)
def test_holm_decides_and_silence_needs_power(found: list[Estimate], status: str) -> None:
    assert decide(*found) == status


def test_a_finding_refutes_whatever_the_tests_say() -> None:
    assert decide(estimate(1.0, 0.9), findings=[FINDING]) == "REFUTED"


def test_lost_trials_and_a_missing_claim_are_inconclusive_but_a_refutation_stays() -> None:
    assert decide(estimate(2.0, 0.3), lost=1) == "INCONCLUSIVE"
    assert decide(estimate(3.0, 0.001), lost=1) == "REFUTED"
    assert decide(estimate(2.0, 0.3), claim=None) == "INCONCLUSIVE"


def test_estimates_that_are_no_guarantee_decide_nothing() -> None:
    assert decide(replace(estimate(9.0, 1e-9), guarantee=False)) == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("detectable", "status"),
    [
        ((None,), "NOT REFUTED"),
        ((27.0,), "NOT REFUTED"),
        ((28.0,), "INCONCLUSIVE"),
        ((90.0, 28.0), "INCONCLUSIVE"),
        ((90.0, 5.0), "NOT REFUTED"),
    ],
)
def test_silence_of_attacks_that_catch_only_far_more_than_is_claimed_is_inconclusive(
    detectable: tuple[float | None, ...], status: str
) -> None:
    found = [
        replace(estimate(0.0, 0.9, ceiling=np.inf, source=name), detectable=value)
        for name, value in zip("ab", detectable, strict=False)
    ]
    judged = verdict(CLAIM, found, (), {"a": 1.0, "b": 1.0}, 0.05, 0)
    assert str(judged.status) == status, judged.reason
    if detectable[0] is not None:
        assert f"catches a true epsilon of {min(detectable):.3g} nine times in ten" in judged.reason


def test_nothing_is_known_of_the_claim_of_a_run_that_was_lost() -> None:
    judged = judge_audit(plan(), {"own": {}, "plain": {0: LEAKING}}, trials("lost"))
    assert (judged.status, judged.exit_code) == ("INCONCLUSIVE", 4)
    assert "was lost" in judged.reason and "No privacy" not in judged.reason
    assert "lost" in judged.targets[0].checklist[0].detail


def plan() -> AuditPlan:
    return parse(
        {
            "targets": [
                {"name": "own", "train": "opacus"},
                {"name": "plain", "role": "control", "train": "plain"},
            ],
            "attacks": {"replay": {}, "step-canary": {}, "prior-aware": {}},
        }
    )


def view(p: float, noise: float, *, claim: Claim | None, wins: int) -> View:
    pool = canaries()
    return View(
        canaries=pool,
        scores=np.zeros((len(pool.y), 2)),
        test_accuracy=0.9,
        train_accuracy=0.9,
        n_parameters=10,
        claim=claim,
        ledger=LEDGER if claim else (),
        accounted=LEDGER if claim else (),
        evidence=(
            KnownNull(
                p_values=np.full(2000, p),
                n_references=1000,
                unit="step",
                phase=np.zeros(2000, dtype=np.int64),
                source="step-canary",
                access=Access.STEP,
            ),
            Guesses(
                successes=wins,
                trials=100,
                baseline=0.1,
                unit="step",
                source="prior-aware",
                access=Access.STEP,
            ),
            Replay(
                sensitivity=1.0,
                sensitivity_where="huge",
                noise=(
                    NoiseSample(where="#0", sum_of_squares=10_000 * noise**2, count=10_000, claimed_std=1.0),
                ),
                executions=20,
                steps=5,
            ),
        ),
    )


def trials(status: str = "finished") -> list[TrialRecord]:
    return [
        TrialRecord(key="1", target="own", kind="audited", status=status),
        TrialRecord(key="2", target="plain", kind="audited", status="finished"),
    ]


SOUND = view(0.16, 1.0, claim=CLAIM, wins=30)
LEAKING = view(1 / 1001, 1.0, claim=None, wins=100)


def test_a_sound_run_with_a_caught_control_is_not_refuted() -> None:
    judged = judge_audit(plan(), {"own": {0: SOUND}, "plain": {0: LEAKING}}, trials())
    assert (judged.status, judged.exit_code) == ("NOT REFUTED", 0)
    assert judged.targets[1].caught is True


def test_a_control_that_is_not_caught_makes_silence_inconclusive() -> None:
    quiet = view(0.5, 1.0, claim=None, wins=10)
    judged = judge_audit(plan(), {"own": {0: SOUND}, "plain": {0: quiet}}, trials())
    assert (judged.status, judged.exit_code) == ("INCONCLUSIVE", 3)
    assert "not caught" in judged.reason


def test_noise_that_is_missing_is_a_finding_with_its_place() -> None:
    judged = judge_audit(
        plan(), {"own": {0: view(0.16, 0.5, claim=CLAIM, wins=30)}, "plain": {0: LEAKING}}, trials()
    )
    assert (judged.status, judged.exit_code) == ("REFUTED", 1)
    assert [f.check for f in judged.targets[0].findings] == ["noise"]


def test_an_accountant_that_says_too_little_is_a_finding() -> None:
    low = replace(SOUND, claim=replace(CLAIM, epsilon=4.0, source="opacus gdp accountant"))
    judged = judge_audit(plan(), {"own": {0: low}, "plain": {0: LEAKING}}, trials())
    assert [f.check for f in judged.targets[0].findings] == ["accounting"]


def test_a_lost_audited_run_is_inconclusive_and_exit_code_4() -> None:
    judged = judge_audit(plan(), {"own": {}, "plain": {0: LEAKING}}, trials("lost"))
    assert (judged.status, judged.exit_code) == ("INCONCLUSIVE", 4)
    assert judged.targets[0].estimates == ()


def test_a_declared_claim_is_tested_against_the_ledger_that_ran() -> None:
    own = parse(
        {
            "targets": [{"name": "own", "train": "opacus", "claim": {"epsilon": 6.58}}],
            "attacks": {"step-canary": {}},
        }
    )
    by_hand = replace(SOUND, claim=None, ledger=LEDGER, evidence=SOUND.evidence[:1])
    judged = judge_audit(own, {"own": {0: by_hand}}, trials()[:1])
    assert judged.targets[0].claim is not None and judged.targets[0].claim.ledger == LEDGER
    assert {e.source for e in judged.targets[0].estimates} == {"step-canary"}
    bare = replace(by_hand, ledger=())
    judged = judge_audit(own, {"own": {0: bare}}, trials()[:1])
    assert judged.status == "INCONCLUSIVE"


def test_two_tests_at_one_share_of_alpha_are_refused() -> None:
    twice = replace(SOUND, evidence=(*SOUND.evidence, SOUND.evidence[0]))
    with pytest.raises(UsageError, match="found 2 of 'step-canary'"):
        judge_audit(plan(), {"own": {0: twice}, "plain": {0: LEAKING}}, trials())


def test_of_a_run_that_was_stopped_only_what_holds_at_every_moment_counts() -> None:
    stopped = replace(SOUND, stopped=7)
    judged = judge_audit(plan(), {"own": {0: stopped}, "plain": {0: LEAKING}}, trials())
    methods = [estimate.method for estimate in judged.targets[0].estimates if estimate.guarantee]
    assert methods
    assert all("anytime" in method for method in methods)


def test_a_finding_names_the_line_that_makes_the_steps() -> None:
    known = replace(view(0.16, 0.5, claim=CLAIM, wins=30), place="train.py:33")
    judged = judge_audit(plan(), {"own": {0: known}, "plain": {0: LEAKING}}, trials())
    assert judged.targets[0].findings[0].where.endswith("steps of train.py:33")
    assert "train.py:33" in judged.targets[0].verdict.reason


def test_a_refutation_names_a_bound_only_where_it_exceeds_the_claim() -> None:
    said = verdict(CLAIM, [estimate(2.0, 0.001)], [], {"a": 1.0}, 0.05, 0)
    assert said.status == "REFUTED" and "contradicts what the claim of 2.78 rests on" in said.reason
    both = [estimate(3.0, 0.001), replace(estimate(4.0, 0.001, source="b"), claimed_epsilon=5.0)]
    assert (
        "a puts epsilon at 3 or more where 2.78" in verdict(CLAIM, both, [], {"a": 1, "b": 1}, 0.05, 0).reason
    )
