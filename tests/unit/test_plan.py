"""`dpaudit.plan`: everything wrong with a plan is said in one line before anything is trained."""

import tomllib
from pathlib import Path

import pytest

from dpaudit.errors import UsageError
from dpaudit.plan import canonical, default_toml, parse, read

SMALL = """
[[targets]]
name = "a"
train = "opacus"

[attacks.lira]
shadows = 4
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def refused(text: str, folder: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read(written(folder, text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_plan_is_complete_and_judges_one_target():
    plan, text = read(None)
    assert text == default_toml()
    assert [target.name for target in plan.targets if target.role == "audited"] == ["private"]
    assert any(target.role == "control" for target in plan.targets)


def test_a_plan_of_two_tables_is_enough(tmp_path):
    plan, text = read(written(tmp_path, SMALL))
    assert text == SMALL
    assert plan.shadows == 4
    assert plan.data.source == "digits"


@pytest.mark.parametrize(
    ("text", "where", "right"),
    [
        ("sede = 1" + SMALL, "'sede'", "'seed'"),
        ("[data]\ncanarys = 3" + SMALL, "'data.canarys'", "'canaries'"),
        ("[compute]\ndevise = 'cpu'" + SMALL, "'compute.devise'", "'device'"),
        (SMALL.replace("train", "trian"), "'targets.0.trian'", "'train'"),
        (
            SMALL.replace("[attacks", "claim = { epsilonn = 1.0 }\n[attacks"),
            "'targets.0.claim.epsilonn'",
            "'epsilon'",
        ),
        (SMALL.replace("[[targets]]", "[[target]]"), "'target'", "'targets'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(tmp_path, text, where, right):
    message = refused(text, tmp_path)
    assert f"found {where}" in message
    assert f"did you mean {right}?" in message


def test_a_missing_key_is_named_with_the_command_that_writes_one(tmp_path):
    message = refused("[attacks.lira]", tmp_path)
    assert "to have targets, found nothing" in message
    assert "dpaudit init" in message


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("alpha = 0.5", "found 0.5"),
        ("alpha = nan", "found nan"),
        ("delta = 1.0", "found 1.0"),
        ("seed = -1", "found -1"),
        ("seed = 'one'", "found 'one'"),
    ],
)
def test_a_value_out_of_range_is_shown(tmp_path, line, found):
    key = line.split()[0]
    message = refused(line + SMALL, tmp_path)
    assert message.startswith(f"Expected {key} in ")
    assert found in message


def test_two_targets_of_one_name_are_refused(tmp_path):
    message = refused(SMALL + '[[targets]]\nname = "a"\ntrain = "plain"\n', tmp_path)
    assert "target 'a' is there twice" in message


def test_a_plan_without_an_audited_target_is_refused(tmp_path):
    message = refused(SMALL.replace("[attacks", 'role = "control"\n[attacks'), tmp_path)
    assert 'no target has role = "audited"' in message


def test_a_target_whose_name_would_leave_the_folder_is_refused(tmp_path):
    assert "targets.0.name" in refused(SMALL.replace('"a"', '"../a"'), tmp_path)


@pytest.mark.parametrize("shadows", ["-1", "'many'", "2.5"])
def test_a_number_of_shadows_that_is_no_number_is_refused(tmp_path, shadows):
    plan, _ = read(written(tmp_path, SMALL.replace("4", shadows)))
    with pytest.raises(UsageError, match="Expected shadows="):
        _ = plan.shadows


def test_the_most_demanding_attack_sets_the_number_of_shadows(tmp_path):
    plan, _ = read(written(tmp_path, SMALL + "[attacks.other]\nshadows = 9\n[attacks.third]\n"))
    assert plan.shadows == 9


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"Expected a plan at .*none\.toml, found nothing"):
        read(tmp_path / "none.toml")


def test_a_file_that_is_no_toml_is_named_with_its_line(tmp_path):
    assert "at line 2" in refused("a = 1\nb = = 2\n", tmp_path)


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff\xfe\x00")])
def test_a_path_that_is_no_text_file_is_refused(tmp_path, make):
    make(tmp_path / "plan.toml")
    with pytest.raises(UsageError, match="to be a readable text file"):
        read(tmp_path / "plan.toml")


def test_overrides_reach_every_level_and_keep_the_type_of_toml(tmp_path):
    path = written(tmp_path, SMALL)
    settings = ["seed=7", "data.canaries=3", "attacks.lira.shadows=2", "targets.0.options.x=[1, 2]"]
    plan, _ = read(path, [*settings, "title=two words", "recipe.hidden=[8]"])
    assert (plan.seed, plan.data.canaries, plan.shadows, plan.title) == (7, 3, 2, "two words")
    assert plan.targets[0].options == {"x": [1, 2]}
    assert plan.options_of(plan.targets[0]) == {"hidden": [8], "x": [1, 2]}


def test_overrides_leave_the_text_of_the_plan_as_it_was_found(tmp_path):
    assert read(written(tmp_path, SMALL), ["seed=7"])[1] == SMALL


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "Expected --set key=value, found 'seed'"),
        ("sede=1", "did you mean 'seed'"),
        ("title.x=1", "'title' is a value"),
        ("targets=1", "Expected targets"),
        ("targets.3.role=control", "count from 0 to 0, found '3'"),
        ("targets.a.role=control", "count from 0 to 0, found 'a'"),
        ("targets.-1.role=control", "count from 0 to 0, found '-1'"),
        ("targets.0=x", "to name a key inside a table"),
        ("compute.device=gpu", "found 'gpu'"),
    ],
)
def test_a_wrong_override_is_one_line(tmp_path, override, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(written(tmp_path, 'title = "t"\n' + SMALL), [override])
    assert "\n" not in str(caught.value)


def test_the_recipe_is_for_the_built_in_trainings_only():
    plan, _ = read(None)
    own = plan.targets[0].model_copy(update={"train": "mine:fit", "options": {"k": 1}})
    assert plan.options_of(own) == {"k": 1}
    assert plan.options_of(plan.targets[0])["epochs"] == plan.recipe["epochs"]


def test_the_digest_depends_on_the_content_and_not_on_the_layout():
    document = tomllib.loads(SMALL)
    backwards = dict(reversed(document.items()))
    assert parse(document).digest() == parse(backwards).digest()
    assert parse(document).digest() != parse({**document, "seed": 1}).digest()


def test_the_canonical_form_takes_every_value_that_toml_has():
    values = tomllib.loads("day = 2026-01-31\nat = 07:32:00\nn = inf\nlist = [1, 'a', true]")
    assert canonical(values) == '{"at":"07:32:00","day":"2026-01-31","list":[1,"a",true],"n":Infinity}'
