"""Comments and docstrings begin with a noun or a verb."""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.repo.syntax import comments, statements

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("engine", "server", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PAGES = [
    *ROOT.glob("*.md"),
    *(page for name in ("bench", "engine", "server", "tests") for page in (ROOT / name).rglob("*.md")),
]
RELATIVE = re.compile(r"(What|Who|Whose|Whom|Of|Those|Where|How|The same|One that|Ones that)\b")
"""A sentence that begins so has a clause where its subject belongs."""
VAGUE = re.compile(r"\b(hold|holds|held|holding|tell|tells|told|telling|keep|keeps|kept|keeping|said|says|wish\w*)\b")
"""Words that stand for constrain, store, render, report and many others."""


@cache
def sentences(path: Path) -> tuple[tuple[int, str], ...]:
    """Return the sentences of docstrings and comments with their lines."""
    return tuple(_sentences(path.read_text()))


def _sentences(source: str) -> Iterator[tuple[int, str]]:
    for each in statements(ast.parse(source)):
        match each:
            case ast.Expr(ast.Constant(str(text))):
                yield from ((each.lineno, sentence) for sentence in _split(text))
    for line, comment in comments(source):
        yield from ((line, sentence) for sentence in _split(comment.lstrip("#: ")))


def page_sentences(page: Path) -> Iterator[str]:
    """Yield the sentences of paragraphs, list items and cells; indented lines are code."""
    prose = "\n".join(line for line in page.read_text().splitlines() if not line.startswith("    "))
    for block in re.split(r"\n\s*\n|\n(?=[-*|#]|\d+\. )", prose):
        for cell in block.split("|"):
            yield from _split(" ".join(re.sub(r"^\s*([-*#]+|\d+\.)\s", "", cell).split()))


def _split(text: str) -> list[str]:
    return re.split(r"(?<=[.;!?])\s+", text.strip())


def found(pattern: Callable[[str], object], paths: Sequence[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {sentence[:60]}"
        for path in paths
        for line, sentence in sentences(path)
        if pattern(sentence)
    ]


@pytest.mark.slow
def test_sentences_begin_with_a_noun_or_a_verb() -> None:
    assert found(RELATIVE.match, SOURCES) == []


@pytest.mark.slow
def test_sentences_of_tests_begin_with_a_noun_or_a_verb() -> None:
    assert found(RELATIVE.match, TESTS) == []


@pytest.mark.slow
def test_sentences_have_no_vague_verb() -> None:
    """Names between backticks are other people's words."""
    assert found(lambda sentence: VAGUE.search(re.sub("`[^`]*`", "", sentence)), SOURCES) == []


def test_sentences_of_pages_begin_with_a_noun_or_a_verb() -> None:
    assert [(page.name, each) for page in PAGES for each in page_sentences(page) if RELATIVE.match(each)] == []
