"""Kill an audit at random: the driver, a worker, or both, with SIGKILL; then the same command again.

    python bench/kills.py --kills 50 --each 13 --seed 2

An audit of twelve small trials is run undisturbed, and then under a seeded schedule of kills until it ends
by itself. What must hold: the same command finishes; no finished trial is made again (its file keeps its
time and its bytes); evidence and verdicts are those of the undisturbed run, bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("driver", "worker", "both")
PLAN = """
seed = 3
[data]
canaries = 20
[compute]
device = "cpu"
workers = 2
[[targets]]
name = "own"
train = "own:fit"
[targets.claim]
epsilon = 8.0
[attacks.lira]
shadows = 11
"""
OWN = """
import time
import torch

def fit(x, y, *, seed, device):
    torch.manual_seed(seed)
    model = torch.nn.Linear(x.shape[1], 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x, y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        time.sleep(0.02)
    return model
"""


@dataclass(slots=True)
class Campaign:
    """What was killed and what came out of it."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    audits: int = 0
    missed: int = 0
    again: int = 0
    differing: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    leftovers: int = 0
    seconds: float = 0.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    """The command that a user would type."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dpaudit", "run", "plan.toml", "--quiet"]
    log = (folder / "log.txt").open("ab")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def workers_of(driver: int) -> list[int]:
    """Its trial workers: those of its children that lead a session of their own."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        process = int(status.parent.name)
        if int(fields[1]) == driver and int(fields[3]) == process and fields[0] != "Z":
            found.append(process)
    return found


def kill(process: int) -> bool:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def files(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and hash of every finished trial."""
    found = {}
    for path in (folder / "audits/plan/trials").glob("*.npz"):
        found[path.name] = (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def essence(folder: Path) -> str:
    """The record without times, and whether a trial was made now or found."""
    record = json.loads((folder / "audits/plan/record.json").read_bytes())
    record["provenance"].update(created="", seconds=0, committed="", commitment_sha256="")
    for trial in record["trials"]:
        trial.update(
            seconds=0, attempts=0, status="cached" if trial["status"] == "finished" else trial["status"]
        )
    return json.dumps(record, sort_keys=True)


def arrays(folder: Path) -> dict[str, str]:
    """Every result without the seconds that it took, which no two runs share."""
    sys.path.insert(0, str(ROOT))
    from dpaudit.store import Store

    found = {}
    for name in files(folder):
        facts = Store(folder / "audits/plan").load(name.removesuffix(".npz"))
        assert facts is not None
        facts.pop("seconds")
        parts = sorted((key, _bits(value)) for key, value in facts.items())
        found[name] = hashlib.sha256(repr(parts).encode()).hexdigest()
    return found


def _bits(value: object) -> object:
    return value.tobytes() if hasattr(value, "tobytes") else repr(value)


def strike(driver: int, kind: str, rng: random.Random) -> bool:
    """Kill what the schedule says; False where there was nothing to kill."""
    workers = workers_of(driver) if kind != "driver" else []
    if kind == "worker":
        return bool(workers) and kill(rng.choice(workers))
    struck = [kill(worker) for worker in workers]
    return kill(driver) and (kind == "driver" or any(struck))


def disturbed(folder: Path, rng: random.Random, found: Campaign, *, most: int, span: float) -> None:
    """One audit: start it, kill it, until it ends by itself with nothing lost."""
    kept: dict[str, tuple[int, str]] = {}
    kills = 0
    while True:
        process = start(folder)
        found.runs += 1
        while kills < most and process.poll() is None:
            kind = rng.choice(KINDS)
            # The driver at any time, also while it imports torch; workers once they are there.
            while kind != "driver" and process.poll() is None and not workers_of(process.pid):
                time.sleep(0.05)
            time.sleep(rng.uniform(0.0, span))
            if process.poll() is None and strike(process.pid, kind, rng):
                found.kills[kind] += 1
                kills += 1
                if kind != "worker":
                    break
        code = process.wait(timeout=600)
        now = files(folder)
        found.again += sum(now.get(name) != value for name, value in kept.items())
        kept = now
        if code >= 0:
            found.exits[code] += 1
        if code == 4:
            found.missed += 1
        elif code >= 0:
            return


def campaign(wanted: int, seed: int, each: int) -> Campaign:
    """Audits, each with a number of kills, until there were as many as wanted."""
    found, rng = Campaign(), random.Random(seed)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        quiet = make(Path(place) / "quiet")
        first = start(quiet).wait(timeout=600)
        if not (quiet / "audits/plan/record.json").exists():
            raise SystemExit((quiet / "log.txt").read_text())
        span = (time.monotonic() - begun) / 8
        right, results = essence(quiet), arrays(quiet)
        print(f"undisturbed: exit {first}, {len(results)} trials, {8 * span:.0f} s", flush=True)
        while sum(found.kills.values()) < wanted:
            folder = make(Path(place) / f"disturbed-{found.audits}")
            same_salt(quiet, folder)
            left = wanted - sum(found.kills.values())
            disturbed(folder, rng, found, most=min(each, left), span=span)
            found.audits += 1
            found.differing += arrays(folder) != results or essence(folder) != right
            found.leftovers += len(list((folder / "audits/plan/trials").glob(".writing-*")))
            print(found, flush=True)
    found.seconds = time.monotonic() - begun
    return found


def make(folder: Path) -> Path:
    """A folder with the plan and the training function."""
    folder.mkdir()
    (folder / "plan.toml").write_text(PLAN)
    (folder / "own.py").write_text(OWN)
    return folder


def same_salt(one: Path, other: Path) -> None:
    """Have trials and hashes of the same names in both folders."""
    (other / "audits/plan/trials").mkdir(parents=True)
    shutil.copy(one / "audits/plan/trials/salt.json", other / "audits/plan/trials")


def page(found: Campaign, each: int, seed: int) -> str:
    """What came out, as Markdown."""
    total = sum(found.kills.values())
    rows = [
        ("Kills (SIGKILL)", f"{total}: " + ", ".join(f"{found.kills[kind]} {kind}" for kind in KINDS)),
        ("Audits that were disturbed, and finished", f"{found.audits}"),
        ("Starts of the same command", f"{found.runs}"),
        ("Ends by itself", ", ".join(f"{n} with exit {code}" for code, n in sorted(found.exits.items()))),
        ("Runs that ended with trials lost (exit 4) and were started again", f"{found.missed}"),
        ("Finished trials that were made again or changed", f"{found.again}"),
        ("Audits whose record or results differ from the undisturbed one", f"{found.differing}"),
        ("Parts of files left behind by kills", f"{found.leftovers}"),
        ("Seconds", f"{found.seconds:.0f}"),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"`python bench/kills.py --kills {total} --each {each} --seed {seed}`\n\n| | |\n|---|---|\n{table}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--each", type=int, default=10, help="kills of one audit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    found = campaign(asked.kills, asked.seed, asked.each)
    text = page(found, asked.each, asked.seed)
    print(text)
    if asked.out:
        asked.out.write_text(text)
    return int(bool(found.again or found.differing))


if __name__ == "__main__":
    sys.exit(main())
