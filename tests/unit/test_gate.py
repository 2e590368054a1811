"""The gate derives its exit code from targets, trials and policy, and never lets no data pass."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from dpaudit.claim import Adjacency
from dpaudit.errors import UsageError
from dpaudit.gate import evaluate, find_policy, load_policy, parse_policy
from dpaudit.policy import Policy
from dpaudit.record import AuditRecord, GateResult, GateStatus, TrialRecord
from dpaudit.verdict import Status, Verdict
from tests.sample_record import quiet_record, sample_record, with_target

TODAY = date(2025, 11, 3)
FILE = Path("dpaudit.toml")
WAIVER = """
[[gate.waivers]]
metric = "auc"
target = "private"
limit = 0.60
reason = "retraining is scheduled"
approver = "R. Okafor"
expires = {expires}
"""


def policy(text: str) -> Policy:
    return parse_policy(text, FILE)


def judged(text: str, record: AuditRecord | None = None, today: date = TODAY) -> GateResult:
    return evaluate(record or quiet_record(), policy(text), today=today)


def status(result: GateResult, metric: str, target: str = "private") -> GateStatus:
    return next(row.status for row in result.rows if (row.metric, row.target) == (metric, target))


def inconclusive(record: AuditRecord) -> AuditRecord:
    verdict = Verdict(status=Status.INCONCLUSIVE, reason="The ceiling 3.28 is below the claim of 5.50.")
    return with_target(record, "private", verdict=verdict)


def losing_a_trial(record: AuditRecord, state: str = "lost") -> AuditRecord:
    lost = TrialRecord(key="pr9999", target="private", kind="shadow", status=state, error="out of memory")
    return replace(record, trials=(*record.trials, lost))


def test_without_a_policy_the_verdict_decides() -> None:
    assert evaluate(sample_record(), today=TODAY).exit_code == 1
    assert evaluate(quiet_record(), today=TODAY).exit_code == 0
    assert evaluate(inconclusive(quiet_record()), today=TODAY).exit_code == 3


def test_the_status_stored_in_the_record_is_not_trusted() -> None:
    forged = replace(sample_record(), status="NOT REFUTED", exit_code=0)
    assert evaluate(forged, today=TODAY).exit_code == 1


@pytest.mark.parametrize("state", ["lost", "planned"])
def test_a_missing_trial_ends_with_four_and_names_it(state: str) -> None:
    result = evaluate(losing_a_trial(quiet_record(), state), today=TODAY)
    assert (result.exit_code, result.status) == (4, GateStatus.NOT_RUN)
    assert "pr9999" in result.reason


def test_a_refutation_outranks_a_missing_trial() -> None:
    assert evaluate(losing_a_trial(sample_record()), today=TODAY).exit_code == 1


def test_a_missing_trial_outranks_a_limit() -> None:
    result = judged("[gate]\nauc = 0.1\n", losing_a_trial(quiet_record()))
    assert result.exit_code == 4


@pytest.mark.parametrize(
    ("caught", "expected"),
    [(True, GateStatus.PASS), (False, GateStatus.INCONCLUSIVE), (None, GateStatus.NOT_RUN)],
)
def test_a_control_that_is_not_caught_never_passes(caught: bool | None, expected: GateStatus) -> None:
    result = evaluate(with_target(quiet_record(), "plain", caught=caught), today=TODAY)
    assert status(result, "control", "plain") is expected
    assert result.exit_code == (0 if caught else 3)


def test_no_control_at_all_is_a_warning() -> None:
    record = quiet_record()
    alone = replace(record, targets=record.targets[:1])
    result = evaluate(alone, today=TODAY)
    assert (result.status, result.exit_code) == (GateStatus.WARN, 0)


def test_no_audited_target_never_passes() -> None:
    record = quiet_record()
    assert evaluate(replace(record, targets=record.targets[1:]), today=TODAY).exit_code == 3


def test_a_rate_is_judged_by_its_upper_bound_in_the_worst_group() -> None:
    result = judged('[gate]\n"tpr_at_fpr_0.01" = 0.03\n')
    assert result.exit_code == 1
    found = next(row for row in result.rows if row.metric == "tpr_at_fpr_0.01")
    assert (found.bound, found.source) == ("upper", "lira on digit 8")
    assert found.measured == pytest.approx(0.014 * 1.7 + 0.021)


def test_the_lower_bound_of_a_rate_can_be_asked_for() -> None:
    text = "[gate]\nauc = {{ limit = 0.50, bound = {bound!r} }}\n"
    assert judged(text.format(bound="upper")).exit_code == 1
    assert judged(text.format(bound="lower")).exit_code == 0


def test_a_value_between_warn_and_limit_warns_and_passes() -> None:
    result = judged("[gate]\nauc = { limit = 0.6, warn = 0.5 }\n")
    assert (result.status, result.exit_code) == (GateStatus.WARN, 0)


def test_a_dotted_metric_needs_no_quotes() -> None:
    assert policy("[gate]\ntpr_at_fpr_0.01 = 0.2\n") == policy('[gate]\n"tpr_at_fpr_0.01" = 0.2\n')


def test_epsilon_is_compared_at_the_claims_adjacency_and_delta_only() -> None:
    record = quiet_record()
    private = record.targets[0]
    strange = (
        replace(private.estimates[0], epsilon_lower=90.0, adjacency=Adjacency.REPLACE_ONE),
        replace(private.estimates[0], epsilon_lower=91.0, delta=1e-3),
        replace(private.estimates[0], epsilon_lower=92.0, guarantee=False),
    )
    record = with_target(record, "private", estimates=(*private.estimates, *strange))
    result = judged("[gate]\nepsilon_lower = 6.0\n", record)
    assert status(result, "epsilon_lower") is GateStatus.PASS
    assert judged("[gate]\nepsilon_lower = 5.4\n", record).exit_code == 1


def test_a_bound_whose_ceiling_is_below_the_limit_is_inconclusive() -> None:
    record = quiet_record()
    weak = replace(record.targets[0].estimates[2], ceiling=3.28)
    result = judged("[gate]\nepsilon_lower = 4.0\n", with_target(record, "private", estimates=(weak,)))
    assert (status(result, "epsilon_lower"), result.exit_code) == (GateStatus.INCONCLUSIVE, 3)


def test_an_unbounded_finding_exceeds_every_limit() -> None:
    record = sample_record()
    result = judged("[gate]\nepsilon_lower = 1000\n", record)
    found = next(row for row in result.rows if (row.metric, row.target) == ("epsilon_lower", "broken"))
    assert found.status is GateStatus.FAIL
    assert found.measured == math.inf


def test_a_recomputed_epsilon_above_the_claim_is_what_counts() -> None:
    record = quiet_record()
    pld = next(item for item in record.targets[0].recomputed if item.accountant == "PLD")
    worse = (replace(pld, epsilon=6.2),)
    result = judged("[gate]\nepsilon_claimed = 6.0\n", with_target(record, "private", recomputed=worse))
    assert result.exit_code == 1
    assert judged("[gate]\nepsilon_claimed = 6.0\n").exit_code == 0


@pytest.mark.parametrize("metric", ["reconstruction_success", "auc", "tpr_at_fpr_0.1"])
def test_no_data_never_passes(metric: str) -> None:
    record = with_target(quiet_record(), "private", rates=())
    result = judged(f'[gate]\n"{metric}" = 0.9\n', record)
    assert (status(result, metric), result.exit_code) == (GateStatus.NOT_RUN, 3)


def test_a_policy_judges_wide_slices_and_not_the_widest_interval_of_many_small_ones() -> None:
    record = quiet_record()
    rates = next(target for target in record.targets if target.name == "private").rates
    worst = max((rate for rate in rates if rate.name == "auc"), key=lambda rate: rate.upper or 0.0)
    small = replace(worst, slice="class 3", value=0.6, upper=0.99, fine=True)
    limit = f"[gate]\nauc = {worst.upper}\n"
    before = status(judged(limit, record), "auc")
    assert status(judged(limit, with_target(record, "private", rates=(*rates, small))), "auc") is before
    wide = (*rates, replace(small, fine=False))
    assert status(judged(limit, with_target(record, "private", rates=wide)), "auc") is GateStatus.FAIL


def test_a_worst_rate_without_an_interval_never_passes() -> None:
    record = quiet_record()
    bare = tuple(replace(rate, lower=None, upper=None) for rate in record.targets[0].rates)
    result = judged("[gate]\nauc = 0.9\n", with_target(record, "private", rates=bare))
    assert (status(result, "auc"), result.exit_code) == (GateStatus.INCONCLUSIVE, 3)
    assert judged("[gate]\nauc = 0.4\n", with_target(record, "private", rates=bare)).exit_code == 1


def test_a_limit_for_one_target_replaces_the_general_one() -> None:
    result = judged("[gate]\nauc = 0.1\n\n[gate.targets.private]\nauc = 0.9\n")
    assert [row.limit for row in result.rows if row.metric == "auc"] == [0.9]


def test_a_limit_is_named_by_file_and_line() -> None:
    text = "# limits\n[gate]\nepsilon_lower = 8\n\n[gate.targets.private]\n'tpr_at_fpr_0.01' = 0.3\n"
    assert [item.location for item in policy(text).thresholds] == ["dpaudit.toml:3", "dpaudit.toml:6"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[gate]\nacu = 0.6\n", "'auc'"),
        ("[gate]\nepsilon_lowr = 4\n", "'epsilon_lower'"),
        ('[gate]\n"tpr_at_fpr_0.02" = 0.1\n', "'tpr_at_fpr_0.01'"),
        ("[gate]\nauc = { limti = 0.6 }\n", "'auc'"),
        ("[gate]\nauc = { limit = 0.6, wran = 0.5 }\n", "'warn'"),
        ("[gate]\n[gate.target.private]\nauc = 0.6\n", "'targets'"),
        ("[gate]\n[gate.targets.privat]\nauc = 0.6\n", "'private'"),
        ("[gates]\nauc = 0.6\n", "'gate'"),
        ("[gate]\nauc = true\n", "limit"),
        ("[gate]\nauc = nan\n", "[0, 1.0]"),
        ("[gate]\nauc = 1.5\n", "[0, 1.0]"),
        ("[gate]\nepsilon_lower = inf\n", "Name a number"),
        ("[gate]\nepsilon_lower = { limit = 4, bound = 'upper' }\n", "bound"),
        ("[gate]\nauc = { limit = 0.5, warn = 0.6 }\n", "warn"),
        ("[gate]\nauc = \n", "TOML"),
        ("[run]\nauc = 1\n", "[gate]"),
    ],
)
def test_a_mistake_is_refused_with_the_right_name(text: str, hint: str) -> None:
    with pytest.raises(UsageError, match=r"Expected .*dpaudit\.toml") as caught:
        judged(text)
    assert hint in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_valid_waiver_turns_a_failure_into_waived() -> None:
    result = judged("[gate]\nauc = 0.52\n" + WAIVER.format(expires="2025-12-31"))
    assert (result.status, result.exit_code) == (GateStatus.WAIVED, 0)
    found = next(row for row in result.rows if row.metric == "auc")
    assert all(text in found.waiver for text in ("R. Okafor", "2025-12-31", "retraining", "dpaudit.toml:4"))


def test_an_expired_waiver_no_longer_applies_and_says_so() -> None:
    result = judged("[gate]\nauc = 0.52\n" + WAIVER.format(expires="2025-11-02"))
    assert result.exit_code == 1
    assert "Expired" in next(row.waiver for row in result.rows if row.metric == "auc")


def test_a_waiver_holds_on_its_last_day() -> None:
    assert judged("[gate]\nauc = 0.52\n" + WAIVER.format(expires="2025-11-03")).exit_code == 0


def test_a_waiver_is_a_ceiling() -> None:
    looser = WAIVER.format(expires="2025-12-31").replace("0.60", "0.53")
    result = judged("[gate]\nauc = 0.52\n" + looser)
    assert result.exit_code == 1
    assert "Exceeded" in next(row.waiver for row in result.rows if row.metric == "auc")


def test_a_waiver_of_more_than_180_days_is_refused() -> None:
    assert judged("[gate]\nauc = 0.52\n" + WAIVER.format(expires="2026-05-02")).exit_code == 0
    with pytest.raises(UsageError, match="180 days"):
        judged("[gate]\nauc = 0.52\n" + WAIVER.format(expires="2026-05-03"))


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("0.60", "0.50", "above the limit"),
        ("0.60", "1.0", "below 1"),
        ("0.60", "inf", "Name a number"),
        ('"auc"', '"auk"', "'auc'"),
        ('"retraining is scheduled"', '" "', "reason"),
        ('"R. Okafor"', "7", "approver"),
        ('"private"', "7", "target"),
        ("approver", "aprover", "'approver'"),
        ("2025-12-31", '"soon"', "YYYY-MM-DD"),
        ("2025-12-31", "2025-12-31T10:00:00", "YYYY-MM-DD"),
    ],
)
def test_a_waiver_with_a_mistake_is_refused(old: str, new: str, hint: str) -> None:
    text = "[gate]\nauc = 0.52\n" + WAIVER.format(expires="2025-12-31").replace(old, new)
    with pytest.raises(UsageError) as caught:
        judged(text)
    assert hint in str(caught.value)


def test_a_waiver_cannot_excuse_a_verdict() -> None:
    with pytest.raises(UsageError, match="to match a limit"):
        judged("[gate]\nauc = 0.9\n" + WAIVER.format(expires="2025-12-31").replace('"auc"', '"verdict"'))


def test_policies_are_found_in_both_files(tmp_path: Path) -> None:
    assert find_policy(tmp_path) == Policy()
    (tmp_path / "pyproject.toml").write_text("[tool.dpaudit.gate]\nauc = 0.7\n")
    assert [item.limit for item in find_policy(tmp_path).thresholds] == [0.7]
    (tmp_path / "dpaudit.toml").write_text("[audit]\nalpha = 0.05\n")
    assert [item.limit for item in find_policy(tmp_path).thresholds] == [0.7]
    (tmp_path / "dpaudit.toml").write_text("[gate]\nauc = 0.6\n")
    assert [item.limit for item in find_policy(tmp_path).thresholds] == [0.6]
    assert [item.location for item in find_policy(tmp_path).thresholds] == ["dpaudit.toml:2"]


def test_a_policy_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope\.toml"):
        load_policy(tmp_path / "nope.toml")


def test_the_gate_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, dpaudit.gate\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'jinja2', 'sklearn', 'opacus', 'dp_accounting'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
