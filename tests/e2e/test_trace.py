"""`dpaudit trace` on scripts that nobody changed, as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dpaudit.record import load

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
import torch
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
data = TensorDataset(torch.randn(200, 6), torch.randint(0, 2, (200,)))
loader = DataLoader(data, batch_size=20)
model = nn.Linear(6, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
{private}
for step, (x, y) in enumerate(batch for _ in range(3) for batch in loader):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    {inside}
print("weights", [p.detach().reshape(-1).tolist() for p in model.parameters()])
"""
PRIVATE = """
model, optimizer, loader = PrivacyEngine().make_private(
    module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=1.0, max_grad_norm=1.0
)
"""
BESIDE = """
optimizer = torch.optim.Adam(model.parameters())
"""
OLD = """
engine = PrivacyEngine(model, batch_size=20, sample_size=200, noise_multiplier=1.3, max_grad_norm=1.0)
engine.attach(optimizer)
"""


def python(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def traced(cwd: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    (cwd / "train.py").write_text(script)
    return python(cwd, "-m", "dpaudit", "trace", "--seed", "1", *options, "train.py")


@pytest.mark.slow
def test_without_canaries_the_weights_are_those_of_an_untraced_run(tmp_path: Path) -> None:
    script = SCRIPT.format(private=PRIVATE, inside="pass")
    ended = traced(tmp_path, script, "--no-canaries", "--looks", "2")
    assert ended.returncode == 0, ended.stderr
    plain = python(tmp_path, "train.py").stdout.strip()
    assert plain.startswith("weights") and plain in ended.stdout
    target = load(tmp_path / "audits/train").targets[0]
    assert {curve.kind for curve in target.curves} >= {"epsilon-reported", "epsilon-recomputed"}
    assert "sampler" in {estimate.source for estimate in target.estimates}
    assert "secure mode" in {row.name for row in target.checklist}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("private", "inside", "options", "code", "words"),
    [
        ("", "pass", ("--epsilon", "2"), 1, "steps without clipping and noise"),
        ("", "pass", (), 3, "No PrivacyEngine"),
        (PRIVATE + "sys.exit()", "pass", (), 3, "never stepped"),
        (PRIVATE + "1 / 0", "pass", (), 4, "ZeroDivisionError"),
        (
            PRIVATE.replace("1.0\n", "1.0, poisson_sampling=False\n") + BESIDE,
            "pass",
            (),
            1,
            "steps without privacy",
        ),
        (PRIVATE, "if step == 5: raise ValueError('no such column')", ("--looks", "1"), 4, "no such column"),
        (OLD, "pass", (), 4, "make_private("),
    ],
)
def test_what_a_script_did_or_never_did_is_said(
    tmp_path: Path, private: str, inside: str, options: tuple[str, ...], code: int, words: str
) -> None:
    ended = traced(tmp_path, SCRIPT.format(private=private, inside=inside), *options)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert words in " ".join((ended.stdout + ended.stderr).split())
    assert (tmp_path / "audits/train/report.html").exists()


HALVED = """
real = optimizer.add_noise
def add_noise():
    optimizer.noise_multiplier /= 2
    real()
    optimizer.noise_multiplier *= 2
optimizer.add_noise = add_noise
"""


@pytest.mark.slow
def test_a_contradicted_script_is_stopped(tmp_path: Path) -> None:
    script = SCRIPT.format(private=PRIVATE + HALVED, inside="pass")
    ended = traced(tmp_path, script, "--stop-early", "--every", "1", "--looks", "1")
    assert ended.returncode == 1, ended.stderr
    target = load(tmp_path / "audits/train").targets[0]
    assert "The script was stopped at step" in target.verdict.reason
    assert "weights" not in ended.stdout
    # Valid only for a number of steps that was fixed beforehand.
    assert not [e for e in target.estimates if e.guarantee and "anytime" not in e.method]


@pytest.mark.slow
def test_a_correct_module_runs_to_its_end_and_its_control_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").touch()
    (tmp_path / "pkg/train.py").write_text(SCRIPT.format(private=PRIVATE, inside="pass"))
    options = ("--seed", "1", "--control", "--stop-early", "--every", "1", "--looks", "1")
    ended = python(tmp_path, "-m", "dpaudit", "trace", *options, "-m", "pkg.train")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("weights") == 1
    assert load(tmp_path / "audits/train").targets[1].caught
