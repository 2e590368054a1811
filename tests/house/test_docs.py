"""The site: every page has its place, every block runs, every word of the report is explained."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dpaudit.cli import app
from dpaudit.plan import read
from dpaudit.record import RECORD_NAME, dump, load
from dpaudit.reports.words import GLOSSARY
from tests.sample_record import quiet_record

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
# Pages whose blocks have a test of their own.
ELSEWHERE = {
    "shadows.md": "tests/house/test_docs_shadows.py",
    "scale.md": "tests/house/test_docs_scale.py",
    "membership.md": "tests/unit/test_membership_page.py",
    "releases.md": "tests/unit/test_releases_page.py",
    "domains.md": "tests/unit/test_domains_page.py",
    "extraction.md": "tests/unit/test_extraction_page.py",
    "reconstruction_games.md": "tests/unit/test_reconstruction_page.py",
    "ci.md": "tests/house/test_docs_ci.py",
    "evidence.md": "tests/house/test_docs_ci.py",
    "stores.md": "tests/e2e/test_stores.py",
}
# Prospects and accountants of these pages take a while.
LONG = {"bound.md", "ledger.md", "verdict.md"}
OPTIONAL = {"transformers", "lightning"}
KINDS = {"python", "console", "toml", "text", "yaml", "json", ""}
# What is read here does not depend on how long is trained: one epoch, and little of each attack.
SMALL = [
    "recipe.epochs=1",
    "attacks.lira.shadows=2",
    "attacks.step-canary.references=100",
    "attacks.step-canary.replays=1",
    "attacks.prior-aware.candidates=[10]",
    "attacks.gradient-inversion.iterations=5",
    "data.canaries=20",
]
# The same of the plans for a model of one's own, where they have the attack.
LESS = {
    "data": ["data.canaries=20"],
    "step-canary": ["attacks.step-canary.references=100", "attacks.step-canary.replays=1"],
    "lira": ["attacks.lira.shadows=2"],
}
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    kind: str
    file: str
    body: str


def blocks(page: str) -> list[Block]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [Block(kind=kind, file=file, body=body) for kind, file, body in FENCE.findall(text)]


def commands(block: Block) -> list[str]:
    lines = (line.removeprefix("$ ") for line in block.body.replace("\\\n", " ").splitlines())
    return [line for line in lines if line.startswith("dpaudit ")]


def test_every_fence_is_of_a_known_kind():
    found = {page: {b.kind for b in blocks(page)} - KINDS for page in PAGES}
    assert {page: kinds for page, kinds in found.items() if kinds} == {}
    assert not [page for page in PAGES if (DOCS / page).read_text().count("\n```") % 2]


def test_the_model_of_opacus_is_the_example():
    (block,) = (block for block in blocks("own_model.md") if block.file == "opacus_model.py")
    assert block.body == (ROOT / "examples/own_model.py").read_text()


def test_pages_that_are_tested_elsewhere_are():
    for page, file in ELSEWHERE.items():
        assert page in (ROOT / file).read_text()


def test_every_word_of_the_report_is_in_the_glossary():
    page = (DOCS / "glossary.md").read_text()
    missing = [term for term, meaning in GLOSSARY if f"**{term}**\n:   {meaning}\n" not in page]
    assert missing == []


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder with what pages suppose a reader to have: scores, a script, a plan, a module."""
    rng = np.random.default_rng(0)
    score = rng.normal(size=200)
    rows = "\n".join(f"{i},{int(i % 2)},{value}" for i, value in enumerate(score))
    (tmp_path / "scores.csv").write_text(f"record_id,is_member,score\n{rows}\n")
    people = [f"{10115 + i % 9},19{50 + i % 40}-01-0{1 + i % 9},{'fm'[i % 2]}" for i in range(60)]
    release = "\n".join(f"{each},{'abc'[i % 3]},p{i}" for i, each in enumerate(people))
    (tmp_path / "table.csv").write_text(f"postcode,birth_date,sex,diagnosis,who\n{release}\n")
    register = "\n".join(f"{each},p{i}" for i, each in enumerate(people))
    (tmp_path / "register.csv").write_text(f"postcode,birth_date,sex,name\n{register}\n")
    (tmp_path / "train.py").write_text("print('trains nothing')\n")
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage/__init__.py").write_text("")
    (tmp_path / "mypackage/train.py").write_text("print('trains nothing')\n")
    (tmp_path / "plan.toml").write_bytes((ROOT / "dpaudit/default.toml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def prepare(command: list[str], folder: Path) -> None:
    """What a command supposes that came before it."""
    if command[1] == "init":
        Path(command[2]).unlink(missing_ok=True)
    if command[1] in ("gate", "show", "report") and not Path(command[2]).exists():
        (folder / command[2]).mkdir(parents=True)
        (folder / command[2] / RECORD_NAME).write_bytes(dump(quiet_record()))


def typed(line: str, folder: Path) -> None:
    words = shlex.split(line, comments=True)
    prepare(words, folder)
    done = CliRunner().invoke(app, words[1:])
    assert done.exception is None or isinstance(done.exception, SystemExit), (line, done.exception)
    assert done.exit_code in (0, 1, 3), (line, done.output)


def executed(block: Block, names: dict[str, Any]) -> str:
    """Run a block; returns the name of an optional library that it wants and that is not here."""
    try:
        exec(compile(block.body, block.file or "block", "exec"), names)
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        return str(error.name)
    return ""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow) if page in LONG else page
        for page in PAGES
        if page not in ELSEWHERE
    ],
)
def test_a_reader_can_follow_the_page(page, reader):
    """All but training: `dpaudit run` is typed in the slow tests below."""
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.file:
            (reader / block.file).write_text(block.body)
        if block.kind == "python":
            executed(block, {"__name__": "page"} if block.file else names)
        if block.kind == "toml" and block.file:
            assert read(reader / block.file)[0].targets
        for line in commands(block):
            if line.split()[1] not in ("run", "mechanism"):
                typed(line, reader)


def audits(page: str) -> list[str]:
    return [line for block in blocks(page) for line in commands(block) if line.split()[1] == "run"]


def test_plans_of_the_pages_are_audited_below():
    assert audits("index.md") == ["dpaudit run plan.toml"]
    others = [
        line
        for page in PAGES
        if page not in ("index.md", "own_model.md", *ELSEWHERE)
        for line in audits(page)
    ]
    assert others == []


@pytest.mark.slow
@pytest.mark.parametrize("line", audits("own_model.md"))
def test_a_model_of_ones_own_is_audited(line, reader):
    stem = line.split()[-1].removesuffix("_plan.toml")
    for block in blocks("own_model.md"):
        if block.file.startswith(f"{stem}_"):
            (reader / block.file).write_text(block.body)
    missing = executed(
        next(b for b in blocks("own_model.md") if b.file == f"{stem}_model.py"), {"__name__": "page"}
    )
    if missing:
        pytest.skip(f"{missing} is not installed")
    asked = {"data", *read(reader / f"{stem}_plan.toml")[0].attacks}
    less = [f"--set={setting}" for name in LESS if name in asked for setting in LESS[name]]
    done = subprocess.run(
        [sys.executable, "-m", "dpaudit", *shlex.split(line)[1:], "--engine", "inline", *less],
        cwd=reader,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(reader), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1, 3), done.stderr
    record = load(reader / "audits" / f"{stem}_plan")
    assert {trial.status for trial in record.trials} == {"finished"}
    assert any(row.status == "RUN" for row in record.coverage)


@pytest.mark.slow
def test_the_five_minutes_of_the_first_page(reader):
    typed(f"{audits('index.md')[0]} --engine inline {' '.join(f'--set {s}' for s in SMALL)}", reader)
    typed("dpaudit gate audits/plan", reader)
    assert (reader / "audits/plan/report.html").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None, reason="mkdocs (the extra `docs`) is not installed"
)
def test_the_site_is_built_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    for page in PAGES:
        text = (tmp_path / "site" / page.replace(".md", ".html")).read_text()
        # Fonts, icons and scripts are the site's own: nobody else learns who reads it.
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', text), page
