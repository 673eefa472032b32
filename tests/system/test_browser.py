"""The driver of the browser finds the faults that tests of pages look for."""

from pathlib import Path

import pytest

from tests.support.browser import browsing

pytestmark = pytest.mark.slow

GOOD = """<!doctype html><meta name=viewport content="width=device-width"><title>Good</title>
<style>p { color: black } @media (prefers-color-scheme: dark) { p { color: white } }</style>
<p>Text</p><input autofocus onkeydown="this.dataset.key = event.key">"""
BAD = """<!doctype html><meta name=viewport content="width=device-width"><title>Bad</title>
<div style="width: 500px">wide</div>
<script>console.error("broken")</script><img src="http://localhost:9/pixel.png"><script>missing()</script>"""


def test_page_without_faults_reports_none_in_any_theme_and_width(tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text(GOOD)
    with browsing(tmp_path) as page:
        page.open((tmp_path / "good.html").as_uri())
        colors = []
        for theme in ("light", "dark"):
            page.theme(theme)
            colors.append(page.evaluate("getComputedStyle(document.querySelector('p')).color"))
        assert colors == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
        for width in (360, 1400):
            page.resize(width)
            assert (page.evaluate("innerWidth"), page.too_wide()) == (width, [])
        page.type("héllo")
        page.press("Enter")
        assert page.wait("document.querySelector('input').value") == "héllo"
        assert page.evaluate("document.querySelector('input').dataset.key") == "Enter"
        page.screenshot(tmp_path / "good.png")
        assert (page.errors, page.foreign_requests()) == ([], [])
    assert (tmp_path / "good.png").read_bytes().startswith(b"\x89PNG")


def test_page_with_faults_reports_each(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD)
    with browsing(tmp_path) as page:
        page.resize(360)
        page.open((tmp_path / "bad.html").as_uri())
        assert page.foreign_requests() == ["http://localhost:9/pixel.png"]
        assert [any(word in error for error in page.errors) for word in ("broken", "missing", "ERR_")] == [True] * 3
        assert any(element.startswith("<div style=") for element in page.too_wide())
