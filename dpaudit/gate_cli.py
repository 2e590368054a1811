"""`dpaudit gate`: a record and a policy to an exit code, for a person and for a CI system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dpaudit.address import place_of
from dpaudit.claim_cli import AsJson, option
from dpaudit.errors import UsageError

if TYPE_CHECKING:
    from dpaudit.baseline import Baseline
    from dpaudit.policy import Policy
    from dpaudit.record import AuditRecord, GateResult

_RULES, _FILES = "The rules", "Files"
Record = Annotated[str, typer.Argument(help="Folder or address of the record, or its record.json.")]
PolicyFile = Annotated[Path | None, option(_RULES, "TOML file with a [gate] table.", "--policy")]
Profile = Annotated[str, option(_RULES, "ci, release (strict), or one of the policy's own.", "--profile")]
BaselineFile = Annotated[
    Path | None, option(_RULES, "What earlier releases measured; worse by its interval fails.", "--baseline")
]
Strict = Annotated[bool, option(_RULES, "What warns, or is waived, fails.", "--strict")]
ExitZero = Annotated[bool, option(_RULES, "End with 0 whatever was found; 2 stays 2.", "--exit-zero")]
Ratchet = Annotated[
    bool, option(_FILES, "After a pass, lower the baseline where intervals separate.", "--ratchet")
]
Junit = Annotated[Path | None, option(_FILES, "Write JUnit XML here.", "--junit")]
Sarif = Annotated[Path | None, option(_FILES, "Write SARIF 2.1.0 here.", "--sarif")]
Markdown = Annotated[Path | None, option(_FILES, "Write the tables as Markdown here.", "--markdown")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(name="gate")(gate)


def gate(
    record: Record,
    policy: PolicyFile = None,
    profile: Profile = "",
    baseline: BaselineFile = None,
    ratchet: Ratchet = False,
    strict: Strict = False,
    exit_zero: ExitZero = False,
    junit: Junit = None,
    sarif: Sarif = None,
    markdown: Markdown = None,
    as_json: AsJson = False,
) -> None:
    """Judge a record by a policy; the exit code says how it went. Needs no GPU and no training.

    Exit codes: 0 pass, 1 refuted or a limit exceeded, 2 wrong usage, 3 inconclusive, 4 trials missing.
    """
    from dataclasses import replace

    from rich.console import Console

    from dpaudit.gate import evaluate
    from dpaudit.record import load
    from dpaudit.reports import jsonview, text

    if ratchet and baseline is None:
        raise UsageError("Expected --baseline with --ratchet, found none. Name the file to be written.")
    place = place_of(record)
    found = load(place)
    rules = policy_of(found, policy, profile)
    rules = replace(rules, strict=rules.strict or strict)
    before = _baseline(baseline, ratchet=ratchet)
    result = evaluate(found, rules, baseline=before)
    file = place / "record.json" if place.is_dir() else place
    _write(found, result, str(file), {"junit": junit, "sarif": sarif, "markdown": markdown})
    if ratchet and baseline is not None and result.exit_code == 0:
        _lower(found, before, baseline)
    if as_json:
        typer.echo(jsonview.render(found, result), nl=False)
    else:
        text.print_summary(found, Console(), result)
    raise typer.Exit(0 if exit_zero else result.exit_code)


def policy_of(record: AuditRecord, file: Path | None, profile: str = "") -> Policy:
    """The policy named, else that of the current folder, else the [gate] table of the record's own plan.

    The record's own table has no word where the current folder has one with limits, be they of the profile
    alone; where that has none, what is strict there stays strict.
    """
    from dataclasses import replace

    from dpaudit.policy import find_policy, load_policy, parse_policy

    if file is not None:
        return load_policy(file, profile)
    own = record.plan.get("gate")
    # A profile may be one of the plan's, but only where the current folder has no policy.
    here = find_policy(Path.cwd(), profile if not own or find_policy(Path.cwd()).file else "")
    if here.thresholds or not own:
        return here
    rules = parse_policy(record.plan_toml, Path("plan.toml"), profile)
    return replace(rules, strict=rules.strict or here.strict)


def _baseline(file: Path | None, *, ratchet: bool) -> Baseline | None:
    """The baseline, which need not be there yet if it is going to be written."""
    from dpaudit.baseline import load_baseline

    if file is None or (ratchet and not file.exists()):
        return None
    return load_baseline(file)


def _lower(record: AuditRecord, before: Baseline | None, file: Path) -> None:
    """Write the baseline where it is lower now, or new."""
    from dpaudit.baseline import ratcheted
    from dpaudit.store import write_atomic

    after = ratcheted(record, before)
    if before is None or after.entries != before.entries:
        write_atomic(file, after.dump())


def _write(record: AuditRecord, result: GateResult, file: str, wanted: dict[str, Path | None]) -> None:
    """Write what was asked for; a step summary is appended to."""
    from dpaudit.reports import junit, markdown, sarif

    renderers: dict[str, Callable[[], str]] = {
        "junit": lambda: junit.render(record, result),
        "sarif": lambda: sarif.render(record, result, file),
        "markdown": lambda: markdown.render(record, result),
    }
    for name, path in wanted.items():
        if path is not None:
            from dpaudit.store import write_atomic  # brings numpy, which a bare verdict does without

            write_atomic(path, renderers[name]().encode())
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as stream:
                stream.write(markdown.render(record, result))
        except OSError as error:
            raise UsageError(
                f"Expected to append to $GITHUB_STEP_SUMMARY, found: {error}. Unset it, or name a file."
            ) from None
