"""Detect calls without a marker in the bytes that the model writes. The parser of the answer uses the same reader."""

from codecs import getincrementaldecoder
from collections.abc import Container

from engine.notations import SEPARATORS, ReaderSteps, Scanner, ToolCallStart, bare_objects, marks
from engine.structured_output.markers import CONTROL

_UTF8 = getincrementaldecoder("utf-8")
_MARK = marks([""])[""]


class BareCallDetector:
    """Reads the start of an answer, or the text after a call, up to the name of an offered function."""

    def __init__(self, names: Container[str], after_call: bool) -> None:
        """Set `after_call` if the text follows a call."""
        self._utf8 = _UTF8(errors="replace")
        self._scanner = Scanner({})
        self._reading = self._read(names, after_call)
        self.is_text = False
        """True if the text is not a call."""

    @property
    def in_name(self) -> bool:
        """True while a name is being read."""
        return self._scanner.in_name

    def feed(self, data: bytes) -> tuple[str, bytes] | None:
        """Return the name and the bytes that follow it once the name is complete; None before."""
        for at, char in enumerate(text := self._text(data), 1):
            self._scanner.feed(char)
            if next(self._reading, self) is self:
                self.is_text = True
                break
            if self._scanner.output:
                start = self._scanner.output[0]
                assert isinstance(start, ToolCallStart), "text would have ended the reader"
                return start.name, text[at:].encode()
        return None

    def _text(self, data: bytes) -> str:
        if not data.startswith(CONTROL):
            return self._utf8.decode(data)
        self._utf8.reset()
        return _MARK

    def _read(self, names: Container[str], after_call: bool) -> ReaderSteps[None]:
        yield from self._scanner.skip(SEPARATORS if after_call else "")
        yield from bare_objects(self._scanner, names, after_call)
