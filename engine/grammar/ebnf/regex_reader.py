"""Read a regex of the Rust syntax into expressions, which allow at least the same texts. Pure."""

import re

from engine.grammar import code_points
from engine.grammar.ebnf.character_sets import (
    EVERYTHING,
    NO_LINE_BREAK,
    NOTHING,
    SHORTHANDS,
    CharacterSet,
    ascii_class,
    exactly,
    unicode_class,
)
from engine.grammar.ebnf.expressions import Characters, Expression, UnreadGrammar, Words, in_order, one_of, repeated

_GROUP = re.compile(r"\((?:\?(?:P?<\w+>|(?P<on>[a-zA-Z]*)(?:-(?P<off>[a-zA-Z]+))?(?P<end>[:)])))?")
_REPETITION = re.compile(r"(?P<times>[*+?]|\{(?P<least>\d*)(?P<open>,?)(?P<most>\d*)\})\??")
_ESCAPE = re.compile(
    r"""\\(?:
    (?:x|u|U)\{(?P<braced>[0-9a-fA-F]+)\} | x(?P<two>[0-9a-fA-F]{2}) | u(?P<four>[0-9a-fA-F]{4})
  | U(?P<eight>[0-9a-fA-F]{8}) | (?P<class>[pP])(?:\{(?P<long>\^?\w+)\}|(?P<short>\w)) | (?P<set>[dDwWsS])
  | (?P<control>[nrtfva]) | (?P<itself>[^A-Za-z0-9])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ASCII_CLASS = re.compile(r"\[:(\^?\w+):\]")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a"}
_IGNORED = "uU"
"""Flags that change nothing: Unicode, and greediness."""


def read_regex(regex: str, flags: str = "") -> Expression:
    """Return the expression of the texts that match as a whole. Raises UnreadGrammar."""
    reader = _RegexReader(regex, frozenset(flags))
    found = reader.alternatives()
    if not reader.ended:
        raise UnreadGrammar(regex)
    return found


def any_case(text: str) -> Expression:
    """Return the expression of a text in any case."""
    return in_order([_characters(exactly((ord(char), ord(char))), frozenset("i")) for char in text])


class _RegexReader:
    def __init__(self, regex: str, flags: frozenset[str]) -> None:
        self._regex = regex
        self._at = 0
        self._flags = self._changed(frozenset(), flags, "")

    @property
    def ended(self) -> bool:
        return self._at == len(self._regex)

    def _next(self, count: int = 1) -> str:
        """Return the next characters; fewer at the end."""
        return self._regex[self._at : self._at + count]

    def alternatives(self) -> Expression:
        options = [self._sequence()]
        while self._skip("|"):
            options.append(self._sequence())
        return one_of(options)

    def _sequence(self) -> Expression:
        items: list[Expression] = []
        while not self.ended and self._next() not in "|)":
            item = self._group() if self._next() == "(" else self._atom()
            while (times := _REPETITION.match(self._regex, self._at)) is not None:
                self._at = times.end()
                item = repeated(item, times)
            items.append(item)
        return in_order(items)

    def _group(self) -> Expression:
        match = _GROUP.match(self._regex, self._at)
        assert match is not None, "a bracket begins the group"
        if self._regex.startswith("(?", self._at) and match.end() == self._at + 1:
            raise UnreadGrammar(self._regex)  # lookaround
        self._at = match.end()
        before, self._flags = self._flags, self._changed(self._flags, match["on"] or "", match["off"] or "")
        if match["end"] == ")":
            return in_order([])  # the flags apply to the rest of the enclosing group
        found = self.alternatives()
        if not self._skip(")"):
            raise UnreadGrammar(self._regex)
        self._flags = before
        return found

    def _changed(self, flags: frozenset[str], on: str | frozenset[str], off: str) -> frozenset[str]:
        if not {*on, *off} <= {"i", "s", *_IGNORED}:
            raise UnreadGrammar(self._regex)
        return (flags | {*on}) - {*off}

    def _atom(self) -> Expression:
        char = self._next()
        if char == "[":
            return _characters(self._class(), self._flags)
        if char == "\\":
            return _characters(self._escape(), self._flags)
        if char in "^$*+?{":
            raise UnreadGrammar(self._regex)
        self._at += 1
        if char == ".":
            return _characters(EVERYTHING if "s" in self._flags else NO_LINE_BREAK, frozenset())
        return _characters(exactly((ord(char), ord(char))), self._flags)

    def _class(self) -> CharacterSet:
        self._at += 1
        inverted = self._skip("^")
        found = self._members(first=True)
        while not self._skip("]"):
            operator, other = self._next(2), None
            self._at += 2
            if operator in ("&&", "--"):
                other = self._members()
            if other is None:
                raise UnreadGrammar(self._regex)
            found = found & (other if operator == "&&" else ~other)
        return ~found if inverted else found

    def _members(self, first: bool = False) -> CharacterSet:
        """Read members up to the end of the class or an operator. `first`: a bracket may stand for itself."""
        found = NOTHING
        while not self.ended and (first or self._next() != "]") and self._next(2) not in ("&&", "--", "~~"):
            found |= self._member()
            first = False
        return found

    def _member(self) -> CharacterSet:
        if named := _ASCII_CLASS.match(self._regex, self._at):
            self._at = named.end()
            return ascii_class(named[1])
        if self._next() == "[":
            return self._class()
        begin = self._one()
        if self._next(2) in ("-]", "--") or self._next() != "-":
            return begin
        self._at += 1
        (low, _), (high, _) = _only(begin), _only(self._one())
        return exactly((low, high))

    def _one(self) -> CharacterSet:
        if self.ended:
            raise UnreadGrammar(self._regex)
        if self._next() == "\\":
            return self._escape()
        self._at += 1
        code = ord(self._regex[self._at - 1])
        return exactly((code, code))

    def _escape(self) -> CharacterSet:
        match = _ESCAPE.match(self._regex, self._at)
        if match is None:
            raise UnreadGrammar(self._regex)
        self._at = match.end()
        if letter := match["set"]:
            found = SHORTHANDS[letter.lower()]
            return ~found if letter.isupper() else found
        if match["class"]:
            found = unicode_class(match["long"] or match["short"])
            return ~found if match["class"] == "P" else found
        code = _escaped_code(match)
        if code > code_points.LAST:
            raise UnreadGrammar(self._regex)
        return exactly((code, code))

    def _skip(self, char: str) -> bool:
        """Skip a character if it is the next one, and return whether it is."""
        found = self._next() == char
        self._at += found
        return found


def _escaped_code(match: re.Match[str]) -> int:
    """Return the code point of an escaped character."""
    digits = match["braced"] or match["two"] or match["four"] or match["eight"]
    return int(digits, 16) if digits else ord(_CONTROLS.get(match["control"], match["itself"]))


def _only(members: CharacterSet) -> tuple[int, int]:
    """Return the only range of a set. Raises UnreadGrammar."""
    if members.wide != members.narrow or len(members.wide) != 1:
        raise UnreadGrammar("a range of sets")
    return members.wide[0]


def _characters(members: CharacterSet, flags: frozenset[str]) -> Expression:
    wide = (members.any_case() if "i" in flags else members).wide
    if not wide:
        raise UnreadGrammar("a class without characters")
    return Words(chr(wide[0][0])) if len(wide) == 1 and wide[0][0] == wide[0][1] else Characters(wide)
