"""Sets of characters, as classes of regular expressions describe them. Pure.

Regex languages differ beyond ASCII in `\\w`, `\\d`, `\\p{...}` and letter case. So a set has two forms: at least its
characters, and at most its characters. Complements exchange them, so that a class within an inverted one errs on the
same side.
"""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

from engine.grammar import code_points
from engine.grammar.ebnf.expressions import UnreadGrammar

BEYOND_ASCII: code_points.Range = (0x80, code_points.LAST)
_LETTERS: tuple[code_points.Range, ...] = ((65, 90), (97, 122))
_DIGITS: tuple[code_points.Range, ...] = ((48, 57),)
_SPACES: tuple[code_points.Range, ...] = (
    *((9, 13), (32, 32), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
    *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),
)
_FOLDED_FROM_BEYOND = (*map(ord, "kKsS"),)
"""Letters of which a character beyond ASCII is another case: the Kelvin sign and the long s."""


class CharacterSet(Struct, frozen=True):
    """A set of characters, known by one that contains it and one that it contains."""

    wide: tuple[code_points.Range, ...]
    """At least its characters."""
    narrow: tuple[code_points.Range, ...]
    """At most its characters."""

    def __or__(self, other: "CharacterSet") -> "CharacterSet":
        return CharacterSet(code_points.merged(self.wide + other.wide), code_points.merged(self.narrow + other.narrow))

    def __and__(self, other: "CharacterSet") -> "CharacterSet":
        return ~(~self | ~other)

    def __invert__(self) -> "CharacterSet":
        return CharacterSet(code_points.complement(self.narrow), code_points.complement(self.wide))

    def any_case(self) -> "CharacterSet":
        """Return the set with its characters in any case."""
        wide = self.wide
        if any(last > 127 for _, last in wide):
            wide += (*_LETTERS, BEYOND_ASCII)
        for first, last in code_points.common(self.wide, _LETTERS):
            swapped = sorted((ord(chr(first).swapcase()), ord(chr(last).swapcase())))
            wide += ((swapped[0], swapped[1]),)
            if any(first <= letter <= last for letter in _FOLDED_FROM_BEYOND):
                wide += (BEYOND_ASCII,)
        return CharacterSet(code_points.merged(wide), self.narrow)


def exactly(*ranges: code_points.Range) -> CharacterSet:
    """Return the set of all characters in the ranges, and of no others."""
    in_order = code_points.merged(ranges)
    return CharacterSet(in_order, in_order)


def _at_least(ascii_ranges: Iterable[code_points.Range]) -> CharacterSet:
    """Return a set of these and of some characters beyond ASCII."""
    ranges = code_points.merged(ascii_ranges)
    return CharacterSet(code_points.merged((*ranges, BEYOND_ASCII)), ranges)


EVERYTHING = exactly((0, code_points.LAST))
NOTHING = exactly()
NO_LINE_BREAK = ~exactly((10, 10))
_WORD = _at_least((*_DIGITS, *_LETTERS, (95, 95)))
SHORTHANDS = {"d": _at_least(_DIGITS), "w": _WORD, "s": exactly(*_SPACES)}
"""Sets by the letter after the backslash; the capital letter is the complement."""
_PUNCTUATION = ((33, 47), (58, 64), (91, 96), (123, 126))
_ASCII_CLASSES = {
    "alnum": (*_DIGITS, *_LETTERS),
    "alpha": _LETTERS,
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": _DIGITS,
    "graph": ((33, 126),),
    "lower": _LETTERS[1:],
    "print": ((32, 126),),
    "punct": _PUNCTUATION,
    "space": ((9, 13), (32, 32)),
    "upper": _LETTERS[:1],
    "word": (*_DIGITS, *_LETTERS, (95, 95)),
    "xdigit": (*_DIGITS, (65, 70), (97, 102)),
}


def ascii_class(name: str) -> CharacterSet:
    """Return the set of `[:name:]`. Raises UnreadGrammar."""
    ranges = _ASCII_CLASSES.get(name.removeprefix("^"))
    if ranges is None:
        raise UnreadGrammar(name)
    return ~exactly(*ranges) if name.startswith("^") else exactly(*ranges)


@lru_cache(maxsize=64)
def unicode_class(name: str) -> CharacterSet:
    r"""Return the set of `\p{name}`: ASCII by its general category, and all beyond. A script may have any character."""
    if name.startswith("^"):
        return ~unicode_class(name[1:])
    if len(name) > 2:
        return CharacterSet(EVERYTHING.wide, NOTHING.narrow)
    ranges = code_points.merged((n, n) for n in range(128) if unicodedata.category(chr(n)).startswith(name))
    return _at_least(ranges)
