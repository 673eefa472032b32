"""Expressions of a grammar that was read from Lark. Data only."""

import re
from typing import TypeAlias, Union

from msgspec import Struct

from engine.grammar import code_points


class UnreadGrammar(Exception):
    """A grammar has a part that cannot be rewritten, also not into one that allows more."""


class Characters(Struct, frozen=True):
    """One character of a set."""

    ranges: tuple[code_points.Range, ...]


class Words(Struct, frozen=True):
    """A text."""

    text: str


class ControlToken(Struct, frozen=True):
    """A control token by its id."""

    id: int


class RuleName(Struct, frozen=True):
    """A rule or a terminal of the same grammar."""

    name: str


class InnerGrammar(Struct, frozen=True):
    """A grammar with names of its own."""

    lark: str


class TextWithout(Struct, frozen=True):
    """Any text that contains none of these."""

    excluded: tuple[str, ...]


class OneOf(Struct, frozen=True):
    """Any one of several alternatives."""

    options: tuple["Expression", ...]


class InOrder(Struct, frozen=True):
    """Items that follow each other; none for the empty text."""

    items: tuple["Expression", ...]


class Repeated(Struct, frozen=True):
    """An item from `least` to `most` times."""

    item: "Expression"
    least: int
    most: int | None
    """None for no limit."""


Expression: TypeAlias = Union[  # noqa: UP007  # the classes above name it before it is there
    Characters, Words, ControlToken, RuleName, InnerGrammar, TextWithout, OneOf, InOrder, Repeated
]

ANY_TEXT = Repeated(Characters(((0, code_points.LAST),)), 0, None)


def in_order(items: list[Expression]) -> Expression:
    """Return the items one after another, with neighbouring texts as one."""
    found: list[Expression] = []
    for item in items:
        for each in item.items if isinstance(item, InOrder) else (item,):
            if isinstance(each, Words) and found and isinstance(last := found[-1], Words):
                found[-1] = Words(last.text + each.text)
            else:
                found.append(each)
    return found[0] if len(found) == 1 else InOrder(tuple(found))


_TIMES = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def repeated(item: Expression, times: re.Match[str]) -> Expression:
    """Return the item with a repetition, given by its groups: `times`, which is all of it, `least`, `open`, `most`."""
    if times["times"] in _TIMES:
        return Repeated(item, *_TIMES[times["times"]])
    least = int(times["least"] or 0)
    return Repeated(item, least, (int(times["most"]) if times["most"] else None) if times["open"] else least)


def one_of(options: list[Expression]) -> Expression:
    """Return an expression of any one of the options."""
    return options[0] if len(options) == 1 else OneOf(tuple(options))
