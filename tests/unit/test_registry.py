"""`dpaudit.registry`: names resolve lazily, and a wrong one is answered with the nearest right one."""

import subprocess
import sys

import pytest

from dpaudit import registry
from dpaudit.asking import Extracts, Game, LineUp, Rebuilds, Reconstructs
from dpaudit.errors import UsageError
from dpaudit.protocols import ModelAttack, StepAttack
from dpaudit.registry import (
    ATTACKS,
    DATA,
    ENGINES,
    LOAD_DATA,
    MECHANISMS,
    TRAINING_TARGET,
    TRAININGS,
    build,
    resolve,
)

TABLES = {
    "attack": ATTACKS,
    "data source": DATA,
    "engine": ENGINES,
    "mechanism": MECHANISMS,
    "training function": TRAININGS,
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table])
def test_every_built_in_name_resolves(kind, name):
    assert callable(resolve(kind, name, TABLES[kind]))


@pytest.mark.parametrize("name", [TRAINING_TARGET, LOAD_DATA])
def test_what_runs_use_by_full_name_resolves(name):
    assert callable(resolve("target", name, {}))


@pytest.mark.parametrize("name", ATTACKS)
def test_every_built_in_attack_satisfies_a_protocol_and_bears_its_own_name(name):
    attack = build("attack", name, ATTACKS, {})
    assert isinstance(attack, StepAttack | ModelAttack | Game | LineUp | Extracts | Rebuilds | Reconstructs)
    assert attack.name == name


def test_a_wrong_name_gets_the_nearest_right_one():
    with pytest.raises(UsageError, match="found 'lirra': did you mean 'lira'"):
        resolve("attack", "lirra", ATTACKS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("registry_user_")]:
        del sys.modules[name]


def test_a_users_object_is_found_beside_the_plan(folder):
    (folder / "registry_user_a.py").write_text("def fit(): return 'found'")
    assert resolve("training function", "registry_user_a:fit", TRAININGS, path=folder)() == "found"


def test_a_users_object_of_another_spelling_is_suggested(folder):
    (folder / "registry_user_b.py").write_text("def fit_private(): ...\n_secret = 1")
    with pytest.raises(UsageError, match=r"to have 'fit_privat', found none: did you mean 'fit_private'"):
        resolve("training function", "registry_user_b:fit_privat", TRAININGS, path=folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import no_such_module_", "ModuleNotFoundError: No module named 'no_such_module_'"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_users_module_that_does_not_import_says_why(folder, text, found):
    (folder / "registry_user_c.py").write_text(text)
    with pytest.raises(UsageError, match=found):
        resolve("training function", "registry_user_c:fit", TRAININGS, path=folder)


@pytest.mark.parametrize("name", ["no_such_module_:fit", ":fit", "..relative:fit"])
def test_a_module_that_is_not_there_is_a_usage_error(name):
    with pytest.raises(UsageError, match="to import, found"):
        resolve("training function", name, TRAININGS)


def test_build_hands_the_recipe_to_the_attack():
    assert build("attack", "lira", ATTACKS, {"shadows": 3}).shadows == 3


def test_an_unknown_option_gets_the_nearest_right_one():
    with pytest.raises(UsageError, match="of attack 'lira', found 'shadow': did you mean 'shadows'"):
        build("attack", "lira", ATTACKS, {"shadow": 3})


@pytest.mark.parametrize("option", ["name", "access"])
def test_identity_and_access_of_an_attack_are_no_options(option):
    with pytest.raises(UsageError, match=f"found '{option}'"):
        build("attack", "lira", ATTACKS, {option: "x"})


@pytest.mark.parametrize("value", ["many", 2.5, True, [1]])
def test_an_option_of_another_type_is_refused_before_training(value):
    with pytest.raises(UsageError, match="Expected shadows of attack 'lira' to be of type int, found"):
        build("attack", "lira", ATTACKS, {"shadows": value})


def test_a_whole_number_will_do_for_a_real_one():
    assert build("attack", "step-canary", ATTACKS, {"scale": 3}).scale == 3


def test_an_engine_takes_no_options():
    with pytest.raises(UsageError, match="Expected engine 'inline' to accept"):
        build("engine", "inline", ENGINES, {"threads": 2})


def test_the_tables_are_strings_so_that_naming_an_attack_imports_none():
    code = "import sys, dpaudit.registry; print([m for m in sys.modules if m.startswith('dpaudit.attacks')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("mine.release", "did you mean 'mine:release'"),
        ("mine.py:release", "not its file: mine:release."),
        ("./tools/mine.py", "not its file: tools.mine:object."),
        ("lapalce", "did you mean 'laplace'"),
        ("!", "and 28 more."),
    ],
)
def test_the_right_spelling_of_a_wrong_name_is_shown(written, says):
    with pytest.raises(UsageError, match="Expected a known mechanism or module:object") as error:
        resolve("mechanism", written, MECHANISMS)
    assert says in str(error.value)


def test_what_is_installed_is_read_once_for_each_search_path(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(registry, "entry_points", lambda group: asked.append(group) or ())
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(5):
        registry.build("attack", "lira", registry.ATTACKS, {})
    assert asked == ["dpaudit.attacks"]
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    registry.build("attack", "lira", registry.ATTACKS, {})
    assert len(asked) == 2
