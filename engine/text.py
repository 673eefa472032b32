"""Bytes of tokens -> text that may be shown: whole characters, and nothing of a stop string."""

from codecs import getincrementaldecoder
from collections.abc import Sequence

_UTF8 = getincrementaldecoder("utf-8")


class TextDecoder:
    """Holds back what may yet become a character or a stop string.

    Bytes that can't be UTF-8 become U+FFFD; a character cut off by the end of the answer is dropped.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._utf8 = _UTF8(errors="replace")
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.watching = True
        """Whether stop strings are looked for in what comes next."""
        self.decoded = 0
        """Characters so far, those that are held back among them."""
        self.stopped = False
        """Whether a stop string has appeared. It and all after it are no part of the text."""

    def feed(self, data: bytes) -> str:
        """The text that has become certain with `data`; often empty."""
        return self._certain(self._utf8.decode(data))

    def mark(self, character: str) -> str:
        """The same with a character that stands for a control token; one that was begun before it is lost."""
        self._utf8.reset()
        return self._certain(character)

    def _certain(self, new: str) -> str:
        if self.stopped:
            return ""
        self.decoded += len(new)
        text, self._held = self._held + new, ""
        if not (self._stops and self.watching):
            return text
        if (cut := self._first_stop(text)) is not None:
            self.stopped = True
            return text[:cut]
        keep = self._possible_stop(text)
        text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return text

    def flush(self) -> str:
        """The end of the text: what was held back for a stop string that never came."""
        held, self._held = self._held, ""
        return held

    def _first_stop(self, text: str) -> int | None:
        """Where the stop string that is complete first begins: so the cut doesn't depend on how the text arrived."""
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _possible_stop(self, text: str) -> int:
        """How many last characters could be the beginning of a stop string."""
        longest = min(len(text), max(map(len, self._stops)) - 1)
        return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
