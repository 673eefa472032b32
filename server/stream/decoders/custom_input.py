"""Incremental decoder of a custom tool's arguments: `{"input": "..."}` in parts -> its text. Pure.

The text streams, since a patch may have thousands of tokens. Emitted text cannot be retracted. So the decoder ignores
everything after the quotation mark that ends the text, and emits invalid JSON (raw line ends, unknown escapes)
unchanged. Half a surrogate pair becomes U+FFFD if the other half is missing.
"""

import re
from enum import Enum, auto

import msgspec
from msgspec import Struct

_OPENING = re.compile(r'[ \t\n\r]*\{[ \t\n\r]*"input"[ \t\n\r]*:[ \t\n\r]*"')
_COMPLETE = re.compile(r'(?:[^"\\]+|\\(?:[^u]|u(?![0-9a-fA-F]{0,3}\Z)))*', re.DOTALL)
"""Longest prefix that later input cannot change: it does not end inside an escape sequence."""
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_FIRST_HALF = re.compile("[\ud800-\udbff]\\Z")


class _Place(Enum):
    BEFORE = auto()
    WITHIN = auto()
    AFTER = auto()


class CustomInputDecoder:
    """Decoder of one call's arguments."""

    def __init__(self) -> None:
        self._place = _Place.BEFORE
        self._rest = ""
        """Input that is not decoded yet."""
        self._half = ""
        """First half of a surrogate pair, or nothing."""

    def feed(self, written: str) -> str:
        """Return the further text that is certain now, possibly none."""
        if self._place is _Place.AFTER:
            return ""
        self._rest += written
        if self._place is _Place.BEFORE:
            if (opening := _OPENING.match(self._rest)) is None:
                return ""
            self._place = _Place.WITHIN
            self._rest = self._rest[opening.end() :]
        return self._decoded()

    def finish(self) -> str:
        """Return the rest at the end: input of another form, decoded as JSON or unchanged."""
        if self._place is not _Place.BEFORE:
            return ""
        begun = "".join(self._rest.split())
        if begun == "{}" or '{"input":"'.startswith(begun):
            return ""
        try:
            return msgspec.json.decode(self._rest, type=_Wrapped).input
        except (msgspec.DecodeError, RecursionError):
            return self._rest

    def _decoded(self) -> str:
        complete = _COMPLETE.match(self._rest)
        assert complete is not None, "the pattern matches the empty text"
        text = self._half + _ESCAPE.sub(_unescaped, complete[0])
        self._rest = self._rest[complete.end() :]
        if self._rest.startswith('"'):
            self._place = _Place.AFTER
            self._half = ""
        else:
            half = _FIRST_HALF.search(text)
            self._half = half[0] if half else ""
        return _with_joined_surrogates(text.removesuffix(self._half))


class _Wrapped(Struct):
    input: str


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else _ESCAPED.get(escape[2], escape[0])


def _with_joined_surrogates(text: str) -> str:
    """Return the text with surrogate pairs joined and lone surrogates replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
