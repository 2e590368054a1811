"""The page is one file, closed to scripts and the network, and the same bytes for the same record."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from dpaudit.gate import evaluate, parse_policy
from dpaudit.record import AuditRecord, dump, load
from dpaudit.reports import html, words
from dpaudit.verdict import Status, Verdict
from tests.sample_record import quiet_record, sample_record, with_target

HOSTILE = "<img src=x onerror=alert(1)>\"'--></style>$x_1$&amp;"
LIMIT = 500_000
SECTIONS = (
    "verdict", "glance", "gates", "epsilon", "membership", "reconstruction", "rebuilt", "coverage",
    "checklist", "provenance", "reproduce", "signoff", "glossary", "raw",
)  # fmt: skip


class Page(HTMLParser):
    """What is in a page: tags, ids, text outside of styles, and headings in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, *names: str) -> list[str]:
        return [value or "" for _, attrs in self.tags for name, value in attrs.items() if name in names]


def small_record() -> AuditRecord:
    record = quiet_record()
    return replace(record, targets=record.targets[:1])


@pytest.fixture(scope="module")
def page_text() -> str:
    policy = parse_policy("[gate]\nauc = 0.7\ntpr_at_fpr_0.01 = 0.03\n", Path("dpaudit.toml"))
    record = sample_record()
    return html.render(record, evaluate(record, policy, today=date(2025, 11, 3)))


def test_the_same_record_gives_the_same_bytes(tmp_path: Path) -> None:
    record = small_record()
    first = html.render(record)
    assert html.render(record) == first
    (tmp_path / "record.json").write_bytes(dump(record))
    assert html.render(load(tmp_path)) == first


def test_the_users_matplotlib_style_changes_nothing() -> None:
    import matplotlib

    record = small_record()
    plain = html.render(record)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert html.render(record) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_nothing_runs_and_nothing_is_fetched(page_text: str) -> None:
    page = Page(page_text)
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "img"} & {
        t for t, _ in page.tags
    }
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page.values("content")
    assert not [
        v for v in page.values("src", "href", "action", "xlink:href", "srcset") if not v.startswith("#")
    ]
    assert not re.search(r"https?://|@import|javascript:|url\((?!#)", page_text)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_ids_are_unique_and_every_reference_has_its_target(page_text: str) -> None:
    page = Page(page_text)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    used = {v[1:] for v in page.values("href")} | set(re.findall(r"url\(#([^)]*)\)", page_text))
    used |= {part for v in page.values("aria-labelledby") for part in v.split()}
    assert used <= set(ids)


def test_the_sections_come_in_the_agreed_order(page_text: str) -> None:
    found = [attrs.get("id") for tag, attrs in Page(page_text).tags if tag == "section"]
    assert tuple(found) == SECTIONS


def test_headings_never_skip_a_level(page_text: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(page_text).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tables_have_captions_and_scoped_headings(page_text: str) -> None:
    page = Page(page_text)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") > 10
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")


def test_every_figure_has_a_name_and_a_description(page_text: str) -> None:
    figures = [attrs for tag, attrs in Page(page_text).tags if tag == "svg"]
    assert len(figures) > 10
    assert all(attrs["role"] == "img" and attrs["aria-labelledby"] for attrs in figures)
    assert (
        len(re.findall(r"<title id=", page_text)) == len(re.findall(r"<desc id=", page_text)) == len(figures)
    )
    assert "<text" in page_text


def test_the_page_is_small(page_text: str) -> None:
    assert len(page_text.encode()) < LIMIT


def test_a_page_of_many_targets_stays_small_and_says_what_it_left_out() -> None:
    record = sample_record()
    many = tuple(replace(record.targets[0], name=f"run {index}") for index in range(8))
    text = html.render(replace(record, targets=(*many, record.targets[2])))
    assert len(text.encode()) < LIMIT
    assert "were left out to keep this page small" in text


def hostile_record() -> AuditRecord:
    record = sample_record()
    broken = record.targets[1]
    finding = replace(broken.findings[0], where=HOSTILE, check=HOSTILE, remedy=HOSTILE)
    estimate = replace(broken.estimates[0], source=HOSTILE, method=HOSTILE, assumptions=(HOSTILE,))
    target = replace(
        broken,
        name=HOSTILE,
        description=HOSTILE,
        findings=(finding,),
        estimates=(estimate,),
        rates=tuple(replace(rate, source=HOSTILE, slice=HOSTILE) for rate in broken.rates),
        curves=tuple(replace(curve, source=HOSTILE) for curve in broken.curves),
        verdict=replace(broken.verdict, reason=HOSTILE, decided_by=HOSTILE),
    )
    source = replace(record.provenance, command=HOSTILE, environment={HOSTILE: HOSTILE})
    return replace(
        record, title=HOSTILE, targets=(target, record.targets[2]), provenance=source, plan_toml=HOSTILE
    )


def test_hostile_names_are_shown_and_never_obeyed() -> None:
    record = hostile_record()
    text = html.render(record, evaluate(record, today=date(2025, 11, 3)))
    page = Page(text)
    assert "<img" not in text
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.values("id") and HOSTILE in page.text
    assert len(re.findall(r"</style>", text)) == 1


def test_no_data_is_never_zero_and_infinity_is_a_word() -> None:
    record = quiet_record()
    empty = replace(
        record.targets[0],
        estimates=(),
        rates=(),
        findings=(),
        curves=(),
        checklist=(),
        recomputed=(),
        test_accuracy=None,
        verdict=Verdict(status=Status.INCONCLUSIVE, reason="Nothing was observed.", epsilon_lower=None),
    )
    text = Page(html.render(replace(record, targets=(empty,), trials=(), coverage=()))).text
    assert "Lower bound of ε no data" in text
    assert "Ceiling of the audit no data" in text
    assert "No attack gave an estimate" in text
    assert "This audit needed no trials." in text
    endless = with_target(
        record, "private", verdict=replace(record.targets[0].verdict, epsilon_lower=math.inf)
    )
    assert "unbounded" in Page(html.render(endless)).text


@pytest.mark.parametrize("status", ["REFUTED", "NOT REFUTED", "INCONCLUSIVE"])
def test_the_page_never_uses_the_words_that_would_promise_too_much(status: str) -> None:
    record = replace(sample_record(), status=status)
    targets = tuple(replace(t, name=f"target {i}", curves=()) for i, t in enumerate(record.targets))
    record = replace(record, targets=targets, coverage=(), trials=(), plan_toml="")
    text = Page(html.render(record, evaluate(record, today=date(2025, 11, 3)))).text.lower()
    assert not re.findall(r"\b(private|safe|anonymous|compliant|anonymi[sz]ed|secure)\b", text)


def test_the_verdict_sentence_follows_the_status() -> None:
    record = sample_record()
    assert words.headline(record) == "The claim of broken does not hold."
    assert words.headline(quiet_record()) == "This audit did not refute the claim of private."
    assert "cannot say" in words.headline(replace(record, status="INCONCLUSIVE"))
    assert any("never how little" in line for line in words.not_said(quiet_record()))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 500])
def test_chromium_draws_the_page(page_text: str, tmp_path: Path, width: int) -> None:
    (tmp_path / "report.html").write_text(page_text, encoding="utf-8")
    shot = tmp_path / "shot.png"
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --hide-scrollbars"
    )
    done = subprocess.run(
        ["chromium", *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}",
         f"--window-size={width},900", f"file://{tmp_path / 'report.html'}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert shot.exists(), done.stderr
    assert shot.stat().st_size > 20_000
    assert "Content Security Policy" not in done.stderr


def test_styles_of_figures_are_declared_once_and_all(page_text: str) -> None:
    used = {name for value in Page(page_text).values("class") for name in value.split() if name[1:].isdigit()}
    declared = re.findall(r"\.(s\d+)\{[^}]+\}", page_text)
    assert len(used) > 10 and sorted(used) == sorted(declared)
    assert not re.search(r'<(?:path|use|text)[^>]* style="', page_text)
