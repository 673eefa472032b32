"""Incremental reader of one JSON object: the members that are certain so far. Pure."""

import re
from typing import TypeVar

import msgspec

T = TypeVar("T")
_STRUCTURE = re.compile(r'["{}\[\]]')
_STRING = re.compile(r'(?:[^"\\]+|\\(?:[^u]|u[0-9a-fA-F]{4}))*', re.DOTALL)
"""Rest of a string that is certain: it does not end inside an escape sequence."""
_CLOSING = {"{": "}", "[": "]"}


class PartialObject:
    """Text of a JSON object that arrives in parts. Each part is scanned once."""

    def __init__(self) -> None:
        self._text = ""
        self._place = 0
        """Place up to which the text is scanned."""
        self._closers: list[str] = []
        """Brackets that are missing at that place, the outermost first."""
        self._within = False
        """True within a string."""

    def feed(self, text: str) -> None:
        self._text += text
        while self._place < len(self._text):
            if not (self._string() if self._within else self._brackets()):
                return

    def _string(self) -> bool:
        """Scan a string; return False if its end has not arrived."""
        certain = _STRING.match(self._text, self._place)
        assert certain is not None, "the pattern matches the empty text"
        self._place = certain.end()
        if not self._text.startswith('"', self._place):
            return False
        self._place += 1
        self._within = False
        return True

    def _brackets(self) -> bool:
        """Scan up to the next string; return False if there is none."""
        found = _STRUCTURE.search(self._text, self._place)
        if found is None:
            self._place = len(self._text)
            return False
        self._place = found.end()
        match found[0]:
            case '"':
                self._within = True
            case "{" | "[":
                self._closers.append(_CLOSING[found[0]])
            case _ if self._closers:
                self._closers.pop()
        return True

    def decode(self, kind: type[T]) -> T | None:
        """Return the object so far; None if it is not valid, since it was cut inside a key or a number, or is wrong."""
        text = self._text[: self._place] + '"' * self._within + "".join(reversed(self._closers))
        try:
            return msgspec.json.decode(text, type=kind, strict=False)
        except (msgspec.DecodeError, RecursionError):
            return None
