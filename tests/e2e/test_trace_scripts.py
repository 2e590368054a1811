"""Whole scripts in this process: what a correct one must not be accused of, and what has to be seen."""

import warnings
from io import StringIO
from pathlib import Path

import pytest

from dpaudit.record import TargetRecord, load
from dpaudit.trace import Job, trace
from dpaudit.verdict import Status
from tests.e2e.conftest import Typed

SCRIPT = """
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

x, y = torch.randn(200, 6), torch.randint(0, 2, (200,))
loader = DataLoader(TensorDataset(x, y), batch_size=20)
network = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
{before}
model, optimizer, loader = PrivacyEngine().make_private(
    module=network, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0,
    optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
)
for step, (x, y) in enumerate(batch for _ in range(2) for batch in loader):
    optimizer.zero_grad()
    {loss}
    optimizer.step()
    {after}
"""
LOSS = "nn.functional.cross_entropy(model(x), y).backward()"
PAIRS = "z = model(x); nn.functional.cross_entropy(z @ z.T, torch.arange(len(x))).backward()"
HEAD = "head = nn.Linear(6, 2); beside = torch.optim.Adam(head.parameters())"
BESIDE = "nn.functional.cross_entropy(model(x) + head(x), y).backward()"
GENERATOR = """
made = nn.Linear(3, 6)
plain = torch.optim.SGD(made.parameters(), lr=0.1)
"""
GENERATE = "optimizer.zero_grad(); plain.zero_grad(); model(made(torch.randn(9, 3))).mean().backward(); "


def judged(tmp_path: Path, *, before: str = "", loss: str = LOSS, after: str = "pass") -> TargetRecord:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(before=before, loss=loss, after=after))
    job = Job(path=str(script), out=tmp_path / "out", looks=2, canaries=False, seed=1)
    return trace(job, stdout=StringIO()).record.targets[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("before", "loss", "after", "status", "words"),
    [
        ("", LOSS, "if step == 5: network[0].bias.requires_grad_(False)", "INCONCLUSIVE", "frozen"),
        (HEAD, BESIDE, "beside.step(); beside.zero_grad()", "REFUTED", "backward passes of private steps"),
        (GENERATOR, LOSS, GENERATE + "plain.step(); optimizer.zero_grad()", "NOT REFUTED", ""),
        ("", PAIRS, "pass", "REFUTED", "one record, one gradient"),
        ("", LOSS, "with torch.no_grad(): network[0].bias.sub_(0.1)", "INCONCLUSIVE", "by no optimizer"),
        ("network.bfloat16(); x = x.bfloat16(); loader = DataLoader(TensorDataset(x, y), batch_size=20)",
         LOSS, "pass", "NOT REFUTED", ""),
    ],
)  # fmt: skip
def test_whole_scripts(tmp_path: Path, before: str, loss: str, after: str, status: str, words: str) -> None:
    verdict = judged(tmp_path, before=before, loss=loss, after=after).verdict
    assert verdict.status is Status(status), verdict.reason
    assert words in verdict.reason


@pytest.mark.filterwarnings("ignore")
def test_a_step_that_raised_was_not_made_and_owes_no_epsilon(tmp_path: Path) -> None:
    target = judged(tmp_path, after="if step == 3: optimizer.step()")
    assert target.verdict.status is Status.INCONCLUSIVE, target.verdict.reason
    assert "ValueError" in target.verdict.reason
    assert sum(phase.steps for phase in target.claim.ledger) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_more_steps_than_a_target_was_computed_for_are_said(tmp_path: Path) -> None:
    script = SCRIPT.format(before="", loss=LOSS, after="pass")
    script = script.replace("make_private(", "make_private_with_epsilon(")
    target = "target_epsilon=3.0, target_delta=1e-5, epochs=1"
    (tmp_path / "train.py").write_text(script.replace("noise_multiplier=1.0", target))
    job = Job(path=str(tmp_path / "train.py"), out=tmp_path / "out", looks=2, canaries=False, seed=1)
    rows = {row.name: row for row in trace(job, stdout=StringIO()).record.targets[0].checklist}
    assert "3 asked for" in str(rows["target epsilon"])


BY_HAND = "optimizer.pre_step(); network[0].bias.grad.add_({added}); optimizer.original_optimizer.step()"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("step", "status", "words"),
    [
        (BY_HAND.format(added="0.0"), "NOT REFUTED", ""),
        (BY_HAND.format(added="torch.ones(4)"), "INCONCLUSIVE", "gradients changed after the release"),
        ("optimizer.original_optimizer.step()", "REFUTED", "without privacy"),
        ("(optimizer if step % 2 else optimizer.original_optimizer).step()", "REFUTED", "without privacy"),
    ],
)
def test_a_script_that_steps_by_hand(tmp_path: Path, step: str, status: str, words: str) -> None:
    script = SCRIPT.format(before="", loss=LOSS, after="pass").replace("optimizer.step()", step)
    (tmp_path / "train.py").write_text(script)
    job = Job(path=str(tmp_path / "train.py"), out=tmp_path / "out", looks=2, canaries=False, seed=1)
    verdict = trace(job, stdout=StringIO()).record.targets[0].verdict
    assert verdict.status is Status(status), verdict.reason
    assert words in verdict.reason


@pytest.mark.filterwarnings("ignore")
def test_a_script_that_is_interrupted_ends_with_one_line_and_130(tmp_path: Path, typed: Typed) -> None:
    script = SCRIPT.format(before="", loss=LOSS, after="if step == 3: raise KeyboardInterrupt")
    (tmp_path / "train.py").write_text(script)
    ended = typed(tmp_path, "trace", "--out", "out", "--no-canaries", "--looks", "2", "train.py")
    assert (ended.returncode, ended.stdout) == (130, "")
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("dpaudit: Interrupted; what was found until then is in")
    assert load(tmp_path / "out" / "record.json").trials[0].status == "lost"


def test_passes_that_are_made_for_the_audit_warn_nobody(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        judged(tmp_path)
    assert seen  # Opacus's own
    ours = [w for w in seen if "Full backward hook" in str(w.message) and "targets" in w.filename]
    assert not ours, ours[0]
