"""Texts that a schema requires or excludes, and the control characters in them that llguidance can't write. Pure."""

import re
import sys
from collections.abc import Iterator

from engine.json_schema.values import JSON

UNWRITABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
"""Characters for which `grammar` has no escape: llguidance would leave them out of a required text."""
MAX_EXCLUDED = 1000
"""Characters of all texts that a text must not equal."""
MAX_EXCLUDED_LENGTH = 100
"""Characters of one of them."""
_ATOM = re.compile(
    r"\[(?P<one>\\[av]|\\x..|\\u....|\\[xu]\{\w+\}|[^\\])\]|\[\^?\]?(?:\\.|[^\\\]])*\]"
    r"|\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})|[xuU]\{(?P<any>[0-9a-fA-F]+)\}|.)|.",
    re.DOTALL,
)
"""Part of a regex: a character, or a class of one or more characters."""


def texts(key: str, value: JSON) -> Iterator[str]:
    """Yield the texts that a value must contain. For a regex, yield each literal character and skip character classes,
    since any member may be chosen."""
    if isinstance(value, str):
        yield from map(_character, _ATOM.finditer(value)) if key.startswith("pattern") else (value,)
    elif isinstance(value, dict | list):
        inner = value if isinstance(value, list) or key == "patternProperties" else value.values()
        for each in inner:
            yield from texts(key, each)


def _character(atom: re.Match[str]) -> str:
    if atom["one"]:
        atom = _ATOM.fullmatch(atom["one"]) or atom
    number = atom["x"] or atom["u"] or atom["U"] or atom["any"]
    if number:
        return chr(min(int(number, 16), sys.maxunicode))
    return {r"\a": "\a", r"\v": "\v"}.get(atom[0], "" if atom[0].startswith("[") else atom[0])


def other_texts(values: list[str]) -> str | None:
    """Return the regex of the texts that equal none of the values; None if it is too large."""
    if sum(map(len, values)) > MAX_EXCLUDED or max(map(len, values)) > MAX_EXCLUDED_LENGTH:
        return None
    return f"^{_other_rests(values)}$"


def _other_rests(values: list[str]) -> str:
    rests: dict[str, list[str]] = {}
    for value in filter(None, values):
        rests.setdefault(value[0], []).append(value[1:])
    found = [f"{_escaped(char)}{_other_rests(rest)}" for char, rest in rests.items()]
    found.append(rf"[^{''.join(map(_escaped, rests))}][\s\S]*" if rests else r"[\s\S]+")
    return f"({'|'.join(found if '' in values else [*found, ''])})"


def _escaped(char: str) -> str:
    return char if char.isalnum() else rf"\x{{{ord(char):x}}}"


def without_lookaheads(pattern: str) -> tuple[str, list[str]] | None:
    """Return a pattern without the look-aheads at its beginning, and patterns that say the same; None if it has others.

    A text must match all of these patterns: `^(?=.*[0-9])[a-z0-9]+$` becomes `^[a-z0-9]+$` and `^(.*[0-9])`.
    """
    rest, found = pattern.removeprefix("^"), []
    while pattern.startswith("^") and rest.startswith(("(?=", "(?!")):
        end = _end_of_group(rest)
        inner = rest[3:end].removeprefix("^")
        ahead = _not_ahead(inner) if rest[2] == "!" else _ahead(inner)
        if ahead is None:
            return None
        found.append(ahead)
        rest = rest[end + 1 :]
    is_union = any(atom[0] == "|" for atom in _ATOM.finditer(rest))
    return (f"^{rest}", found) if found and not is_union else None


def _end_of_group(regex: str) -> int:
    """Return the index of the bracket that closes the first group."""
    depth = 0
    for atom in _ATOM.finditer(regex):
        depth += (atom[0] == "(") - (atom[0] == ")")
        if depth == 0:
            return atom.start()
    return len(regex)


def _ahead(inner: str) -> str | None:
    """Return the pattern of the texts that begin with a regex."""
    if "$" in inner.removesuffix("$") or ("|" in inner and "$" in inner):
        return None
    return f"^({inner.removesuffix('$')}){'$' if inner.endswith('$') else ''}"


def _not_ahead(inner: str) -> str | None:
    """Return the pattern of the texts that do not begin with a regex; None unless it is of three simple kinds."""
    if only := re.fullmatch(r"\[([^\]\\^][^\]\\]*)\]\*\$", inner):
        return f"[^{only[1]}]"
    if anywhere := re.fullmatch(r"\.\*(?:\[([^\]\\^][^\]\\]*)\]|(\w|[@ /:;,]))", inner):
        return f"^[^{anywhere[1] or anywhere[2]}]*$"
    if re.fullmatch(r"[\w@ /:;,-]+", inner):
        starts = [re.escape(inner[:n]) for n in range(len(inner))]
        others = [rf"{start}[^{re.escape(char)}][\s\S]*" for start, char in zip(starts, inner, strict=True)]
        return f"^({'|'.join([*others, *starts])})$"
    return None
