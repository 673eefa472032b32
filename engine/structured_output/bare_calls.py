"""Where calls without a marker are seen: in what the model writes, as bytes, by what reads the answer too."""

from codecs import getincrementaldecoder
from collections.abc import Container

from engine.notations import BETWEEN, ReaderSteps, Scanner, ToolCallStart, bare_objects, marks
from engine.structured_output.markers import CONTROL

_UTF8 = getincrementaldecoder("utf-8")
_MARK = marks([""])[""]


class BareCallDetector:
    """Reads from where an answer begins, or goes on behind a call, up to the name of a function on offer."""

    def __init__(self, names: Container[str], again: bool) -> None:
        """`again`: whether a call came before."""
        self._utf8 = _UTF8(errors="replace")
        self._scanner = Scanner({})
        self._reading = self._read(names, again)
        self.over = False
        """Whether no call comes."""

    @property
    def within(self) -> bool:
        """Whether a name is being read."""
        return self._scanner.naming

    def feed(self, data: bytes) -> tuple[str, bytes] | None:
        """The name, if it has come to its end, and what follows it."""
        for at, char in enumerate(text := self._text(data), 1):
            self._scanner.feed(char)
            if next(self._reading, self) is self:
                self.over = True
                break
            if self._scanner.found:
                begun = self._scanner.found[0]
                assert isinstance(begun, ToolCallStart), "text ends it"
                return begun.name, text[at:].encode()
        return None

    def _text(self, data: bytes) -> str:
        if not data.startswith(CONTROL):
            return self._utf8.decode(data)
        self._utf8.reset()
        return _MARK

    def _read(self, names: Container[str], again: bool) -> ReaderSteps[None]:
        yield from self._scanner.pass_over(BETWEEN if again else "")
        yield from bare_objects(self._scanner, names, again)
