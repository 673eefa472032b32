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
