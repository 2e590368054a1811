"""`dpaudit mechanism` as a user types it: exit codes, one line for each mistake, JSON, and a replay."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dpaudit.cli import main

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
import math

def sound(data, rng):
    total = sum(min(max(x, 0.0), 1.0) for x in data if not math.isnan(x))
    return round(total) + int(rng.geometric(1 - math.exp(-1)) - rng.geometric(1 - math.exp(-1)))

def leaky(data, rng):
    return float(len(data)) if rng.random() < 0.9 else 0.5

def strict(data, rng):
    raise TypeError("expected a table")

class Needs:
    def __init__(self, epsilon):
        self.epsilon = epsilon

class Given:
    epsilon = 1.0
    domain = "list(float(0, 1), max_size=4)"
    def sample(self, data, size, rng):
        return rng.integers(2, size=size)
"""
QUICK = ("--samples", "6000", "--examples", "12", "--inline")
DOMAIN = ("--epsilon", "1", "--domain", "list(float(0, 1), max_size=4)")


def dpaudit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "dpaudit", "mechanism", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("mechanisms")
    (at / "releases.py").write_text(MODULE)
    return at


@pytest.mark.slow
def test_a_refutation_exits_with_one_and_its_witness_is_replayed(folder: Path) -> None:
    done = dpaudit(folder, "releases:leaky", *DOMAIN, *QUICK, "--witness", "leaky.json")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("REFUTED: releases:leaky: epsilon is at least ")
    assert "Witness      leaky.json; to count again" in done.stdout
    again = dpaudit(folder, "--replay", "leaky.json")
    assert again.returncode == 1, again.stderr
    assert again.stdout.startswith("REFUTED again")
    other = dpaudit(folder, "releases:sound", "--replay", "leaky.json", "--json")
    assert other.returncode == 0, other.stderr
    assert json.loads(other.stdout)["refuted"] is False


@pytest.mark.slow
def test_the_exit_codes_of_the_other_verdicts(folder: Path) -> None:
    sound = dpaudit(folder, "releases:sound", *DOMAIN, *QUICK, "--json", "--witness", "sound.json")
    assert sound.returncode == 0, sound.stderr
    found = json.loads(sound.stdout)
    assert found["status"] == "NOT REFUTED"
    assert found["claim"] == "1-DP"
    nothing = dpaudit(folder, "releases:Given", *QUICK, "--epsilon", "12", "--witness", "given.json")
    assert nothing.returncode == 3, nothing.stderr
    assert nothing.stdout.startswith("INCONCLUSIVE")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Expected MECHANISM, found none."),
        (("svt-44",), "did you mean 'svt-4'?"),
        (("planted-controll",), "did you mean 'planted-control'?"),
        (("releases:soundd", *DOMAIN), "soundd"),
        (("nowhere:f", *DOMAIN), "nowhere"),
        (("releases:Needs", *DOMAIN), "made without arguments"),
        (("releases:sound", "--domain", "list(float(0, 1))"), "State epsilon"),
        (("releases:sound", "--epsilon", "1"), "found none"),
        (("releases:sound", "--epsilon", "1", "--domain", "lst(float(0, 1))"), "did you mean 'list'?"),
        (("releases:sound", "--epsilon", "-1", "--domain", "list(float(0, 1))"), "Expected epsilon=-1.0"),
        (("releases:strict", *DOMAIN, *QUICK), "TypeError: expected a table"),
        (("releases:sound", *DOMAIN, "--adjacency", "add-removed"), "did you mean 'add-remove'?"),
        (("releases:sound", *DOMAIN, "--mu", "1", "--renyi-order", "2"), "Expected one kind of claim"),
        (("releases:sound", *DOMAIN, "--also", "2"), "Expected --also EPSILON:DELTA"),
        (("releases:sound", *DOMAIN, "--samples", "5"), "Expected samples=5"),
        (("releases:sound", *DOMAIN, "--alpha", "2"), "Expected alpha=2.0"),
        (("--replay", "none.json"), "Expected a witness at none.json, found nothing."),
        (("--replay", "releases.py"), "JSON witness"),
    ],
)
def test_every_mistake_is_one_line_and_exits_with_two(
    arguments: tuple[str, ...],
    says: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, which spares eighteen starts of Python."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["dpaudit", "mechanism", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr().err
    assert left.value.code == 2, shown
    assert says in shown
    assert len(shown.strip().splitlines()) == 1, shown


def test_the_list_names_what_can_be_audited(folder: Path) -> None:
    names = dpaudit(folder, "--list").stdout.split()
    assert {"svt-4", "planted-control", "planted-nan"} <= set(names)
    assert len(names) > 90


@pytest.mark.slow
def test_a_curve_may_be_claimed(folder: Path) -> None:
    arguments = (*DOMAIN[2:], *QUICK, "--mu", "0.5", "--json", "--witness", "mu.json")
    done = dpaudit(folder, "releases:leaky", *arguments)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["claim"] == "0.5-GDP"
    again = dpaudit(folder, "--replay", "mu.json")
    assert again.returncode == 1, again.stderr


@pytest.mark.slow
def test_an_interruption_is_one_line(tmp_path):
    (tmp_path / "slow.py").write_text(
        "from pathlib import Path\n"
        "def release(data, rng):\n"
        "    Path('called').touch()\n"
        "    return len(data) + rng.laplace(0.0, 1.0)\n"
    )
    command = [sys.executable, "-m", "dpaudit", "mechanism", "slow:release", "--epsilon", "50"]
    process = subprocess.Popen(
        [*command, "--domain", "list(float(0, 1))", "--samples", "100000000", "--workers", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "called").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, err
    assert (out.strip(), err.strip()) == ("", "dpaudit: Interrupted.")
