"""Text and reasoning, without the white space around markers. Pure."""

from engine.notations import ReasoningDelta, Scanner, TextDelta


class Prose:
    """Tells text without the white space around markers; what has none around it is told to the letter."""

    def __init__(self, scanner: Scanner, kind: type[TextDelta] | type[ReasoningDelta] = TextDelta) -> None:
        self._scanner = scanner
        self._kind = kind
        self._held = ""
        """White space that may stand before a marker."""
        self._fresh = False
        """Whether a marker came just before."""
        self._closed = False
        """True if the wrap around the answer closed just before."""
        self.said = False
        """True if more than white space has come since the last call or thought."""
        self.alone = True
        """True if nothing but white space has come at all."""

    def tell(self, text: str) -> None:
        if self._fresh:
            text = text.lstrip()
        text = self._held + text
        told = text.rstrip()
        self._held = text[len(told) :]
        if told:
            self._fresh, self._closed, self.said, self.alone = False, False, True, False
            self._scanner.found.append(self._kind(told))

    def cut(self) -> None:
        """A marker comes."""
        self._held = ""
        self._fresh = True

    def anew(self) -> None:
        """A call or a thought has ended."""
        self.said = self.alone = False

    def close(self) -> None:
        """Drop the white space around the end of a wrap, unless more text follows."""
        self._closed = True

    def end(self) -> None:
        if self._held and not self._fresh and not self._closed:
            self._scanner.found.append(self._kind(self._held))
