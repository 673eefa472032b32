"""Emit text and reasoning without the white space around markers. Pure."""

from engine.notations import ReasoningDelta, Scanner, TextDelta


class Prose:
    """Emits text without the white space around markers. Text without markers is emitted verbatim."""

    def __init__(self, scanner: Scanner, kind: type[TextDelta] | type[ReasoningDelta] = TextDelta) -> None:
        self._scanner = scanner
        self._kind = kind
        self._white_space = ""
        """White space that may precede a marker."""
        self._after_marker = False
        """True right after a marker."""
        self._closed = False
        """True right after the end of a wrap around the answer."""
        self.has_text = False
        """True if text other than white space followed the last call or reasoning."""
        self.is_blank = True
        """True if the answer has had only white space so far, and no call or reasoning."""

    def emit(self, text: str) -> None:
        """Emit a further part of the text, without white space that may precede a marker."""
        if self._after_marker:
            text = text.lstrip()
        text = self._white_space + text
        certain = text.rstrip()
        self._white_space = text[len(certain) :]
        if certain:
            self._after_marker, self._closed, self.has_text, self.is_blank = False, False, True, False
            self._scanner.output.append(self._kind(certain))

    def at_marker(self) -> None:
        """Drop the white space around a marker."""
        self._white_space = ""
        self._after_marker = True

    def restart(self) -> None:
        """Begin again after a call or reasoning."""
        self.has_text = self.is_blank = False

    def close(self) -> None:
        """Drop the white space around the end of a wrap unless text follows."""
        self._closed = True

    def end(self) -> None:
        """Emit the white space at the end, unless it is beside a marker."""
        if self._white_space and not self._after_marker and not self._closed:
            self._scanner.output.append(self._kind(self._white_space))
