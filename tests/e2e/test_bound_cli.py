"""`dpaudit bound` as a user types it: exit codes, files, one line for each mistake, and no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dpaudit.stats.multiplicity import spend

ROOT = Path(__file__).resolve().parents[2]


def dpaudit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "dpaudit", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of one run that leak, and of independent runs that do not."""
    at = tmp_path_factory.mktemp("scores")
    rng = np.random.default_rng(11)
    member = rng.random(2000) < 0.5
    for name, mu in (("leaky", 6.0), ("quiet", 0.3)):
        score = rng.normal(size=2000) + mu * member
        rows = [f"c{i},{int(m)},{s:.6f}" for i, (m, s) in enumerate(zip(member, score, strict=True))]
        (at / f"{name}.csv").write_text("\n".join(["canary_id,included,score", *rows]))
    np.savez(at / "jax.npz", in_canary_scores=score[member], out_canary_scores=score[~member])
    found = [(f"c{i}-{j}", int(j == 0), float(j == 0) - 0.001 * j, i) for i in range(20) for j in range(100)]
    lines = [f"{name},{inside},{score},{run}" for name, inside, score, run in found]
    (at / "ranks.csv").write_text("\n".join(["record_id,is_member,score,model_id", *lines]))
    (at / "bad.csv").write_text("record_id,is_membr,score\na,1,2\n")
    return at


@pytest.mark.slow
def test_a_leak_is_refuted_recorded_and_reported(folder: Path) -> None:
    done = dpaudit(folder, "bound", "leaky.csv", "--epsilon", "2", "--delta", "1e-5")
    assert done.returncode == 1, done.stderr
    assert "REFUTED" in done.stdout
    assert "not observed" in done.stdout
    record = json.loads((folder / "audits" / "leaky" / "record.json").read_text())
    assert record["status"] == "REFUTED"
    assert record["targets"][0]["description"].startswith("scores supplied, training not observed")
    assert record["provenance"]["command"] == "dpaudit bound leaky.csv --epsilon 2 --delta 1e-5"
    page = (folder / "audits" / "leaky" / "report.html").read_text()
    assert "training not observed" in page
    assert dpaudit(folder, "gate", "audits/leaky").returncode == 1
    assert "leaky" in dpaudit(folder, "show", "audits/leaky").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("quiet.csv", "--epsilon", "1"), 0),
        (("quiet.csv", "--epsilon", "12"), 3),
        (("quiet.csv",), 3),
        (("quiet.csv", "--epsilon", "1", "--control", "leaky.csv"), 0),
        (("quiet.csv", "--epsilon", "1", "--control", "quiet.csv"), 3),
        (("jax.npz", "--epsilon", "1", "--design", "independent-runs", "--gaussian"), 0),
    ],
)
def test_exit_codes(typed, folder: Path, arguments: tuple[str, ...], code: int) -> None:
    done = typed(folder, "bound", *arguments, "--out", "audits/code", "--quiet")
    assert done.returncode == code, done.stderr
    assert done.stdout == ""


def test_a_planned_look_spends_its_share_on_ranks_within_kappa(typed, folder: Path) -> None:
    done = typed(folder, "bound", "ranks.csv", "--epsilon", "2", "--kappa", "0.01", "--look", "2/5")
    assert done.returncode == 1, done.stderr
    target = json.loads((folder / "audits" / "ranks" / "record.json").read_text())["targets"][0]
    within = next(e for e in target["estimates"] if "within kappa" in e["source"])
    assert within["alpha"] == pytest.approx(float(spend(0.05, 5)[1]))
    assert within["epsilon_lower"] == pytest.approx(np.log(within["alpha"] ** (1 / 20) / 0.01), rel=0.01)


def test_json_is_json(typed, folder: Path) -> None:
    done = typed(folder, "bound", "leaky.csv", "--epsilon", "2", "--out", "audits/json", "--json")
    assert json.loads(done.stdout)["status"] == "REFUTED"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("bad.csv",), "rename 'is_membr'"),
        (("nowhere.csv",), "nowhere.csv"),
        (("quiet.csv", "--epsilon", "-1"), "epsilon=-1"),
        (("quiet.csv", "--delta", "2"), "delta=2"),
        (("quiet.csv", "--alpha", "0.7"), "alpha=0.7"),
        (("quiet.csv", "--design", "one-rum"), "did you mean 'one-run'?"),
        (("quiet.csv", "--adjacency", "add"), "add-remove"),
        (("quiet.csv", "--unit", "user"), "user_id"),
        (("quiet.csv", "--steps", "10"), "--claim-noise-multiplier"),
        (("quiet.csv", "--guesses", "0"), "guesses"),
        (("quiet.csv", "--layout", "tf"), "tf-privacy"),
        (("quiet.csv", "--probabilities"), "[0, 1]"),
        (("quiet.csv", "--look", "6/5"), "second of five"),
        (("ranks.csv", "--kappa", "0.001"), "first rank among 99"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    typed, folder: Path, arguments: tuple[str, ...], expected: str
) -> None:
    done = typed(folder, "bound", *arguments, "--out", "audits/mistake")
    assert done.returncode == 2
    assert done.stderr.startswith("dpaudit: Expected ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
    assert not (folder / "audits" / "mistake").exists()


def test_no_training_framework_is_loaded(folder: Path) -> None:
    code = (
        "import sys; from dpaudit.bound import bound; "
        "print(bound('leaky.csv', epsilon=2).write('audits/plain')); "
        "print(sorted({'torch', 'opacus'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_power_and_plan_print_what_could_be_shown(folder: Path) -> None:
    power = dpaudit(folder, "power", "--epsilon", "4", "--observations", "50", "--runs", "3", "--json")
    assert power.returncode == 0, power.stderr
    names = {row["name"].split(":")[0] for row in json.loads(power.stdout)}
    assert names == {"independent-runs", "known-null", "several-runs", "one-run"}
    plan = dpaudit(folder, "plan", "--set", "recipe.epochs=2")
    assert plan.returncode == 0, plan.stderr
    assert "step-canary" in plan.stdout
    assert "detectable" in plan.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("power",), "--epsilon"),
        (("power", "--epsilon", "1", "--observations", "1"), "observations=1"),
        (("plan", "nowhere.toml"), "nowhere.toml"),
        (("plan", "--set", "attack.lira=1"), "attacks"),
    ],
)
def test_mistakes_of_planning(typed, folder: Path, arguments: tuple[str, ...], expected: str) -> None:
    done = typed(folder, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("dpaudit: Expected ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr
