"""A whole audit, through the command line, as a user starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpaudit.record import load

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "recipe.epochs=6",
    "attacks.lira.shadows=2",
    "attacks.step-canary.references=300",
    "data.canaries=40",
    "attacks.gradient-inversion.iterations=20",
)
# Where only trials are counted, little is trained.
TINY = (
    "recipe.epochs=2",
    "attacks.lira.shadows=2",
    "attacks.step-canary.references=100",
    "data.canaries=20",
    "attacks.gradient-inversion.iterations=5",
)


def dpaudit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dpaudit", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def run(cwd: Path, *arguments: str, settings: tuple[str, ...] = SMALL) -> subprocess.CompletedProcess[str]:
    return dpaudit("run", *arguments, *(f"--set={setting}" for setting in settings), cwd=cwd)


@pytest.fixture
def own() -> Iterator[None]:
    """Each plan's own.py is another one: forget the last."""
    yield
    sys.modules.pop("own", None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One small default audit, in a folder with a space in its name."""
    folder = tmp_path_factory.mktemp("an audit")
    return folder, run(folder)


@pytest.mark.slow
def test_the_default_audit_refutes_the_controls_and_not_the_private_model(finished) -> None:
    folder, ended = finished
    assert ended.returncode == 0, ended.stderr
    record = load(folder / "audits" / "default")
    verdicts = {t.name: str(t.verdict.status) for t in record.targets}
    assert verdicts == {"private": "NOT REFUTED", "plain": "REFUTED", "broken": "REFUTED"}
    private, plain, _ = record.targets
    assert private.claim is not None and private.verdict.epsilon_lower is not None
    assert 0.8 * private.claim.epsilon <= private.verdict.epsilon_lower <= private.claim.epsilon
    assert plain.verdict.epsilon_lower > 10 * private.claim.epsilon
    assert "NOT REFUTED" in ended.stdout and "Report:" in ended.stdout
    assert ended.stderr == ""


@pytest.mark.slow
def test_one_alpha_is_spent_over_all_of_it(finished) -> None:
    folder, _ = finished
    record = load(folder / "audits" / "default")
    spent = sum(e.alpha for t in record.targets for e in t.estimates if e.guarantee)
    assert spent <= record.alpha * (1 + 1e-9)


@pytest.mark.slow
def test_the_same_command_repeats_no_finished_trial(finished) -> None:
    folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (folder / "audits/default/trials").iterdir()}
    again = run(folder)
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in (folder / "audits/default/trials").iterdir()} == before
    assert {t.status for t in load(folder / "audits/default").trials} == {"cached"}


@pytest.mark.slow
def test_gate_report_and_show_need_no_training(finished) -> None:
    folder, _ = finished
    assert dpaudit("gate", "audits/default", cwd=folder).returncode == 0
    (folder / "strict.toml").write_text("[gate]\nauc = 0.5\n")
    strict = dpaudit("gate", "audits/default", "--policy", "strict.toml", cwd=folder)
    assert strict.returncode == 1, strict.stdout + strict.stderr
    assert dpaudit("report", "audits/default", "--out", "page.html", cwd=folder).returncode == 0
    assert (folder / "page.html").read_text() != ""
    shown = dpaudit("show", "audits/default", "--json", cwd=folder)
    assert json.loads(shown.stdout)["status"] == "NOT REFUTED"


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dpaudit", "run", "--workers=1", *(f"--set={s}" for s in TINY)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    trials = tmp_path / "audits/default/trials"
    deadline = time.monotonic() + 240
    while len(list(trials.glob("*.npz"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {p.name: p.stat().st_mtime_ns for p in trials.glob("*.npz")}
    assert 2 <= len(kept) < 9
    assert run(tmp_path, settings=TINY).returncode == 0
    after = {p.name: p.stat().st_mtime_ns for p in trials.glob("*.npz")}
    assert kept.items() <= after.items()
    statuses = [t.status for t in load(tmp_path / "audits/default").trials]
    assert statuses.count("cached") == len(kept) and statuses.count("finished") == 9 - len(kept)


OWN = """
def fit(x, y, *, seed, device):
    {body}
"""
PLAN = """
[data]
canaries = 20
[compute]
engine = "inline"
[[targets]]
name = "own"
train = "own:fit"
[attacks.replay]
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no such column')", "ValueError: no such column (own.py:3)"),
        ("import torch; return lambda z: torch.full((len(z), 10), float('nan'))", "finite logits, found NaN"),
        ("import torch; return lambda z: torch.zeros(len(z))", "logits of shape"),
    ],
)
def test_a_training_function_that_fails_is_a_lost_trial(
    tmp_path: Path, typed, own, body: str, words: str
) -> None:
    (tmp_path / "own.py").write_text(OWN.format(body=body))
    (tmp_path / "plan.toml").write_text(PLAN)
    ended = typed(tmp_path, "run", "plan.toml")
    assert ended.returncode == 4
    assert words in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert str(load(tmp_path / "audits/plan").targets[0].verdict.status) == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (PLAN.replace("[attacks.replay]", "[attacks.reply]"), "did you mean 'replay'?"),
        (PLAN.replace("own:fit", "opakus"), "did you mean 'opacus'?"),
        (PLAN.replace("own:fit", "nowhere:fit"), "to import"),
        (PLAN.replace('engine = "inline"', 'engine = "inlime"'), "did you mean 'inline'?"),
        (PLAN.replace('engine = "inline"', 'device = "cuda"'), "Expected a CUDA device"),
        (PLAN.replace("canaries = 20", "canary = 20"), "did you mean 'canaries'?"),
        ("not a plan", "to be TOML"),
    ],
)
def test_a_wrong_plan_is_one_line_and_exit_code_2(tmp_path: Path, typed, own, plan: str, words: str) -> None:
    if "cuda" in plan:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a CUDA device, so asking for one is right")
    (tmp_path / "own.py").write_text(OWN.format(body="return None"))
    (tmp_path / "plan.toml").write_text(plan)
    ended = typed(tmp_path, "run", "plan.toml")
    assert ended.returncode == 2, ended.stderr
    assert words in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "audits").exists()


def test_a_missing_plan_and_a_missing_record_say_what_to_do(tmp_path: Path) -> None:
    """In a process of its own, where a traceback or a warning would be on stderr too."""
    for arguments, words in ((("run", "nothing.toml"), "dpaudit init"), (("gate", "nothing"), "dpaudit run")):
        ended = dpaudit(*arguments, cwd=tmp_path)
        assert ended.returncode == 2 and words in ended.stderr
        assert len(ended.stderr.strip().splitlines()) == 1


def test_init_writes_a_plan_that_is_read_back(tmp_path: Path, typed) -> None:
    from dpaudit.plan import read

    assert typed(tmp_path, "init", "mine.toml").returncode == 0
    plan, _ = read(tmp_path / "mine.toml")
    assert [t.name for t in plan.targets] == ["private", "plain", "broken"]
    assert typed(tmp_path, "init", "mine.toml").returncode == 2


@pytest.mark.slow
def test_the_example_of_an_own_model_is_audited(tmp_path: Path) -> None:
    out = tmp_path / "own"
    ended = dpaudit("run", "examples/own_model.toml", "--out", str(out), cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    own = load(out).targets[0]
    assert own.claim is not None and own.claim.source == "opacus prv accountant"
    assert own.verdict.epsilon_lower is not None
    assert own.verdict.epsilon_lower >= 0.8 * own.claim.epsilon
