"""Every planted fault is found and no correct use is accused: cheaply, or through the whole audit if slow."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from dpaudit.attacks.replay import ReplayAttack
from dpaudit.canary import make_pool
from dpaudit.evidence import Finding, Replay
from dpaudit.protocols import StopTraining
from dpaudit.stats import noise
from dpaudit.targets.broken import FAULTS
from dpaudit.targets.broken.controls import CONTROLS
from dpaudit.targets.broken.loop import Loop
from dpaudit.targets.neighbouring_run import examine
from dpaudit.targets.observe import observe

LOOKS = ReplayAttack(watch=False, stop_early=True)
LAW = {"uniform-noise", "laplace-noise", "truncated-noise"}
BY_SIZE = {"noise-5-percent-low", "noise-2-percent-low"}
STEP = [name for name, fault in FAULTS.items() if fault.mixin is not None]
RUN = [
    "noise-seed-in-the-code",
    "ghost-forgets-ties",
    "standardises-by-the-batch",
    "weighs-by-the-batch",
    "scaler-fitted-on-the-data",
    "warm-up-without-privacy",
    "each-record-four-times",
    "raw-momentum",
]
SMALL = {"hidden": (16,), "epochs": 3, "batch_size": 12, "noise_multiplier": 1.0}


def pool(n=120, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 16)), rng.integers(0, 2, n)
    return make_pool(x, y, n_canaries=4, test_fraction=0.1, rng=rng).draw(rng)


def fit(x, y, fault=None, **options):
    planted = FAULTS[fault] if fault else None
    more = {**planted.options, "mixin": planted.mixin} if planted else {}
    kind = planted.loop if planted else Loop
    features = torch.as_tensor(np.asarray(x, dtype=np.float32))
    return kind(x=features, y=torch.as_tensor(y), **{**SMALL, **more, **options}).fit()


def watched(attack=LOOKS, fault=None, seed=1, **options):
    """What replay saw of one run, up to the first contradiction; evidence and whether there was one."""
    torch.manual_seed(seed)
    records = pool()
    stopped = False
    with observe((attack,), records, np.random.default_rng(seed)) as seen:
        try:
            fit(records.train_x, records.train_y, fault, **options)
        except StopTraining:
            stopped = True
    evidence = seen.evidence()
    replay = next(e for e in evidence if isinstance(e, Replay))
    return replay, [e for e in evidence if isinstance(e, Finding)], stopped


def retrained(fault=None, **options):
    """Findings of training again on neighbouring data."""
    records = pool()

    def run(x, y, transcript, offset):
        torch.manual_seed(1 + offset)
        try:
            with observe((), records, np.random.default_rng(0), transcript=transcript):
                transcript.hand_over(fit(x, y, fault, **options))
        except StopTraining:
            pass

    found = examine(records.train_x.astype(np.float64), records.train_y, run)
    return [item for item in found if isinstance(item, Finding)]


@pytest.mark.parametrize("fault", [name for name in STEP if name not in LAW | BY_SIZE])
def test_replay_contradicts_a_fault_of_the_step_outright(fault):
    replay, findings, stopped = watched(fault=fault, epochs=6)
    assert stopped
    assert findings or noise.contradictions(replay, level=1e-9)
    assert replay.first_contradiction == replay.executions


@pytest.mark.parametrize("fault", sorted(LAW))
def test_the_law_of_the_noise_is_seen(fault):
    replay, _, _ = watched(ReplayAttack(), fault)
    assert min(p for _, p in replay.law) < 1e-6


@pytest.mark.parametrize("fault", RUN)
def test_training_again_shows_what_goes_around_the_mechanism(fault):
    assert retrained(fault)


def test_a_checkpoint_that_was_chosen_on_the_data_is_seen():
    assert "what is released comes from releases alone" in [
        finding.check for finding in retrained("best-checkpoint-on-the-data", epochs=10)
    ]


@pytest.mark.parametrize("name", ["reference", "virtual batches", "ghost, linear", "adam"])
def test_training_a_correct_use_again_shows_nothing(name):
    assert retrained(**{**CONTROLS[name], "epochs": 2}) == []


@pytest.mark.parametrize("name", ["reference", "small clipping norm", "noise at each virtual batch"])
def test_replay_does_not_stop_a_correct_use(name):
    replay, findings, stopped = watched(**CONTROLS[name])
    assert not stopped and findings == [] and replay.first_contradiction is None
    assert min((p for _, p in replay.law), default=1.0) > 1e-6


def test_training_is_the_same_with_and_without_replay():
    torch.manual_seed(3)
    records = pool()
    alone = fit(records.train_x, records.train_y)
    torch.manual_seed(3)
    with observe((ReplayAttack(),), records, np.random.default_rng(0)):
        seen = fit(records.train_x, records.train_y)
    pairs = zip(alone.state_dict().values(), seen.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def zoo():
    path = Path(__file__).parents[3] / "bench" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo", path)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["zoo"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in STEP + RUN or name in STEP[::9]])
def test_the_whole_audit_refutes_faults_that_no_part_of_it_finds_alone_and_some_others(fault):
    outcome = zoo().audit_fault(fault)
    assert outcome.status == "REFUTED", outcome.reason


# `make zoo` audits every network in every mode; here, other modes only where they differ most.
OTHER = [name for name in CONTROLS if name.startswith(("functorch", "ghost"))]
KEPT = {"functorch, embedding", "ghost, linear", "ghost, lstm"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CONTROLS if name not in OTHER or name in KEPT])
def test_the_whole_audit_accuses_no_correct_use(name):
    outcome = zoo().audit_control(name)
    assert outcome.status != "REFUTED", outcome.reason
