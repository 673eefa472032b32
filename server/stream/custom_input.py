"""What the model writes for a custom tool, `{"input": "..."}`, piece by piece -> the text in it. Pure.

A patch of thousands of tokens must not be silence until its end. What has been told can't be taken back, so behind the
quotation mark that ends the text nothing counts, and what JSON would refuse in it (a line's end as it is, an escape
that there is not) stands for itself. Half a surrogate pair can't be sent: U+FFFD, where the other half doesn't come.
"""

import re
from enum import Enum, auto

import msgspec
from msgspec import Struct

_OPENING = re.compile(r'[ \t\n\r]*\{[ \t\n\r]*"input"[ \t\n\r]*:[ \t\n\r]*"')
_KNOWN = re.compile(r'(?:[^"\\]+|\\(?:[^u]|u(?![0-9a-fA-F]{0,3}\Z)))*', re.DOTALL)
"""Of a text, what stays what it is whatever follows: no escape is cut at its end."""
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_MEANT = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_FIRST_HALF = re.compile("[\ud800-\udbff]\\Z")


class _Place(Enum):
    BEFORE = auto()
    WITHIN = auto()
    BEHIND = auto()


class CustomInputDecoder:
    """Of one call."""

    def __init__(self) -> None:
        self._place = _Place.BEFORE
        self._rest = ""
        """What is not understood yet."""
        self._half = ""
        """Of a surrogate pair."""

    def feed(self, written: str) -> str:
        """What is known of the text by now, and was not before; empty where that is nothing."""
        if self._place is _Place.BEHIND:
            return ""
        self._rest += written
        if self._place is _Place.BEFORE:
            if (opening := _OPENING.match(self._rest)) is None:
                return ""
            self._place = _Place.WITHIN
            self._rest = self._rest[opening.end() :]
        return self._known()

    def finish(self) -> str:
        """What was not of this form: by what its JSON says, or as it is. Of a text that is cut all was told."""
        if self._place is not _Place.BEFORE:
            return ""
        begun = "".join(self._rest.split())
        if begun == "{}" or '{"input":"'.startswith(begun):
            return ""
        try:
            return msgspec.json.decode(self._rest, type=_Wrapped).input
        except (msgspec.DecodeError, RecursionError):
            return self._rest

    def _known(self) -> str:
        known = _KNOWN.match(self._rest)
        assert known is not None, "nothing is something too"
        text = self._half + _ESCAPE.sub(_meant, known[0])
        self._rest = self._rest[known.end() :]
        if self._rest.startswith('"'):
            self._place = _Place.BEHIND
            self._half = ""
        else:
            half = _FIRST_HALF.search(text)
            self._half = half[0] if half else ""
        return _paired(text.removesuffix(self._half))


class _Wrapped(Struct):
    input: str


def _meant(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else _MEANT.get(escape[2], escape[0])


def _paired(text: str) -> str:
    """With the halves of surrogate pairs together."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
