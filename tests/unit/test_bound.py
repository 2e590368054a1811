"""Bounds from supplied scores: the design decides, one alpha is spent, and nothing valid is exceeded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpaudit.accounting import GaussianFamily
from dpaudit.bound import Bound, bound
from dpaudit.claim import Adjacency, Phase
from dpaudit.errors import UsageError
from dpaudit.record import dump, load
from dpaudit.reports import html
from dpaudit.scoring.assemble import assemble
from dpaudit.scoring.eligibility import Terms
from dpaudit.scoring.evidence import fair, one_run, ranks
from dpaudit.scoring.scores import Design, Labels, Reading, Rows, Scores
from dpaudit.stats.tradeoff import gaussian_mu
from dpaudit.verdict import Status

DELTA = 1e-5
STEPS = (Phase(noise_multiplier=1.0, sample_rate=1.0, steps=1),)


def labels(codes: Any) -> Labels:
    codes = np.asarray(codes)
    return Labels(codes=codes, names=tuple(str(i) for i in range(int(codes.max()) + 1)))


def of_design(
    design: Design, *, mu: float, rng: np.random.Generator, runs: int = 8, records: int = 60, q: float = 0.5
) -> Scores:
    """Scores of a mu-GDP mechanism on which each record is judged alone, so that no bound may exceed it."""
    if design is Design.INDEPENDENT_RUNS:
        member = rng.random(10 * runs) < 0.5
        run = np.arange(10 * runs)
    elif design is Design.ONE_RUN:
        member = rng.random(runs * records) < q
        run = np.zeros(runs * records, dtype=np.int64)
    else:
        run = np.repeat(np.arange(runs), records)
        member = rng.random(run.size) < 0.5
        if design is Design.KNOWN_NULL:
            member = np.arange(run.size) % records == 0
    rows = Rows(
        score=rng.normal(size=run.size) + mu * member,
        member=member,
        model=None if design is Design.ONE_RUN else labels(run),
    )
    reading = Reading(design=design, higher_is_member=True, inclusion=q if design is Design.ONE_RUN else None)
    return assemble(rows, reading)


def names(result: Bound) -> list[str]:
    return [line.name for line in result.lines]


EXPECTED = {
    Design.INDEPENDENT_RUNS: ("order-statistic grid", "certified betting"),
    Design.KNOWN_NULL: ("known-null rank sum",),
    Design.SEVERAL_RUNS: ("run means, t", "run means, betting", "one-run guesses, runs together"),
    Design.ONE_RUN: ("one-run guesses",),
}


@pytest.mark.parametrize("design", Design)
class TestEveryDesign:
    def test_lines_that_the_design_allows(self, design: Design) -> None:
        scores = of_design(design, mu=1.0, rng=np.random.default_rng(1))
        result = bound(scores, epsilon=4, delta=DELTA)
        for name in EXPECTED[design]:
            assert f"{name}, any mechanism" in names(result)
            assert f"{name}, Gaussian" in names(result)
        assert result.refused
        assert {row.status for row in result.record.coverage} == {"RUN", "NOT APPLICABLE"}

    def test_one_alpha_over_the_lines_that_decide(self, design: Design) -> None:
        scores = of_design(design, mu=1.0, rng=np.random.default_rng(1))
        for terms in (Terms(), Terms(gaussian=True), Terms(ledger=STEPS)):
            result = bound(scores, epsilon=None if terms.ledger else 4.0, delta=DELTA, terms=terms)
            deciding = [e.alpha for e in result.estimates if e.guarantee]
            assert sum(deciding) == pytest.approx(0.05)

    def test_a_gross_violation_is_refuted(self, design: Design) -> None:
        scores = of_design(design, mu=8.0, rng=np.random.default_rng(1), runs=12)
        result = bound(scores, epsilon=0.5, delta=DELTA)
        assert result.verdict.status is Status.REFUTED
        assert result.record.exit_code == 1

    def test_a_bare_claim_is_not_refuted_by_the_gaussian_line(self, design: Design) -> None:
        scores = of_design(design, mu=1.0, rng=np.random.default_rng(1))
        result = bound(scores, epsilon=4, delta=DELTA)
        beside = [e for e in result.estimates if "Gaussian" in e.source]
        assert beside
        assert not any(e.guarantee for e in beside)
        declared = bound(scores, epsilon=4, delta=DELTA, terms=Terms(gaussian=True))
        described = {line.name for line in declared.lines if line.descriptive}
        assert all(e.guarantee == (e.source not in described) for e in declared.estimates)

    def test_without_a_claim_there_are_bounds_and_no_verdict(self, design: Design) -> None:
        result = bound(of_design(design, mu=3.0, rng=np.random.default_rng(1)), delta=DELTA)
        assert result.verdict.status is Status.INCONCLUSIVE
        assert result.epsilon_lower is not None
        assert "Nothing is claimed" in str(result)

    def test_delta_0_needs_no_gaussian(self, design: Design) -> None:
        scores = of_design(design, mu=1.0, rng=np.random.default_rng(1))
        result = bound(scores, epsilon=1.0, delta=0.0)
        assert not any("Gaussian" in name for name in names(result))
        assert any(each.name == "Gaussian" for each in result.refused)

    def test_it_can_be_printed_written_read_and_drawn(self, design: Design, tmp_path: Path) -> None:
        scores = of_design(design, mu=2.0, rng=np.random.default_rng(1))
        result = bound(scores, epsilon=4, delta=DELTA)
        for line in str(result).splitlines():
            assert len(line) <= 100
        assert "Scores supplied, training not observed." in str(result).replace("\n", " ")
        page = result.write(tmp_path / "audit")
        again = load(tmp_path / "audit")
        assert dump(again) == dump(result.record)
        assert page.read_text() == html.render(again)
        assert "training not observed" in page.read_text()

    @pytest.mark.slow
    def test_a_true_claim_is_seldom_refuted(self, design: Design) -> None:
        """Attained level at the claim's own mechanism, nominal 5 %."""
        epsilon, refuted, audits = 1.0, 0, 25 if design is Design.INDEPENDENT_RUNS else 100
        mu = gaussian_mu(epsilon, DELTA)
        rng = np.random.default_rng(5)
        for _ in range(audits):
            scores = of_design(design, mu=mu, rng=rng, runs=5, records=40, q=0.8)
            result = bound(scores, epsilon=epsilon, delta=DELTA, terms=Terms(gaussian=True))
            refuted += result.verdict.status is Status.REFUTED
        print(f"{design}: refuted {refuted} of {audits}")
        assert refuted <= audits * 0.05 + 3 * math.sqrt(audits * 0.05 * 0.95)


def test_shared_noise_of_a_run_does_not_refute() -> None:
    """Records of one run that all move together: pooled as independent they would refute at once."""
    rng, refuted = np.random.default_rng(7), 0
    for _ in range(40):
        scores = of_design(Design.SEVERAL_RUNS, mu=0.0, rng=rng, runs=5, records=40)
        luck = rng.normal(size=5)[scores.run] * np.where(scores.member, 1.0, -1.0)
        moved = replace(scores, score=scores.score + 0.3 * luck)
        result = bound(moved, epsilon=0.5, delta=DELTA, terms=Terms(gaussian=True))
        run_means = [e for e in result.estimates if "run means" in e.source]
        assert len(run_means) == 4
        refuted += any(e.p_value is not None and e.p_value <= e.alpha for e in run_means)
    assert refuted <= 8


class TestEvidence:
    def test_ranks_under_both_relations(self) -> None:
        rows = Rows(
            score=np.array([3.0, 1.0, 2.0, 4.0, 0.0, 5.0]),
            member=np.array([True, False, False, False, True, False]),
            model=labels([0, 0, 0, 0, 1, 1]),
        )
        scores = assemble(rows, Reading(higher_is_member=True))
        added = ranks(scores, "scores", Adjacency.ADD_REMOVE)
        assert added.p_values.tolist() == [2 / 4, 2 / 2]
        assert added.n_references == 1
        swapped = ranks(scores, "scores", Adjacency.REPLACE_ONE)
        assert swapped.p_values.tolist() == [2 / 3]
        assert swapped.n_references == 2

    def test_thinning_makes_coins_fair(self) -> None:
        rng = np.random.default_rng(2)
        for q in (0.2, 0.9):
            scores = of_design(Design.ONE_RUN, mu=0.0, rng=rng, runs=100, records=100, q=q)
            keep = fair(scores, rng)
            rarer = ~scores.member if q > 0.5 else scores.member
            assert keep[rarer].all()
            assert scores.member[keep].mean() == pytest.approx(0.5, abs=0.05)

    def test_only_the_first_run_of_a_draw_is_guessed(self) -> None:
        scores = of_design(Design.SEVERAL_RUNS, mu=0.0, rng=np.random.default_rng(2), runs=4, records=10)
        paired = replace(scores, cluster=scores.run // 2 * 2)
        evidence = one_run(paired, "scores", Adjacency.ADD_REMOVE, np.random.default_rng(0))
        assert evidence.scores.size == 20
        assert evidence.scores.tolist() == paired.score[np.isin(paired.run, [0, 2])].tolist()


class TestTerms:
    def scores(self) -> Scores:
        return of_design(Design.INDEPENDENT_RUNS, mu=1.0, rng=np.random.default_rng(1), records=40)

    def test_the_claimed_steps_give_the_epsilon_and_are_tested_as_such(self) -> None:
        result = bound(self.scores(), delta=DELTA, terms=Terms(ledger=STEPS))
        claim = result.record.targets[0].claim
        assert claim is not None
        family = GaussianFamily(mu=1.0, delta=DELTA)
        assert claim.epsilon == pytest.approx(family.epsilon(1.0), rel=1e-3)
        assert result.lines[0].name.endswith("claimed ledger")
        assert {row.accountant for row in result.record.targets[0].recomputed} == {"PLD", "RDP"}

    def test_an_epsilon_below_that_of_the_claimed_steps_refutes_itself(self) -> None:
        result = bound(self.scores(), epsilon=1.0, delta=DELTA, terms=Terms(ledger=STEPS))
        assert result.verdict.status is Status.REFUTED
        assert result.verdict.decided_by == "accounting"

    def test_a_record_exchanged_for_another_is_replace_one_evidence(self) -> None:
        terms = Terms(inserted=Adjacency.REPLACE_ONE, gaussian=True)
        result = bound(self.scores(), epsilon=1.0, delta=DELTA, terms=terms)
        assert {e.adjacency for e in result.estimates} == {Adjacency.REPLACE_ONE}
        assert all(e.claimed_epsilon is not None and e.claimed_epsilon > 1.9 for e in result.estimates)

    def test_an_add_remove_test_says_nothing_of_a_replace_one_claim(self) -> None:
        terms = Terms(adjacency=Adjacency.REPLACE_ONE, inserted=Adjacency.ADD_REMOVE)
        result = bound(self.scores(), epsilon=1.0, delta=DELTA, terms=terms)
        assert all(e.claimed_epsilon is None for e in result.estimates)
        assert result.verdict.status is Status.INCONCLUSIVE

    def test_declared_threshold_and_guesses(self) -> None:
        at = bound(self.scores(), epsilon=4, delta=DELTA, terms=Terms(threshold=0.5))
        assert "fixed threshold, any mechanism" in names(at)
        (believed,) = (e for e in at.estimates if "posterior" in e.source)
        assert not believed.guarantee
        assert "No guarantee, whatever it shows: posterior" in str(at)
        one = of_design(Design.ONE_RUN, mu=3.0, rng=np.random.default_rng(1))
        few = bound(one, epsilon=4, delta=DELTA, terms=Terms(guesses=20))
        assert few.estimates[0].ceiling <= math.log(20 / math.log(1 / 0.05)) + 0.1

    def test_halves_are_no_coins(self) -> None:
        run = np.repeat(np.arange(4), 20)
        member = np.arange(80) % 2 == 0
        scores = assemble(Rows(score=member * 1.0, member=member, model=labels(run)))
        result = bound(scores, epsilon=4, delta=DELTA)
        assert not any("guesses" in name for name in names(result))
        assert any("drawn halves" in each.why for each in result.refused)

    def test_one_draw_of_many_models_has_no_run_means(self) -> None:
        scores = of_design(Design.SEVERAL_RUNS, mu=1.0, rng=np.random.default_rng(1), runs=2)
        paired = replace(scores, cluster=np.zeros_like(scores.cluster))
        result = bound(paired, epsilon=4, delta=DELTA)
        assert not any("run means" in name for name in names(result))

    @pytest.mark.parametrize("alpha", [0.0, 0.5, -1.0, math.nan])
    def test_impossible_levels(self, alpha: float) -> None:
        with pytest.raises(UsageError):
            Terms(alpha=alpha)

    def test_impossible_claims(self) -> None:
        with pytest.raises(UsageError):
            bound(self.scores(), epsilon=-1.0)
        with pytest.raises(UsageError):
            bound(self.scores(), epsilon=1.0, delta=1.0)
        with pytest.raises(UsageError):
            Terms(ledger=(Phase(noise_multiplier=0.0, sample_rate=0.1, steps=1),))


class TestControl:
    def test_silence_counts_only_if_the_control_is_caught(self) -> None:
        rng = np.random.default_rng(1)
        quiet = of_design(Design.ONE_RUN, mu=0.2, rng=rng, runs=20, records=100)
        loud = of_design(Design.ONE_RUN, mu=9.0, rng=rng, runs=20, records=100)
        caught = bound(quiet, epsilon=2, delta=DELTA, control=loud)
        assert caught.verdict.status is Status.NOT_REFUTED
        assert caught.record.targets[1].caught
        missed = bound(quiet, epsilon=2, delta=DELTA, control=quiet)
        assert missed.verdict.status is Status.INCONCLUSIVE
        assert "The control was not caught" in str(missed)


def test_three_lines(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    rng = np.random.default_rng(0)
    member = rng.random(400) < 0.5
    rows = [
        f"c{i},{int(m)},{s}"
        for i, (m, s) in enumerate(zip(member, rng.normal(size=400) + 3 * member, strict=True))
    ]
    path.write_text("\n".join(["canary_id,included,score", *rows]))
    result = bound(path, epsilon=8, delta=1e-5)
    assert "one-run guesses" in str(result)
    assert result.record.provenance.data_sha256
    assert bound(str(path), epsilon=8).epsilon_lower == result.epsilon_lower


def test_slices_have_rates_of_their_own() -> None:
    rng = np.random.default_rng(0)
    member = rng.random(600) < 0.5
    rows = Rows(score=rng.normal(size=600) + member, member=member, slice=labels(np.arange(600) % 2))
    rates = bound(assemble(rows), epsilon=8).record.targets[0].rates
    assert {rate.slice for rate in rates} == {"all", "0", "1"}


def test_sorted_rows_and_ties_give_no_bound() -> None:
    """Members first and all scores equal: whoever takes the order for information would refute."""
    member = np.arange(400) < 200
    for design in (Design.ONE_RUN, Design.INDEPENDENT_RUNS):
        rows = Rows(score=np.zeros(400), member=member)
        result = bound(assemble(rows, Reading(design=design)), epsilon=0.1, delta=DELTA)
        assert result.epsilon_lower == 0.0
