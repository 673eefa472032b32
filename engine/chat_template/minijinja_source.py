"""Rewrite templates in Jinja into minijinja's language, which lacks some tags and methods. Pure."""

import re

from engine.chat_template.jinja import METHOD, METHODS

_NAMES = "|".join(sorted({name for names in METHODS.values() for name in names} - {"split", "count"}))
# minijinja has `split` without keyword arguments, and `count` for texts only.
_LACKING = re.compile(rf"\.\s*({_NAMES}|count|split(?=\s*\([^()]*\b(?:sep|maxsplit)\s*=))\s*\(")
_TAG = re.compile(r"\{#.*?#\}|\{%[-+]?\s*raw\s*[-+]?%\}.*?\{%[-+]?\s*endraw\s*[-+]?%\}|\{\{|\{%", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<name>\w+)|(?P<end>[-+]?(?:\}\}|%\}))|(?P<sign>.)""",
    re.DOTALL,
)
_WORDS = frozenset(["and", "or", "not", "in", "is", "if", "elif", "else", "for", "set", "do", "filter", "call"])


_GENERATION = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")
"""Hugging Face's tag around the assistant's text, for training. It renders its content unchanged."""
_APPEND = re.compile(r"\{%(-?)\s*(?:set\s+\w+\s*=|do)\s*(\w+\.\w+)\.append\(((?:[^%}]|%(?!\}))*)\)\s*(-?)%\}")
_POP = re.compile(r"\{%(-?)\s*set\s+(\w+)\s*=\s*(\w+\.\w+)\.pop\(0\)\s*(-?)%\}")
"""Changes of a list in a namespace, whose values cannot change in minijinja (Kimi K2)."""


def readable(source: str) -> str:
    """Return a template in minijinja's language."""
    source = _GENERATION.sub(lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}", source)
    source = _APPEND.sub(r"{%\1 set \2 = \2 + [\3] \4%}", source)
    source = _POP.sub(r"{%\1 set \2 = \3|first -%}{% set \3 = \3[1:] \4%}", source)
    return with_methods(source)


def with_methods(source: str) -> str:
    """Write calls of `METHODS` as calls of `METHOD`: `a.b.rsplit("x")` as `_method(a.b, "rsplit", "x")`."""
    if not _LACKING.search(source):
        return source
    written: list[str] = []
    place = 0
    while tag := _TAG.search(source, place):
        written.append(source[place : tag.end()])
        place = tag.end()
        if tag[0] in ("{{", "{%"):
            expression, place = _expression(source, place)
            written.append(expression)
    return "".join(written) + source[place:]


def _expression(source: str, place: int) -> tuple[str, int]:
    """Return a tag's rewritten content and the position after it."""
    expression = _Expression()
    while token := _TOKEN.match(source, place):
        if token["end"] and not expression.in_brackets:
            break
        if token[0] == "." and (call := _LACKING.match(source, place)):
            expression.begin_call(call[1])
            place = call.end()
        else:
            expression.add(token)
            place = token.end()
    return expression.text, place


class _Expression:
    """A tag's rewritten content."""

    def __init__(self) -> None:
        self._written: list[str] = []
        self._starts = [0]
        """Index in `_written` of the operand that is being read, in each open bracket."""
        self._before = ""
        """Last token that is not a space."""

    @property
    def text(self) -> str:
        return "".join(self._written)

    @property
    def in_brackets(self) -> bool:
        return len(self._starts) > 1

    def begin_call(self, name: str) -> None:
        """Write the call of a method of the last operand, up to its arguments."""
        self._written.insert(self._starts[-1], f"{METHOD}(")
        self._written.append(f', "{name}", ')
        self._starts.append(len(self._written))
        self._before = "("

    def add(self, token: re.Match[str]) -> None:
        text = token[0]
        if not token["space"]:
            if _begins_operand(token, self._before):
                self._starts[-1] = len(self._written)
            self._before = text
        self._written.append(text)
        if text in ("(", "[", "{"):
            self._starts.append(len(self._written))
        elif text in (")", "]", "}") and self.in_brackets:
            self._starts.pop()


def _begins_operand(token: re.Match[str], before: str) -> bool:
    """Return False for `.name`, `|name`, and for brackets that call or index the expression before them."""
    if token["text"] or token["name"]:
        return before not in (".", "|")
    follows_operand = before in (")", "]", "}") or before[-1:] in ("'", '"') or before.isidentifier()
    return token[0] in ("(", "[", "{") and not (follows_operand and before not in _WORDS)
