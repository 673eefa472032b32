"""Scan a text that arrives in parts. Readers are generators that wait with `yield` for more text. Pure."""

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias, TypeVar

from msgspec import Struct

from engine.notations.parsed import ParsedDelta

T = TypeVar("T")
ReaderSteps: TypeAlias = Generator[None, None, T]
"""A reader: each `yield` waits for more text, and the return value is the result."""
Emit: TypeAlias = Callable[[str], None]
"""Receives text as soon as it is certain."""


class Scanner:
    """The text that is not read yet, and the deltas that readers found."""

    def __init__(self, control_marks: Mapping[str, str]) -> None:
        """`control_marks` maps names of control tokens to the characters that stand for them in the text."""
        self._text = ""
        self._at = 0
        self._marks = 0
        self._control_marks = control_marks
        self._names = re.compile("|".join(map(re.escape, sorted(control_marks, key=len, reverse=True))) or r"(?!)")
        self._searches: dict[tuple[str, ...], _Search] = {}
        self.ended = False
        """True once the text is complete."""
        self.cut = False
        """True if the text was cut off, so that readers must not complete anything."""
        self.in_name = False
        """True while a call's name is being read."""
        self.output: list[ParsedDelta] = []

    def feed(self, text: str) -> None:
        """Add a further part of the text."""
        if self._marks:  # a reader may rewind to a mark
            self._text += text
        else:
            self._text, self._at = self._text[self._at :] + text, 0

    def prepend(self, words: str) -> None:
        """Put a family's words before the text that is not read yet."""
        self._text = self._text[: self._at] + self.with_marks(words) + self._text[self._at :]

    def peek(self) -> ReaderSteps[str]:
        """Return the next character without consuming it; empty at the end."""
        while self._at >= len(self._text):
            if self.ended:
                return ""
            yield
        return self._text[self._at]

    def take(self) -> ReaderSteps[str]:
        """Consume and return the next character; empty at the end."""
        char = yield from self.peek()
        self._at += len(char)
        return char

    def skip_space(self) -> ReaderSteps[None]:
        """Skip white space."""
        yield from self.skip("")

    def skip(self, chars: str) -> ReaderSteps[None]:
        """Skip any number of these characters and white space."""
        while (char := (yield from self.peek())) and (char in chars or char.isspace()):
            self._at += 1

    def skip_literal(self, literal: str) -> ReaderSteps[bool]:
        """Consume a literal and return True if it comes next; otherwise return False."""
        literal = self.with_marks(literal)
        while not self.ended and len(self._text) - self._at < len(literal):
            if not literal.startswith(self._text[self._at :]):
                return False
            yield
        if self._text.startswith(literal, self._at):
            self._at += len(literal)
            return True
        return False

    def ends_within(self, literal: str) -> bool:
        """True if the text was cut off within this literal, which comes next."""
        rest = self._text[self._at :]
        return self.cut and rest != "" and self.with_marks(literal).startswith(rest)

    def is_cut_before(self, marker: str) -> bool:
        """True if `until` found no marker because the text was cut off."""
        return not marker and self.cut

    def until(self, markers: Sequence[str], emit: Emit, prose: bool = False) -> ReaderSteps[str]:
        """Emit the text before the first marker as soon as it cannot be part of one. Consume and return the marker.

        Return an empty text at the end. If the text was cut off, the start of a marker is emitted in `prose` only.
        """
        search = self._search(tuple(markers))
        while True:
            match = search.whole.search(self._text, self._at)
            certain_end = self.ended and (prose or not self.cut)
            tail = max(self._at, len(self._text) - search.longest_start)
            maybe = None if certain_end else search.partial.search(self._text, tail)
            if match and (maybe is None or match.start() < maybe.start()):
                emit(cleaned(self._text[self._at : match.start()]))
                self._at = match.end()
                return search.markers[match[0]]
            certain = maybe.start() if maybe else len(self._text)
            emit(cleaned(self._text[self._at : certain]))
            self._at = certain
            if self.ended:
                self._at = len(self._text)
                return ""
            yield

    def collect(self, markers: Sequence[str]) -> ReaderSteps[tuple[str, str]]:
        """Return the text before the first marker, and that marker."""
        texts: list[str] = []
        marker = yield from self.until(markers, texts.append)
        return "".join(texts), marker

    def unread(self, marker: str) -> None:
        """Undo the consumption of the last marker."""
        self._at -= len(self.with_marks(marker))

    def mark(self) -> int:
        """Return a place in the text. The caller must pass it once to `text_since` or `rewind`."""
        self._marks += 1
        return self._at

    def text_since(self, mark: int) -> str:
        """Return the text read since a mark."""
        self._marks -= 1
        return cleaned(self._text[mark : self._at])

    def rewind(self, mark: int) -> None:
        """Go back to a mark."""
        self._marks -= 1
        self._at = mark

    def is_control(self, marker: str) -> bool:
        """True if the marker contains a control token."""
        return self.with_marks(marker) != marker

    def with_marks(self, marker: str) -> str:
        """Return a marker with the characters that stand for its control tokens."""
        return self._names.sub(lambda name: self._control_marks[name[0]], marker)

    def _search(self, markers: tuple[str, ...]) -> "_Search":
        if markers not in self._searches:
            by_text = {self.with_marks(marker): marker for marker in markers if marker}
            longest_start = max(map(len, by_text), default=1) - 1
            self._searches[markers] = _Search(by_text, *_patterns(tuple(by_text)), longest_start)
        return self._searches[markers]


class _Search(Struct, frozen=True):
    markers: dict[str, str]
    """Marker as it stands in the text -> marker with names of control tokens."""
    whole: re.Pattern[str]
    """Matches a marker, the longest first."""
    partial: re.Pattern[str]
    """Matches the start of a marker at the end of the text."""
    longest_start: int
    """Length of the longest text that `partial` matches."""


def cleaned(text: str) -> str:
    """Return the text without the marks of control tokens, which mean nothing in a text."""
    return _MARKS.sub("", text)


def marks(names: Iterable[str]) -> dict[str, str]:
    """Return a character for each control token: a surrogate of UTF-16, which no text contains."""
    return {name: chr(code) for name, code in zip(names, range(0xD800, 0xE000), strict=False)}


_MARKS = re.compile("[\ud800-\udfff]")


@lru_cache(maxsize=256)
def _patterns(markers: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    ordered = sorted(markers, key=len, reverse=True)
    whole = "|".join(map(re.escape, ordered)) or r"(?!)"
    partial = "|".join(map(_proper_prefixes, ordered)) or r"(?!)"
    return re.compile(whole), re.compile(rf"(?:{partial})\Z")


def _proper_prefixes(marker: str) -> str:
    """Return a regex for every proper prefix of a marker."""
    nested = ""
    for char in reversed(marker[1:-1]):
        nested = f"(?:{re.escape(char)}{nested})?"
    return re.escape(marker[0]) + nested if len(marker) > 1 else r"(?!)"
