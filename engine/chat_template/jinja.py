"""Functions of Jinja2, as transformers configures it, that minijinja lacks or defines differently. Pure.

A template is untrusted: no function here reads an attribute of a Python object by a name that the template chooses,
and none builds a text much longer than its arguments.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

MAX_WIDTH = 1000
"""Characters up to which `ljust` and similar methods pad a text."""

HELPER_ERRORS = (AttributeError, TypeError, ValueError, LookupError, OverflowError, RecursionError)
"""Exceptions of the functions below, and of methods of mappings and lists, when a template passes them wrong values."""


def tojson(
    value: Any,  # a template's value: anything JSON has
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Render JSON as transformers does: letters and angle brackets unescaped, unlike Jinja's own filter for HTML."""
    pair = None if separators is None else (separators[0], separators[1])
    if (isinstance(indent, int) and indent > MAX_WIDTH) or (isinstance(indent, str) and len(indent) > MAX_WIDTH):
        raise ValueError(f"tojson indents by at most {MAX_WIDTH} characters")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys, default=_plain
    )


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Iterable) else str(value)


def sort(
    value: Iterable[Any], reverse: bool = False, case_sensitive: bool = False, attribute: str | int | None = None
) -> list[Any]:
    """Sort by attributes, without regard to case unless `case_sensitive`."""
    return sorted(value, key=_key(case_sensitive, attribute), reverse=bool(reverse))


def dictsort(
    value: Mapping[Any, Any], case_sensitive: bool = False, by: str = "key", reverse: bool = False
) -> list[tuple[Any, Any]]:
    """Return the items of a mapping, sorted by key or by value."""
    if by not in ("key", "value"):
        raise ValueError('dictsort takes "key" or "value" for `by`')
    return sorted(value.items(), key=_key(case_sensitive, int(by == "value")), reverse=bool(reverse))


def unique(value: Iterable[Any], case_sensitive: bool = False, attribute: str | int | None = None) -> list[Any]:
    """Return the items whose attributes no earlier item has."""
    key = _key(case_sensitive, attribute)
    found: dict[Any, Any] = {}
    for item in value:
        found.setdefault(tuple(key(item)), item)
    return list(found.values())


def new_dict(value: Any = (), /, **others: Any) -> dict[Any, Any]:
    """Return a new mapping."""
    return dict(value, **others)


def is_iterable(value: object) -> bool:
    """Return False for none, so that `tools is iterable and tools|length > 0` is false without tools."""
    return isinstance(value, Iterable)


def is_sequence(value: object) -> bool:
    """Return True for texts and mappings too, as Jinja does: they have a length and items."""
    return isinstance(value, Sequence | Mapping)


FILTERS: dict[str, Callable[..., Any]] = {"tojson": tojson, "sort": sort, "dictsort": dictsort, "unique": unique}
TESTS: dict[str, Callable[..., bool]] = {"iterable": is_iterable, "sequence": is_sequence}


def _key(case_sensitive: bool, attribute: str | int | None) -> Callable[[Any], list[Any]]:
    """Return a sort key: an item's attributes (`a.b,c`), with texts in lower case unless `case_sensitive`."""
    parts = attribute.split(",") if isinstance(attribute, str) else [attribute]

    def key(item: Any) -> list[Any]:
        found = [_attribute(item, part) for part in parts]
        return [each if case_sensitive or not isinstance(each, str) else each.lower() for each in found]

    return key


def _attribute(item: Any, path: str | int | None) -> Any:
    if isinstance(path, str):
        names: list[str | int] = [int(name) if name.isdecimal() else name for name in path.split(".")]
    else:
        names = [] if path is None else [path]
    for name in names:
        if isinstance(item, Mapping):
            item = item.get(name)
        elif isinstance(item, Sequence) and isinstance(name, int):
            item = item[name]
        else:
            return None
    return item


# Methods of Python values that minijinja lacks.
_TEXT = (
    "casefold center count index isdecimal isidentifier isprintable ljust partition removeprefix removesuffix rindex"
)
METHODS: dict[type, tuple[str, ...]] = {
    str: (*_TEXT.split(), "rindex", "rjust", "rpartition", "rsplit", "split", "swapcase", "zfill"),
    list: ("copy", "count", "index"),
    tuple: ("count", "index"),
    dict: ("copy",),
}
PADDING = ("center", "ljust", "rjust", "zfill")
METHOD = "_method"
"""Global function of the environment that `with_methods` writes calls to."""


def method(value: Any, name: str, *arguments: Any, **named: Any) -> Any:
    """Call a method as Python does. Raises one of HELPER_ERRORS."""
    kind = next((kind for kind in METHODS if isinstance(value, kind)), None)
    if kind is None or name not in METHODS[kind]:
        raise TypeError(f"{type(value).__name__} has no method named {name}")
    if name in PADDING and arguments and arguments[0] > MAX_WIDTH:
        raise ValueError(f"{name} takes at most {MAX_WIDTH} characters")
    return getattr(kind, name)(value, *arguments, **named)


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
