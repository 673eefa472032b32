"""Links, file names and flags in the Markdown pages: all of them exist."""

import re
from pathlib import Path

import pytest

from server.config.groups import SETTINGS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page for name in ("*.md", "bench/**/*.md", "engine/**/*.md", "server/**/*.md", "tests/**/*.md")
    for page in ROOT.glob(name)
)  # fmt: skip
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:\.ci|bench|engine|server|tests)/[\w./-]*\w/?)`")
FLAG = re.compile(r"`(?:responsed \w+ )?(--[a-z-]+)")
FOREIGN = {"--version"}
"""Flags that argparse or another program has."""


def each_page(pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    return [(str(page.relative_to(ROOT)), found) for page in PAGES for found in pattern.findall(page.read_text())]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def flags() -> set[str]:
    """Return the flags of all commands and of the bench's programs."""
    sources = [*ROOT.glob("bench/**/*.py"), *ROOT.glob("server/**/*.py")]
    written = {flag for path in sources for flag in re.findall(r'"(--[a-z-]+)"', path.read_text())}
    return written | {flag for each in SETTINGS for flag in (each.flag, each.former_flag)} | FOREIGN


def leads_somewhere(page: str, link: str) -> bool:
    """True if a link's file and heading exist, or it leads to another site."""
    if link.startswith("https://"):
        return True
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_links_lead_to_a_file_and_heading() -> None:
    links = each_page(LINK)
    assert len(links) > 100
    assert [(page, link) for page, link in links if not leads_somewhere(page, link)] == []


def test_named_files_exist() -> None:
    names = each_page(NAMED)
    assert len(names) > 100
    assert [(page, name) for page, name in names if not (ROOT / name).exists()] == []


def test_flags_of_all_pages_exist() -> None:
    known = flags()
    assert [(page, flag) for page, flag in each_page(FLAG) if flag not in known and page != "CHANGELOG.md"] == []


@pytest.mark.parametrize("package", ["engine", "server"])
def test_page_of_a_package_lists_its_folders(package: str) -> None:
    page = (ROOT / package / "README.md").read_text()
    listed = re.findall(rf"^\| `{package}/(\w+)/` ", page, re.MULTILINE)
    assert sorted(listed) == sorted(path.parent.name for path in (ROOT / package).glob("*/__init__.py"))


def test_page_of_the_api_has_a_heading_for_each_route() -> None:
    page = (ROOT / "server" / "docs" / "api.md").read_text()
    headings = [set(line.replace(",", "").split()) for line in re.findall(r"^## (.*)$", page, re.MULTILINE)]
    table = (ROOT / "server" / "api" / "routes.py").read_text()
    routes = re.findall(r'"(/(?:v1/[^"]*|health|status|openapi[.]json))": \{([^}]*)\}', table)
    assert len(routes) >= 15
    for path, handlers in routes:
        methods = set(re.findall(r'"([A-Z]+)":', handlers)) - {"HEAD"}
        found = set[str]().union(*(words for words in headings if path.replace("name...", "id") in words))
        assert {word for word in found if word.isupper() and word.isalpha()} == methods, path
