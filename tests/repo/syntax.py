"""Statements and comments of Python sources, several times faster than by `ast.walk` and `tokenize`."""

import ast
import re
from collections.abc import Iterator

_BODIES = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields with statements, or with nodes that have statements."""
_STRING_OR_COMMENT = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'
    r"|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
    r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'"
    r"|(#[^\n]*)",
    re.DOTALL,
)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements inside a node, at any depth."""
    for field in _BODIES:
        found = getattr(node, field, None)
        for each in found if isinstance(found, list) else ():
            yield each
            yield from statements(each)


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments with their lines."""
    line, at = 1, 0
    for match in _STRING_OR_COMMENT.finditer(source):
        if (comment := match[1]) is not None:
            line += source.count("\n", at, match.start())
            at = match.start()
            yield line, comment
