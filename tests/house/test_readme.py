"""The README runs: its examples are the files that they quote, and its commands do what it prints."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import Result
from typer.main import get_command
from typer.testing import CliRunner

from dpaudit import errors, plan, registry
from dpaudit.cli import app
from dpaudit.policy import parse_policy
from dpaudit.record import RECORD_NAME, dump
from dpaudit.store import StoreError
from tests.sample_record import quiet_record

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
SLOW = {"run", "reproduce"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def session(block: str) -> list[tuple[str, str]]:
    """Commands of a console block, each with the output that is shown below it."""
    found: list[tuple[str, str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


COMMANDS = [pair for block in blocks("console") for pair in session(block)]
OURS = [(command, output) for command, output in COMMANDS if command.startswith("dpaudit ")]
CHEAP = [(command, output) for command, output in OURS if shlex.split(command)[1] not in SLOW]


def test_every_fenced_block_is_of_a_kind_that_is_checked():
    fences = re.findall(r"^```(\w*)$", README, flags=re.MULTILINE)
    assert set(fences[::2]) == {"console", "python", "text", "toml"}
    assert set(fences[1::2]) == {""}


def test_the_own_model_is_the_example_and_is_short():
    (quoted,) = (block for block in blocks("python") if "def fit" in block)
    assert quoted == (ROOT / "examples/own_model.py").read_text()
    assert len(quoted.splitlines()) <= 40


def test_the_release_is_the_example():
    (quoted,) = (block for block in blocks("python") if "def noisy_mean" in block)
    assert quoted == (ROOT / "examples/release.py").read_text()


def test_the_plan_of_the_own_model_is_the_example_and_is_accepted():
    quoted = [block for block in blocks("toml") if "[[targets]]" in block]
    assert quoted == [
        (ROOT / f"examples/{name}.toml").read_text() for name in ("own_model", "released_model")
    ]
    own, _ = plan.read(ROOT / "examples/own_model.toml")
    assert [target.role for target in own.targets] == ["audited", "control"]


def test_the_policy_is_accepted():
    (quoted,) = (block for block in blocks("toml") if "[gate]" in block)
    policy = parse_policy(quoted, Path("release.toml"))
    assert {limit.metric for limit in policy.thresholds} >= {"epsilon_claimed", "epsilon_lower", "auc"}
    assert len(policy.waivers) == 1


def test_every_toml_block_is_the_plan_or_the_policy():
    assert len(blocks("toml")) == 3


def test_the_released_model_is_audited(tmp_path):
    result = dpaudit(
        f"dpaudit run {shlex.quote(str(ROOT / 'examples/released_model.toml'))} --out {tmp_path}/audit "
        "--set compute.engine=inline"
    )
    assert result.exit_code == 0 and "NOT REFUTED" in result.output


def commands_of_the_program() -> set[str]:
    return {command.name or command.callback.__name__ for command in app.registered_commands}


def test_the_readme_shows_every_command_and_no_other():
    shown = {shlex.split(command)[1] for command, _ in OURS} - {"--version"}
    assert shown == commands_of_the_program()


def dpaudit(command: str) -> Result:
    return CliRunner().invoke(app, shlex.split(command)[1:])


@pytest.mark.parametrize("name", sorted(commands_of_the_program()))
def test_every_command_has_help_and_every_option_shown_exists(name):
    assert dpaudit(f"dpaudit {name} --help").exit_code == 0
    words = {word for command, _ in OURS if f" {name} " in command for word in shlex.split(command)[2:]}
    options = {
        spelling for parameter in get_command(app).commands[name].params for spelling in parameter.opts
    }
    assert {word for word in words if word.startswith("--")} <= options


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """Where a reader is who followed the README so far: an audit, a policy, and scores."""
    (tmp_path / "audits/default").mkdir(parents=True)
    (tmp_path / "audits/default" / RECORD_NAME).write_bytes(dump(quiet_record()))
    (tmp_path / "audits/next").mkdir()
    (tmp_path / "audits/next" / RECORD_NAME).write_bytes(dump(quiet_record()))
    (tmp_path / "release.toml").write_text(next(block for block in blocks("toml") if "[gate]" in block))
    (tmp_path / "train.py").write_text("print('trains nothing')\n")
    rows = (f"{i % 7},{1950 + i % 40},{'mf'[i % 2]},d{i % 3}\n" for i in range(200))
    (tmp_path / "table.csv").write_text("postcode,birth_year,sex,diagnosis\n" + "".join(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for block in blocks("python"):
        if "def noisy_mean" in block:
            (tmp_path / "release.py").write_text(block)
        elif "def fit" not in block:
            exec(block, {})
    return tmp_path


@pytest.mark.parametrize(
    ("command", "output"),
    [
        pytest.param(
            *shown, id=shown[0], marks=[pytest.mark.slow] if shown[0].startswith("dpaudit mechanism") else []
        )
        for shown in CHEAP
    ],
)
def test_a_cheap_command_runs_and_prints_what_is_shown(command, output, reader):
    if "--replay" in command:
        dpaudit(OURS[OURS.index((command, output)) - 1][0])
    elif "--trust" in command:
        (signed,) = (session(block) for block in blocks("console") if command in block)
        for earlier in [line for line, _ in signed][: [line for line, _ in signed].index(command)]:
            dpaudit(earlier)
    elif "--key" in command:
        dpaudit("dpaudit sign --new-key anne")
    done = dpaudit(command)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (0, 1, 3, 4), done.output
    if " mechanism " in command and output:
        # On a slow machine fewer pairs are tried in the time that is allowed, and another one is found.
        assert outline(done.stdout) == outline(output)
    elif output:
        assert done.stdout == output


def outline(text: str) -> list[str]:
    """The verdict and the names of the rows that follow it."""
    return [text.partition(":")[0], *re.findall(r"^ (\w[\w ]*?)  ", text, flags=re.MULTILINE)]


def test_the_verbs_exist():
    verbs = {command.split()[1] for command, _ in COMMANDS if command.startswith("make ")}
    assert verbs == {"audit", "test"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert verbs <= targets


def test_every_command_shown_is_one_of_ours():
    assert {command.split()[0] for command, _ in COMMANDS} == {"make", "dpaudit"}


def test_the_verdict_table_is_of_the_default_plan_and_as_expected_of_it():
    (shown,) = blocks("text")
    rows = dict(
        reversed(pair)
        for pair in re.findall(r"^ ?(NOT REFUTED|REFUTED|CAUGHT|NOT CAUGHT) +(\w+) ", shown, re.M)
    )
    default, _ = plan.read(None)
    assert rows == {t.name: "CAUGHT" if t.role == "control" else "NOT REFUTED" for t in default.targets}
    expected = (ROOT / ".ci/expect_audit.py").read_text()
    assert re.search(r'"private": "NOT REFUTED", "plain": "REFUTED", "broken": "REFUTED"', expected)


def table(first_heading: str) -> list[list[str]]:
    """Cells of the rows of the table that starts with this heading."""
    (found,) = re.findall(rf"^\| {first_heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]


def test_the_table_of_attacks_lists_every_attack_with_its_access():
    listed = {name.strip("` "): row[1].strip("`") for row in table("attack") for name in row[0].split(",")}
    assert listed.pop("(always)") == "ledger"
    built = {name: registry.build("attack", name, registry.ATTACKS, {}) for name in registry.ATTACKS}
    assert listed == {name: attack.access.value for name, attack in built.items()}


def test_the_table_of_targets_lists_the_default_plan():
    default, _ = plan.read(None)
    roles = {row[0].strip("`"): row[2] for row in table("target")}
    assert {name: "control" if "control" in role else "audited" for name, role in roles.items()} == {
        target.name: target.role for target in default.targets
    }


def test_the_table_of_exit_codes_lists_every_code():
    codes = {int(row[0]) for row in table("exit")}
    kinds = (errors.UsageError, errors.TrialError, errors.Interrupted, StoreError)
    assert codes == {0, 1, 3} | {kind.exit_code for kind in kinds}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:attacks|bench|docs|dpaudit|examples|reports|targets|tests)/[\w./-]*)`", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_architecture_fits_one_screen():
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 60
