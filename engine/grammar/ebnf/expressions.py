"""Expressions of a grammar that was read from Lark. Data only."""

from typing import TypeAlias, Union

from msgspec import Struct

Range: TypeAlias = tuple[int, int]
"""First and last code point."""

LAST = 0x10FFFF
"""The last code point."""


class UnreadGrammar(Exception):
    """A grammar has a part that cannot be rewritten, also not into one that allows more."""


class Characters(Struct, frozen=True):
    """One character of a set."""

    ranges: tuple[Range, ...]


class Words(Struct, frozen=True):
    """A text."""

    text: str


class ControlToken(Struct, frozen=True):
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
    options: tuple["Expression", ...]


class InOrder(Struct, frozen=True):
    """Items that follow each other; none for the empty text."""

    items: tuple["Expression", ...]


class Repeated(Struct, frozen=True):
    item: "Expression"
    least: int
    most: int | None
    """None for no limit."""


Expression: TypeAlias = Union[  # noqa: UP007  # the classes above name it before it is there
    Characters, Words, ControlToken, RuleName, InnerGrammar, TextWithout, OneOf, InOrder, Repeated
]

ANY_TEXT = Repeated(Characters(((0, LAST),)), 0, None)


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


def one_of(options: list[Expression]) -> Expression:
    return options[0] if len(options) == 1 else OneOf(tuple(options))
