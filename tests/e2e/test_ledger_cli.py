"""`dpaudit ledger`: figures, verdict and exit codes from the numbers alone."""

import json

import pytest
from typer.testing import CliRunner

from dpaudit.cli import app
from dpaudit.errors import UsageError

STEPS = ["ledger", "--noise-multiplier", "1", "--sample-rate", ".02", "--steps", "500", "--delta", "1e-5"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 0, "Give --epsilon"),
        (["--epsilon", "2.8"], 0, "COVERED"),
        (["--epsilon", "2.5"], 1, "NOT COVERED"),
        (["--epsilon", "2.8", "--sampler", "shuffle"], 1, "NOT COVERED"),
        (["--epsilon", "14", "--sampler", "shuffle"], 3, "UNDECIDED"),
        (["--records", "1000", "--delta", "1e-2"], 0, "not below 1/n"),
    ],
)
def test_the_verdict_and_its_exit_code(options: list[str], code: int, words: str) -> None:
    ended = CliRunner().invoke(app, [*STEPS, *options])
    assert ended.exit_code == code, ended.output
    assert words in " ".join(ended.output.split())


def test_json_has_every_accountant() -> None:
    document = json.loads(CliRunner().invoke(app, [*STEPS, "--json"]).output)
    figures = {(row["accountant"], row["adjacency"]): row["epsilon"] for row in document["figures"]}
    assert figures["PLD", "add-remove"] == pytest.approx(2.773, abs=0.01)
    assert figures["PLD", "replace-one"] == pytest.approx(4.214, abs=0.02)
    assert figures["GDP, a limit", "add-remove"] == pytest.approx(2.382, abs=0.01)


def test_an_unknown_sampler_names_the_nearest() -> None:
    ended = CliRunner().invoke(app, [*STEPS, "--sampler", "poison"])
    assert isinstance(ended.exception, UsageError) and "poisson" in str(ended.exception)
