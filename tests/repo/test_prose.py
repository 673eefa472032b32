"""Comments and docstrings begin with a noun or a verb."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [path for folder in ("engine", "server", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
RELATIVE = re.compile(r"(What|Who|Whose|Whom|Of|Those|Where|How|The same)\b")
"""A sentence that begins so has a clause where its subject belongs."""


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        for each in getattr(node, "body", ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ():
            match each:
                case ast.Expr(ast.Constant(str(text))):
                    yield from ((each.lineno, sentence) for sentence in _split(text))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from ((token.start[0], sentence) for sentence in _split(token.string.lstrip("#: ")))


def _split(text: str) -> list[str]:
    return re.split(r"(?<=[.;!?])\s+", text.strip())


def test_sentences_begin_with_a_noun_or_a_verb() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {sentence[:60]}"
        for path in SOURCES
        for line, sentence in sentences(path)
        if RELATIVE.match(sentence)
    ]
    assert found == []
