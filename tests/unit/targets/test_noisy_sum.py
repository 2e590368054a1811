"""Post-processing of the noisy sum is not accused, and nothing that goes past that sum is taken for it."""

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer

from dpaudit.attacks.replay import ReplayAttack
from dpaudit.canary import make_pool
from dpaudit.evidence import Finding, Note, Replay
from dpaudit.protocols import StopTraining
from dpaudit.stats import noise
from dpaudit.targets.broken.loop import Loop
from dpaudit.targets.neighbouring_run import examine
from dpaudit.targets.observe import observe


def quarter(values):
    """1 at the largest quarter of the values, 0 elsewhere."""
    flat = values.abs().reshape(-1)
    keep = torch.zeros_like(flat)
    keep[flat.topk(max(1, flat.numel() // 4)).indices] = 1
    return keep.view_as(values)


class Sign(DPOptimizer):
    def scale_grad(self):
        super().scale_grad()
        for p in self.params:
            p.grad = p.grad.sign() * 0.01


class Shrinkage(DPOptimizer):
    def scale_grad(self):
        super().scale_grad()
        variance = (self.noise_multiplier * self.max_grad_norm / self.expected_batch_size) ** 2
        for p in self.params:
            size = float((p.grad**2).sum()) + 1e-12
            p.grad = p.grad * max(0.1, 1 - (p.numel() - 2) * variance / size)


class Sparse(DPOptimizer):
    def add_noise(self):
        super().add_noise()
        for p in self.params:
            p.grad = p.grad * quarter(p.grad)
        torch.nn.utils.clip_grad_norm_(self.params, 5.0)


class LowPass(DPOptimizer):
    kept = None

    def pre_step(self, closure=None):
        if not super().pre_step(closure):
            return False
        if self.kept is None:
            self.kept = [torch.zeros_like(p) for p in self.params]
        for kept, p in zip(self.kept, self.params, strict=True):
            kept.mul_(0.9).add_(p.grad, alpha=0.1)
            p.grad = kept.clone()
        return True


class Momentum(DPOptimizer):
    """The first release is the noisy sum itself."""

    kept = None

    def scale_grad(self):
        super().scale_grad()
        before = self.kept or [torch.zeros_like(p) for p in self.params]
        self.kept = [0.9 * kept + p.grad for kept, p in zip(before, self.params, strict=True)]
        for kept, p in zip(self.kept, self.params, strict=True):
            p.grad = kept.clone()


class RandomMask(DPOptimizer):
    """Post-processing that is itself random."""

    def scale_grad(self):
        super().scale_grad()
        for p in self.params:
            p.grad = p.grad * (torch.rand_like(p.grad) < 0.5)


class RawMask(DPOptimizer):
    def add_noise(self):
        masks = [quarter(p.summed_grad) for p in self.params]
        super().add_noise()
        for p, mask in zip(self.params, masks, strict=True):
            p.grad = p.grad * mask.view_as(p)


class RawMemory(DPOptimizer):
    """What the sign loses of the clean sum comes back in the next step, after the noise."""

    kept = None

    def add_noise(self):
        clean = [p.summed_grad.clone() for p in self.params]
        super().add_noise()
        for p, kept in zip(self.params, self.kept or [], strict=False):
            p.grad = p.grad + kept.view_as(p)
        self.kept = clean
        for p in self.params:
            p.grad = p.grad.sign()


class LateMemory(DPOptimizer):
    """The clean sum comes back four steps later."""

    kept = ()

    def add_noise(self):
        clean = [p.summed_grad.clone() for p in self.params]
        super().add_noise()
        self.kept = [*self.kept, clean]
        if len(self.kept) > 4:
            for p, late in zip(self.params, self.kept.pop(0), strict=True):
                p.grad = p.grad + late.view_as(p)


class LateMemoryAndSign(LateMemory, Sign):
    pass


class ScaledAfterDraw(DPOptimizer):
    def add_noise(self):
        super().add_noise()
        for p in self.params:
            p.grad = p.summed_grad.view_as(p) + 0.1 * (p.grad - p.summed_grad.view_as(p))


class ScaledAndSign(ScaledAfterDraw, Sign):
    pass


class LittleNoise(Sign):
    def add_noise(self):
        stated = self.noise_multiplier
        self.noise_multiplier = stated * 0.5
        super().add_noise()
        self.noise_multiplier = stated


class SameNoise(Sign):
    def add_noise(self):
        state = torch.get_rng_state()
        torch.manual_seed(5)
        super().add_noise()
        torch.set_rng_state(state)


class OneParameterBare(Sign):
    def add_noise(self):
        super().add_noise()
        self.params[-1].grad = self.params[-1].summed_grad.clone().view_as(self.params[-1])


class ClipsTooLate(Sign):
    """The clip forgets all but the first parameter."""

    def clip_and_accumulate(self):
        for p in self.params[1:]:
            p.grad_sample = p.grad_sample * 3
        super().clip_and_accumulate()
        for p in self.params[1:]:
            p.summed_grad = p.summed_grad * 3


class BothHalves(DPOptimizer):
    """Half of the variance is drawn by Opacus, and half by the optimizer."""

    def add_noise(self):
        stated = self.noise_multiplier
        self.noise_multiplier = stated / 2**0.5
        super().add_noise()
        deviation = self.noise_multiplier * self.max_grad_norm
        self.noise_multiplier = stated
        for p in self.params:
            p.grad = p.grad + torch.normal(0.0, deviation, p.shape)


def pool(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((120, 16)), rng.integers(0, 2, 120)
    return make_pool(x, y, n_canaries=4, test_fraction=0.1, rng=rng).draw(rng)


def fit(x, y, kind, **options):
    features = torch.as_tensor(np.asarray(x, dtype=np.float32))
    small = {"hidden": (16,), "epochs": 1, "batch_size": 12, "noise_multiplier": 1.0, **options}
    return Loop(x=features, y=torch.as_tensor(y), mixin=kind, **small).fit()


def watched(kind, **options):
    """Measurements, findings and notes of one run."""
    torch.manual_seed(1)
    records = pool()
    with observe((ReplayAttack(),), records, np.random.default_rng(1)) as seen:
        fit(records.train_x, records.train_y, kind, **options)
    evidence = seen.evidence()
    replay = next(e for e in evidence if isinstance(e, Replay))
    findings = [e.check for e in evidence if isinstance(e, Finding)]
    return replay, findings, [e for e in evidence if isinstance(e, Note)]


def accused(replay, findings):
    return (
        bool(findings or noise.contradictions(replay, level=1e-9))
        or min((p for _, p in replay.law), default=1.0) < 1e-6
    )


def post_processed(notes):
    return any(note.check == "post-processing" for note in notes)


SOUND = (Sign, Shrinkage, Sparse, LowPass, Momentum, RandomMask)
PAST = (RawMask, RawMemory, LateMemoryAndSign, ScaledAfterDraw, ScaledAndSign, OneParameterBare)
AT = (LittleNoise, SameNoise, ClipsTooLate)


@pytest.mark.parametrize("kind", SOUND)
def test_post_processing_is_not_accused_and_is_told_of(kind):
    replay, findings, notes = watched(kind)
    assert not accused(replay, findings)
    assert post_processed(notes)
    assert 0.9 < replay.sensitivity <= 1.0 + replay.tolerance


@pytest.mark.parametrize("options", [{"micro_batch": 5}, {"grad_sample_mode": "ghost"}])
def test_post_processing_of_virtual_batches_and_of_sums_clipped_before_is_not_accused(options):
    def kind_of(base):
        class Signs(Sign, base):
            pass

        return Signs

    kind = Sign
    if "grad_sample_mode" in options:
        from opacus.optimizers import DPOptimizerFastGradientClipping as Fast

        kind = kind_of(Fast)
    replay, findings, notes = watched(kind, **options)
    assert not accused(replay, findings)
    assert post_processed(notes)


@pytest.mark.parametrize("kind", PAST)
def test_what_goes_past_the_noisy_sum_is_accused_as_before(kind):
    replay, findings, notes = watched(kind)
    assert accused(replay, findings)
    assert not post_processed(notes)


@pytest.mark.parametrize("kind", AT)
def test_a_fault_of_the_noisy_sum_shows_behind_post_processing(kind):
    replay, findings, notes = watched(kind)
    assert accused(replay, findings) or replay.sensitivity > 1.5
    assert post_processed(notes)


@pytest.mark.parametrize("kind", [None, BothHalves])
def test_a_noisy_sum_is_looked_at_as_it_is_handed_over(kind):
    replay, findings, notes = watched(kind)
    assert not accused(replay, findings)
    assert not post_processed(notes)


@pytest.mark.parametrize("kind", [Sign, LowPass])
def test_training_with_post_processing_is_the_same_under_observation(kind):
    torch.manual_seed(3)
    records = pool()
    alone = fit(records.train_x, records.train_y, kind)
    torch.manual_seed(3)
    with observe((ReplayAttack(),), records, np.random.default_rng(0)):
        seen = fit(records.train_x, records.train_y, kind)
    pairs = zip(alone.state_dict().values(), seen.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("kind", [Sign, LowPass, Shrinkage])
def test_training_again_accuses_no_post_processing(kind):
    records = pool()

    def run(x, y, transcript, offset):
        torch.manual_seed(1 + offset)
        try:
            with observe((), records, np.random.default_rng(0), transcript=transcript):
                transcript.hand_over(fit(x, y, kind))
        except StopTraining:
            pass

    found = examine(records.train_x.astype(np.float64), records.train_y, run)
    assert [item.check for item in found if isinstance(item, Finding)] == []
