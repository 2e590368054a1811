"""Privacy tests in pytest: the fixture `assert_private`, the marker `privacy`, and their options.

Importing it imports nothing of dpaudit: pytest loads it in every run.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dpaudit.privacy_tests import AssertPrivate

_PROPERTY = "dpaudit"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, on the command line and in the configuration."""
    group = parser.getgroup("dpaudit", "privacy tests")
    group.addoption("--no-privacy", action="store_true", help="skip the tests that are marked privacy")
    group.addoption("--privacy-policy", metavar="FILE", help="policy for records; else that of the folder")
    group.addoption("--privacy-profile", metavar="NAME", default="", help="profile of the policy")
    group.addoption(
        "--privacy-samples",
        metavar="N",
        type=int,
        help="planned outputs of a release function",
    )
    group.addoption(
        "--privacy-seed", metavar="N", type=int, default=0, help="seed of the audits of functions"
    )
    group.addoption("--privacy-out", metavar="FOLDER", help="write what each test found here, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "privacy: audits a claim of privacy; --no-privacy skips it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what uses the fixture, and skip it where that is asked for."""
    skip = pytest.mark.skip(reason="--no-privacy was given")
    for item in items:
        if "assert_private" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.privacy)
        if config.getoption("--no-privacy") and item.get_closest_marker("privacy"):
            item.add_marker(skip)


@pytest.fixture
def assert_private(request: pytest.FixtureRequest) -> Iterator[AssertPrivate]:
    """Call it with a release function and its claim, or with a record; it fails unless the claim stands."""
    from dpaudit.privacy_tests import AssertPrivate

    option = request.config.getoption
    policy = option("--privacy-policy")
    checker = AssertPrivate(
        policy=Path(policy) if policy else None,
        profile=option("--privacy-profile"),
        samples=option("--privacy-samples"),
        seed=option("--privacy-seed"),
        folder=request.path.parent,
    )
    yield checker
    # Properties travel with the reports of workers; files have the name of their test.
    for found in checker.found:
        request.node.user_properties.append((_PROPERTY, f"{found.status}: {found.subject}: {found.reason}"))
    out = option("--privacy-out")
    if out and checker.found:
        from dpaudit.store import write_atomic

        write_atomic(Path(out) / f"{_file_name(request.node.nodeid)}.json", checker.document())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each audit, of this process and of its workers."""
    lines = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown" or getattr(report, "when", "") == "call"
        for name, value in getattr(report, "user_properties", ())
        if name == _PROPERTY
    ]
    if lines:
        terminalreporter.section("privacy")
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)


def _file_name(nodeid: str) -> str:
    """Of a test: readable, and unlike that of every other one."""
    mark = hashlib.sha256(nodeid.encode()).hexdigest()[:10]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', nodeid)[-80:].strip('-.')}-{mark}"
