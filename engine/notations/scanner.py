"""A text that is read while it comes: readers are written as if all of it were there, and wait where it ends. Pure."""

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias, TypeVar

from msgspec import Struct

from engine.notations.parsed import ParsedDelta

T = TypeVar("T")
ReaderSteps: TypeAlias = Generator[None, None, T]
"""Waits for more text with each `yield`, and has read a T in the end."""
Emit: TypeAlias = Callable[[str], None]


class Scanner:
    """What has come of the text and is not read yet, and what was found in it."""

    def __init__(self, spelled: Mapping[str, str]) -> None:
        """`spelled`: what stands in the text for names of control tokens."""
        self._text = ""
        self._at = 0
        self._marks = 0
        self._spelled = spelled
        self._names = re.compile("|".join(map(re.escape, sorted(spelled, key=len, reverse=True))) or r"(?!)")
        self._searches: dict[tuple[str, ...], _Search] = {}
        self.ended = False
        self.cut = False
        """True if the text ended where it would have gone on: nothing may be completed."""
        """Whether no more text comes."""
        self.naming = False
        """Whether a call's name is being read."""
        self.found: list[ParsedDelta] = []

    def feed(self, text: str) -> None:
        if self._marks:  # somebody may want it again from there
            self._text += text
        else:
            self._text, self._at = self._text[self._at :] + text, 0

    def peek(self) -> ReaderSteps[str]:
        """The next character, which stays; empty at the end."""
        while self._at >= len(self._text):
            if self.ended:
                return ""
            yield
        return self._text[self._at]

    def take(self) -> ReaderSteps[str]:
        """The next character; empty at the end."""
        char = yield from self.peek()
        self._at += len(char)
        return char

    def space(self) -> ReaderSteps[None]:
        """White space is passed over."""
        yield from self.pass_over("")

    def pass_over(self, chars: str) -> ReaderSteps[None]:
        """As many of these as come, and white space."""
        while (char := (yield from self.peek())) and (char in chars or char.isspace()):
            self._at += 1

    def passes(self, literal: str) -> ReaderSteps[bool]:
        """Whether that comes next; if so, it is passed over."""
        literal = self._spell(literal)
        while not self.ended and len(self._text) - self._at < len(literal):
            if not literal.startswith(self._text[self._at :]):
                return False
            yield
        if self._text.startswith(literal, self._at):
            self._at += len(literal)
            return True
        return False

    def until(self, markers: Sequence[str], tell: Emit, prose: bool = False) -> ReaderSteps[str]:
        """Tells the text before the first of the markers as soon as it can't be one of them. The marker, which is
        passed over; empty at the end. At a cut, the beginning of a marker is told in `prose` only.
        """
        search = self._search(tuple(markers))
        while True:
            match = search.whole.search(self._text, self._at)
            certain_end = self.ended and (prose or not self.cut)
            maybe = None if certain_end else search.partial.search(self._text, self._at)
            if match and (maybe is None or match.start() < maybe.start()):
                tell(cleaned(self._text[self._at : match.start()]))
                self._at = match.end()
                return search.markers[match[0]]
            certain = maybe.start() if maybe else len(self._text)
            tell(cleaned(self._text[self._at : certain]))
            self._at = certain
            if self.ended:
                self._at = len(self._text)
                return ""
            yield

    def collect(self, markers: Sequence[str]) -> ReaderSteps[tuple[str, str]]:
        """The text before the first of the markers, and which it was."""
        texts: list[str] = []
        marker = yield from self.until(markers, texts.append)
        return "".join(texts), marker

    def back(self, marker: str) -> None:
        """It was just passed over, and is to be read again."""
        self._at -= len(self._spell(marker))

    def mark(self) -> int:
        """A place for `since` or `rewind`, one of which must be called once for each."""
        self._marks += 1
        return self._at

    def since(self, mark: int) -> str:
        """What was read since then."""
        self._marks -= 1
        return cleaned(self._text[mark : self._at])

    def rewind(self, mark: int) -> None:
        """What was read since then is to be read again."""
        self._marks -= 1
        self._at = mark

    def is_control(self, marker: str) -> bool:
        """True if a control token is part of it."""
        return self._spell(marker) != marker

    def _spell(self, marker: str) -> str:
        return self._names.sub(lambda name: self._spelled[name[0]], marker)

    def _search(self, markers: tuple[str, ...]) -> "_Search":
        if markers not in self._searches:
            spelled = {self._spell(marker): marker for marker in markers if marker}
            self._searches[markers] = _Search(spelled, *_patterns(tuple(spelled)))
        return self._searches[markers]


class _Search(Struct, frozen=True):
    markers: dict[str, str]
    """As they stand in the text -> as they are called."""
    whole: re.Pattern[str]
    """Matches one of them, the longest first."""
    partial: re.Pattern[str]
    """Matches where the text ends within one of them."""


def cleaned(text: str) -> str:
    """Without control tokens that mean nothing where they stand."""
    return _MARKS.sub("", text)


def marks(names: Iterable[str]) -> dict[str, str]:
    """A character for each control token, which no text has: half of one, in UTF-16."""
    return {name: chr(code) for name, code in zip(names, range(0xD800, 0xE000), strict=False)}


_MARKS = re.compile("[\ud800-\udfff]")


@lru_cache(maxsize=256)
def _patterns(markers: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    ordered = sorted(markers, key=len, reverse=True)
    whole = "|".join(map(re.escape, ordered)) or r"(?!)"
    partial = "|".join(map(_beginnings, ordered)) or r"(?!)"
    return re.compile(whole), re.compile(rf"(?:{partial})\Z")


def _beginnings(marker: str) -> str:
    """Any beginning of it that is not the whole."""
    nested = ""
    for char in reversed(marker[1:-1]):
        nested = f"(?:{re.escape(char)}{nested})?"
    return re.escape(marker[0]) + nested if len(marker) > 1 else r"(?!)"
