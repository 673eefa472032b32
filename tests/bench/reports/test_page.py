"""The page in a real browser: its marks, its widths, its themes, and no request."""

from pathlib import Path
from typing import Any

import pytest
from record import Record
from reports.page import page, warnings

from tests.bench.reports.sample import TOKENS, records, result, swept
from tests.support.browser import BrowserPage, browsing

ANSWERED = 18
"""Answered requests of each of two servers in three rounds of six."""
_OVERLAPS = """
[...document.querySelectorAll("svg")].flatMap(svg => {
    const texts = [...svg.querySelectorAll("text")].filter(text => text.checkVisibility())
        .map(text => [text.textContent, text.getBoundingClientRect()])
    return texts.flatMap(([one, a], index) => texts.slice(index + 1)
        .filter(([, b]) => a.left + 1 < b.right && b.left + 1 < a.right && a.top + 4 < b.bottom && b.top + 4 < a.bottom)
        .map(([other]) => `${one} / ${other}`))
})
"""


_BROKEN = """
[...document.querySelectorAll("table:not(.facts) td:not(:first-child):not(.formula)")].filter(cell => {
    const range = document.createRange()
    range.selectNodeContents(cell)
    return new Set([...range.getClientRects()].map(each => Math.round(each.top))).size > 1
}).map(cell => cell.textContent)
"""
"""Numbers that do not stand on one line."""


def count(shown: BrowserPage, selector: str) -> int:
    return int(shown.evaluate(f"document.querySelectorAll({selector!r}).length"))


def faults(shown: BrowserPage) -> list[Any]:
    """Return everything that a reader would complain about: on a phone and a desk in both themes, and on paper."""
    found: list[Any] = []
    for theme in ("light", "dark"):
        shown.theme(theme)
        for width in (360, 768, 1400):
            shown.resize(width)
            found += shown.too_wide() + shown.evaluate(_OVERLAPS) + shown.evaluate(_BROKEN)
    shown.on_paper(718)  # A4 with Chromium's margins
    found += shown.too_wide() + shown.evaluate(_OVERLAPS) + shown.evaluate(_BROKEN)
    return found + shown.errors + shown.foreign_requests()


RUN = records(traced=True), 2
ONE = records(targets=1, rounds=1), 1
LEVELS = records(groups=("1 at a time", "2 at a time", "4 at a time")), 2

# found in the narrow drawing of a figure, of which there is a wide one, too
MARKS = [
    (
        RUN,
        {
            "#ttft-over-time .narrow circle.a": ANSWERED,
            "#ttft-over-time .narrow circle.b": ANSWERED,
            "#ttft-over-time .wide circle": 2 * ANSWERED,
            "#ttft-over-time .narrow .failed": 2,
            "#e2e-over-time .narrow circle": 2 * ANSWERED,
            "#itl-distribution path.line": 2,
            "#itl-distribution circle": 6,
            "#token-budget .narrow svg:first-child rect": 2 * 8,
            "#first-token-budget .narrow svg:first-child rect": 2 * 10,
            "#ttft-against-rate": 0,
            "#sweep-share": 0,
        },
    ),
    (
        ONE,
        {
            "#ttft-over-time .narrow circle.a": 6,
            "#itl-distribution path.line": 1,
            "#token-budget": 0,
            ".cards b": 5,
        },
    ),
    (
        LEVELS,
        {
            "#ttft-against-rate circle.a": 3,
            "#ttft-against-rate circle.b": 3,
            "#ttft-against-rate path.whisker": 6,
            "#itl-histogram-2": 1,
            "#itl-distribution-2 path.line": 2,
        },
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("run", "expected"), MARKS)
def test_page_of_a_run_has_all_marks_and_no_faults(
    tmp_path: Path, run: tuple[list[Record], int], expected: dict[str, int]
) -> None:
    found, targets = run
    (tmp_path / "report.html").write_text(page(result(found, targets), found))
    with browsing(tmp_path) as shown:
        shown.open((tmp_path / "report.html").as_uri())
        assert {selector: count(shown, selector) for selector in expected} == expected
        assert faults(shown) == []


@pytest.mark.slow
def test_page_of_a_sweep_shows_the_knee_and_the_objectives(tmp_path: Path) -> None:
    whole, found = swept()
    (tmp_path / "report.html").write_text(page(whole, found))
    with browsing(tmp_path) as shown:
        shown.open((tmp_path / "report.html").as_uri())
        for figure, limit in (("share", "wanted 90%"), ("ttft", "objective 2,000 ms"), ("itl", "objective 100 ms")):
            assert count(shown, f"#sweep-{figure} circle.dot.a") == 3
            assert count(shown, f"#sweep-{figure} circle.dot.b") == 3
            texts = shown.evaluate(f"[...document.querySelectorAll('#sweep-{figure} .halo')].map(e => e.textContent)")
            assert texts == [limit, "knee 4"]
        knees = shown.evaluate("[...document.querySelectorAll('#sweep-share li span')].map(e => e.textContent)")
        assert knees == ["knee: 4 at a time", "no level meets them"]
        assert faults(shown) == []


@pytest.mark.slow
def test_page_with_long_names_has_no_faults(tmp_path: Path) -> None:
    found = records(groups=("calm", "during " + "a-group-with-a-very-long-name-" * 3), traced=True)
    whole = result(found)
    for number, target in enumerate(whole["targets"]):
        target["url"] = f"https://a-very-long-host-name-{number}.inference.department.example.com:8443/a/prefix"
        target["model"] = "/srv/models/" + "A-Very-Long-Name-Of-A-Model-" * 4 + "Q4_K_M-00001-of-00009.gguf"
    whole["settings"]["serve"] = "responsed serve --flag value " * 20
    (tmp_path / "report.html").write_text(page(whole, found))
    with browsing(tmp_path) as shown:
        shown.open((tmp_path / "report.html").as_uri())
        assert faults(shown) == []
        labels = shown.evaluate(
            "[...document.querySelectorAll('#token-budget .narrow .strong')].map(e => e.textContent)"
        )
    assert labels[0].startswith("a-very-")
    assert labels[0].endswith(": 7.14 ms")
    assert "…" in labels[0]


@pytest.mark.slow
def test_ratios_of_rates_have_a_table_of_their_own() -> None:
    found = records(rounds=4)
    text = page(result(found), found)
    assert "<tr><th>latency</th><th>mean</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th></tr>" in text
    assert "<tr><th>rate</th><th>ratio</th></tr><tr><td>requests/s</td><td>1.000 (" in text


@pytest.mark.slow
def test_histogram_counts_every_gap_that_it_draws(tmp_path: Path) -> None:
    found = records(targets=1)
    (tmp_path / "report.html").write_text(page(result(found, 1), found))
    with browsing(tmp_path) as shown:
        shown.open((tmp_path / "report.html").as_uri())
        shares = shown.evaluate(
            "[...document.querySelectorAll('#itl-histogram rect')].map(e => parseFloat(e.textContent.split(': ')[1]))"
        )
    assert len(shares) > 10
    assert sum(shares) == pytest.approx(100, abs=3)  # each is rounded, and the rarest gaps are only counted
    gaps = ANSWERED * (TOKENS - 1)
    assert f"n\N{NO-BREAK SPACE}{gaps}" in page(result(found, 1), found)


def test_page_is_one_file_without_script_and_escapes_names() -> None:
    found = records()
    text = page(result(found), found)
    assert "<script" not in text
    assert "tiny<b>" not in text
    assert "tiny&lt;b&gt;" in text
    assert not any(mark in text for mark in ("src=", "href=", "@import", "url("))


def test_page_without_any_answer_shows_the_errors() -> None:
    found = [each for each in records(targets=1) if each.error]
    text = page(result(found, 1), found)
    assert "1 of 1 request failed (http 503: 1). The first error: HTTP 503: busy" in text
    assert "There is nothing to plot: no request was answered." in text
    assert "<svg" not in text


@pytest.mark.parametrize(
    ("models", "title"),
    [
        (["m", "m"], "m on 127.0.0.1:8790 and 127.0.0.1:8791"),
        (["/models/m.gguf", "m"], "m.gguf on 127.0.0.1:8790 and m on 127.0.0.1:8791"),
    ],
)
def test_title_names_models_and_servers(models: list[str], title: str) -> None:
    found = records(rounds=1)
    whole = result(found, 2)
    for target, model in zip(whole["targets"], models, strict=True):
        target["model"] = model
    assert f"<h1>{title}</h1>" in page(whole, found)


def test_page_ends_with_the_distance_to_the_limits() -> None:
    found = records(targets=1)
    whole = result(found, 1)
    limits = {"group": "all", "tokens_per_s": 80.0, "of_bandwidth": 0.5, "of_bare_loop": {"llamacpp": 0.96}}
    whole["targets"][0]["limits"] = [limits]
    line = "a stream has 80 tokens/s: 50% of what the memory bandwidth allows, 96% of the bare loop of llamacpp."
    assert f"<li>127.0.0.1:8790 [all] {line}</li>" in page(whole, found)


def test_warnings_are_sentences_about_the_run() -> None:
    whole = result(records(targets=1), 1)
    whole["environment"]["load"]["busy"] = ["before the run, other programs used 44% of all cores"]
    whole["settings"]["deviations"] = ["temperature: 0"]
    whole["targets"][0]["warnings"] = ["1 of 18 answers ended before the maximum of tokens"]
    assert warnings(whole) == [
        "The machine is busy: before the run, other programs used 44% of all cores.",
        "127.0.0.1:8790, all: 1 of 19 requests failed (http 503: 1). The first error: HTTP 503: busy",
        "127.0.0.1:8790: 1 of 18 answers ended before the maximum of tokens.",
        "Requests differ from a client's default ones: temperature: 0.",
    ]
