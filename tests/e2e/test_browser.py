"""The page in a real browser without a network: nothing runs, nothing is fetched, everybody can read it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dpaudit.gate import evaluate
from dpaudit.policy import parse_policy
from dpaudit.reports import html
from tests.sample_record import sample_record

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright (an extra of `dev`) is not installed"
)
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine, and none is downloaded"
)
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
POLICY = "[gate]\nauc = 0.7\ntpr_at_fpr_0.01 = 0.03\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # The driver would report how it is used, and look for browsers of its own.
    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record = sample_record()
    gate = evaluate(record, parse_policy(POLICY, Path("dpaudit.toml")), today=date(2025, 11, 3))
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html.render(record, gate), encoding="utf-8")
    return path


def opened(browser: Any, path: Path, width: int, seen: list[str], **settings: Any) -> Any:
    """The page, with everything that it asked for or complained of in `seen`."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **settings)
    page = context.new_page()
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_asks_for_nothing_and_fits_its_window(browser, page_file, width) -> None:
    seen: list[str] = []
    page = opened(browser, page_file, width, seen)
    assert seen == [page_file.as_uri()]
    for unfolded in (False, True):
        page.evaluate(
            "open => document.querySelectorAll('details').forEach(d => { d.open = open })", unfolded
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.scripts.length") == 0
    page.context.close()


def test_the_page_without_scripts_is_the_same_page(browser, page_file) -> None:
    seen: list[str] = []
    page = opened(browser, page_file, 1280, seen, java_script_enabled=False)
    assert page.locator("h1").inner_text() == "The claim of broken does not hold."
    page.context.close()


def test_everything_is_in_the_print(browser, page_file) -> None:
    page = opened(browser, page_file, 1280, [])
    folded = page.get_by_text("ε of plain, add-remove").first
    assert page.locator("nav").is_visible() and not folded.is_visible()
    page.emulate_media(media="print")
    # The control is folded on the screen; on paper nobody unfolds it.
    assert folded.is_visible() and not page.locator("nav").is_visible()
    assert page.pdf().startswith(b"%PDF")
    page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_violation(browser, page_file, width) -> None:
    # The rules are injected as a script, which the page's own policy would refuse.
    page = opened(browser, page_file, width, [], bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    found = axe.Axe().run(page, options={"runOnly": WCAG}).response
    broken = [(v["id"], v["nodes"][0]["html"][:200]) for v in found["violations"]]
    assert broken == []
    assert len(found["passes"]) > 10, "axe looked at nothing"
    page.context.close()


@pytest.mark.slow
def test_axe_finds_a_planted_violation(browser, page_file, tmp_path) -> None:
    worse = tmp_path / "worse.html"
    text = page_file.read_text(encoding="utf-8")
    worse.write_text(
        text.replace("--soft: #4d5866", "--soft: #c8c8c8").replace('lang="en"', ""), encoding="utf-8"
    )
    page = opened(browser, worse, 1280, [], bypass_csp=True)
    page.evaluate("document.querySelectorAll('svg, table').forEach(e => e.remove())")
    found = axe.Axe().run(page, options={"runOnly": WCAG}).response
    assert {"color-contrast", "html-has-lang"} <= {violation["id"] for violation in found["violations"]}
    page.context.close()
