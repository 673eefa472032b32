"""Bytes of tokens -> text that may be shown: whole characters, and nothing of a stop string."""

from codecs import getincrementaldecoder
from collections.abc import Sequence

_UTF8 = getincrementaldecoder("utf-8")


class Detokenizer:
    """Turns bytes into whole characters; the first bytes of a character wait for its last.

    Bytes that can't be UTF-8 become U+FFFD; a character cut off by the end of the answer is dropped.
    """

    def __init__(self) -> None:
        self._utf8 = _UTF8(errors="replace")
        self.decoded = 0
        """Characters so far."""

    def feed(self, data: bytes) -> str:
        """The text that has become certain with `data`; often empty."""
        text = self._utf8.decode(data)
        self.decoded += len(text)
        return text

    def insert_marker(self, character: str) -> str:
        """The same with a character that stands for a control token; one that was begun before it is lost."""
        self._utf8.reset()
        self.decoded += len(character)
        return character


class StopStrings:
    """Looks for stop strings in a text that comes in parts, and holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Empty ones never match."""
        self._stops = tuple(stop for stop in stops if stop)
        self._pending = ""
        self.matched: str | None = None
        """The stop string that has appeared. It and all after it are no part of the text."""

    @property
    def pending(self) -> int:
        """Characters that are held back."""
        return len(self._pending)

    def feed(self, new: str) -> str:
        """The text that has become certain with `new`."""
        if self.matched is not None:
            return ""
        text, self._pending = self._pending + new, ""
        if not self._stops:
            return text
        if (found := self._first_stop(text)) is not None:
            cut, self.matched = found
            return text[:cut]
        rest = self._possible_stop(text)
        text, self._pending = text[: len(text) - rest], text[len(text) - rest :]
        return text

    def flush(self) -> str:
        """The end of the text: what was held back for a stop string that never came."""
        pending, self._pending = self._pending, ""
        return pending

    def _first_stop(self, text: str) -> tuple[int, str] | None:
        """Where the stop string that is complete first begins: so the cut doesn't depend on how the text arrived."""
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found)[1:] if found else None

    def _possible_stop(self, text: str) -> int:
        """How many last characters could be the beginning of a stop string."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
