"""Token bytes -> text that can be emitted: whole characters without any part of a stop string."""

from codecs import getincrementaldecoder
from collections.abc import Sequence

_UTF8 = getincrementaldecoder("utf-8")


class Detokenizer:
    """Turns bytes into whole characters; an incomplete character waits for its last byte.

    Invalid UTF-8 becomes U+FFFD. A character that the end of the answer cuts off is dropped.
    """

    def __init__(self) -> None:
        self._utf8 = _UTF8(errors="replace")
        self.decoded = 0
        """Number of characters so far."""

    def feed(self, data: bytes) -> str:
        """Return the characters that `data` completes; often none."""
        text = self._utf8.decode(data)
        self.decoded += len(text)
        return text

    def insert_marker(self, character: str) -> str:
        """Insert a character that represents a control token. An incomplete character before it is dropped."""
        self._utf8.reset()
        self.decoded += len(character)
        return character


class StopStrings:
    """Finds stop strings in a text that arrives in parts, and delays text that may begin one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Empty stop strings never match."""
        self._stops = tuple(stop for stop in stops if stop)
        self._pending = ""
        self.matched: str | None = None
        """The stop string that was found. It and everything after it are cut off."""

    @property
    def pending(self) -> int:
        """Number of delayed characters."""
        return len(self._pending)

    def feed(self, new: str) -> str:
        """Return the text that no stop string can contain any more."""
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
        """Return the delayed text at the end of the answer."""
        pending, self._pending = self._pending, ""
        return pending

    def _first_stop(self, text: str) -> tuple[int, str] | None:
        """Return place and text of the stop string that is complete first, so that the cut does not depend on how the
        text was split."""
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found)[1:] if found else None

    def _possible_stop(self, text: str) -> int:
        """Return the number of last characters that may begin a stop string."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
