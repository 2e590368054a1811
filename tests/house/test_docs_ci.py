"""The pages on CI and evidence, and the action: what they tell to type runs and does what is said."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from dpaudit.cli import app
from dpaudit.policy import parse_policy
from dpaudit.record import RECORD_NAME, dump
from tests.sample_record import quiet_record

ROOT = Path(__file__).parents[2]
CI, EVIDENCE = (ROOT / "docs/ci.md").read_text(), (ROOT / "docs/evidence.md").read_text()
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
# Reach for the network, or train: what is left is run.
ELSEWHERE = ("pip install", "dpaudit run ", "dpaudit reproduce ")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def lines_of(document: Any) -> list[str]:
    """Every `run:` and `script:` line of a workflow."""
    if isinstance(document, list):
        return [line for each in document for line in lines_of(each)]
    if not isinstance(document, dict):
        return []
    own = document.get("run", [])
    own = [own] if isinstance(own, str) else own
    script = [line for line in document.get("script", []) if isinstance(line, str)]
    return [*own, *script, *(line for value in document.values() for line in lines_of(value))]


WORKFLOWS = [yaml.safe_load(block) for block in blocks(CI, "yaml")]
STEPS = [line for workflow in WORKFLOWS for line in lines_of(workflow)]
CONSOLE = [
    [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    for page in (CI, EVIDENCE)
    for block in blocks(page, "console")
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A project with two records of one audit."""
    for name in ("default", "other"):
        (tmp_path / "audits" / name).mkdir(parents=True)
        (tmp_path / "audits" / name / RECORD_NAME).write_bytes(dump(quiet_record()))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dpaudit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dpaudit "$@"\n')
    (tmp_path / "bin/dpaudit").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return tmp_path


def dpaudit(command: str) -> Result:
    return CliRunner().invoke(app, shlex.split(command)[1:])


def shell(folder: Path, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **variables
    }  # fmt: skip
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_block_is_of_a_kind_that_is_checked():
    for page, kinds in ((CI, {"console", "python", "toml", "yaml"}), (EVIDENCE, {"console"})):
        assert set(re.findall(r"^```(\w*)$", page, flags=re.MULTILINE)[::2]) == kinds


@pytest.mark.parametrize("commands", CONSOLE, ids=lambda commands: commands[0])
def test_what_is_to_be_typed_runs_in_its_order(commands, folder):
    for command in commands:
        if not command.startswith(ELSEWHERE):
            done = dpaudit(command)
            assert done.exit_code == 0, (command, done.output, done.exception)


def test_the_pages_have_steps_of_each_kind():
    assert len(STEPS) >= 7 and any("dpaudit trend" in step for step in STEPS)
    assert any(workflow.get(True, workflow.get("on")) for workflow in WORKFLOWS if isinstance(workflow, dict))


@pytest.mark.parametrize("step", [s for s in STEPS if not any(word in s for word in ELSEWHERE)])
def test_a_step_of_a_workflow_runs(step, folder):
    done = dpaudit(step)
    assert done.exit_code == 0, (done.output, done.exception)


@pytest.mark.parametrize("step", [s for s in STEPS if s.startswith("dpaudit run")])
def test_a_step_that_trains_has_options_that_exist(step):
    known = {option for option in shlex.split(step) if option.startswith("--")}
    assert known and all(option in dpaudit("dpaudit run --help").output for option in known)


def test_the_policy_of_the_page_is_accepted():
    (text,) = blocks(CI, "toml")
    for profile in ("", "ci", "release"):
        assert len(parse_policy(text, Path("dpaudit.toml"), profile).thresholds) >= 7
    assert tomllib.loads(text)["gate"]["waivers"]


def action(folder: Path, **given: str) -> list[subprocess.CompletedProcess[str]]:
    """The steps of the action whose condition holds, but the installation."""
    inputs = {name: str(each.get("default", "")) for name, each in ACTION["inputs"].items()}
    inputs |= given
    found = []
    for step in ACTION["runs"]["steps"][1:]:
        if "if" in step:
            name = re.fullmatch(r"inputs\.(\w+) != ''", step["if"]).group(1)
            if not inputs[name]:
                continue
        variables = {
            k: inputs[v.removeprefix("${{ inputs.").removesuffix(" }}")] for k, v in step["env"].items()
        }
        found.append(shell(folder, step["run"], **variables))
        if found[-1].returncode:
            break
    return found


def test_the_action_gates_and_writes_its_files(folder):
    (done,) = action(folder, record="audits/default", output="out put")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (folder / "out put").iterdir()} == {"gate.xml", "gate.sarif", "gate.json"}


def test_the_action_fails_by_policy_and_by_signature(folder):
    (folder / "hard.toml").write_text("[gate]\nauc = 0.1\n")
    (done,) = action(folder, record="audits/default", policy="hard.toml")
    assert done.returncode == 1
    dpaudit("dpaudit sign audits/default --new-key k --name A --role R")
    assert [d.returncode for d in action(folder, record="audits/default", trust="k.pub")] == [0, 0]
    (missing,) = action(folder, record="audits/default", trust="k.pub", signoffs="1")
    assert missing.returncode == 1 and "reviews" in missing.stdout


def test_no_input_of_the_action_is_pasted_into_a_shell():
    assert not [step for step in ACTION["runs"]["steps"] if "${{" in step.get("run", "")]
    assert {name for name, each in ACTION["inputs"].items() if each.get("required")} == {"record"}


def test_the_pages_are_linked():
    readme = (ROOT / "README.md").read_text()
    assert "docs/ci.md" in readme and "docs/evidence.md" in readme
