"""Parse a model's output into reasoning, text and calls while it arrives. Pure.

The parser emits text as soon as it cannot be part of a marker. It never emits a marker, even if one is split across
chunks.
"""

import re
from collections.abc import Mapping, Sequence

from engine.dialects.dialect import Dialect, ReasoningTags
from engine.dialects.markers import AnswerMarkers
from engine.dialects.prose import Prose
from engine.notations import (
    Offered,
    ParsedDelta,
    ReaderSteps,
    ReasoningDelta,
    Scanner,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    bare_objects,
    begins_bare,
    emit_arguments,
    merged,
)

_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_HEADER = ("<|message|>", "<|channel|>", "<|constrain|>")
"""Markers at the end of a header and between its words."""
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")


class Parser:
    """Parses one answer. The result does not depend on how the text is split into chunks."""

    def __init__(
        self,
        dialect: Dialect,
        offered: Offered | None = None,
        control_marks: Mapping[str, str] | None = None,
        thinking: ReasoningTags | None = None,
        bare: bool = True,
    ) -> None:
        """Parse an answer that may call the functions `offered`.

        `control_marks`: see Scanner. `thinking` is the reasoning that the prompt has opened. `bare` is False if JSON
        without a marker is not a call: then text without a marker is the answer, verbatim.
        """
        self._dialect = dialect
        self._offered = offered or {}
        self._scanner = Scanner(control_marks or {})
        if dialect.channels:
            self._scanner.feed(dialect.generation_prefix)
        self._opened = thinking
        self._bare = bare
        self._interruptions = dialect.interruptions(self._offered)
        self._markers = AnswerMarkers(dialect, self._offered)
        self._unclosed = ""
        """Closing marker of reasoning that another marker ended."""
        self._unopened = ""
        """Closing marker of reasoning that was never opened. It is the answer's text if there is no other."""
        self._wrapped = ""
        """Closing marker of the open wrap."""
        self.thinking = thinking is not None
        """True if the next text is reasoning."""
        self._reading = self._channels() if dialect.channels else self._answer()
        self._finished = False

    def feed(self, text: str) -> list[ParsedDelta]:
        """Return the deltas that `text` completes."""
        self._scanner.feed(text)
        return self._read()

    def finish(self, cut: bool = False) -> list[ParsedDelta]:
        """Return the remaining deltas. An unfinished call is completed, unless the answer was `cut` off."""
        self._scanner.ended, self._scanner.cut = True, cut
        return self._read()

    def _read(self) -> list[ParsedDelta]:
        if not self._finished:
            try:
                next(self._reading)
            except StopIteration:
                self._finished = True
        found, self._scanner.output = merged(self._scanner.output), []
        return found

    def _answer(self) -> ReaderSteps[None]:
        """Text, with reasoning and calls between."""
        scanner = self._scanner
        prose = Prose(scanner)
        if self._opened is not None:
            yield from self._think(self._opened)
            prose.at_marker()
            prose.restart()
        yield from self._begin(prose)
        while marker := (yield from scanner.until((yield from self._next_markers()), prose.emit, prose=True)):
            if marker == self._wrapped:
                self._wrapped = ""
                prose.close()
            elif self._is_text(marker, prose):
                prose.emit(marker)
            else:
                prose.at_marker()
                yield from self._marked(marker, prose)
        if prose.is_blank and not scanner.cut:
            prose.emit(self._unopened)
        prose.end()

    def _next_markers(self) -> ReaderSteps[Sequence[str]]:
        """Return the markers that may follow: all, or only the answer's end if JSON without a marker is the answer."""
        if self._bare or (yield from self._at_one_of(self._markers.all)):
            return self._markers.all
        return (self._dialect.call_format.answer.partition("$answer")[2],)

    def _marked(self, marker: str, prose: Prose) -> ReaderSteps[None]:
        """Read the call or reasoning after a marker, or record the marker."""
        markers = self._markers
        if block := markers.blocks.get(marker):
            if block.reads_marker:
                self._scanner.unread(marker)
            yield from block.read(self._scanner, self._offered)
            prose.restart()
        elif tags := markers.reasoning.get(marker):
            yield from self._think(tags)
            prose.restart()
            yield from self._begin(prose)
        elif marker in markers.wraps:
            self._wrapped = markers.wraps[marker]
            prose.has_text = True
        elif marker in markers.reasoning_ends and not self._scanner.is_control(marker):
            self._unopened = marker

    def _is_text(self, marker: str, prose: Prose) -> bool:
        """Return True for a marker of reasoning or of a wrap that the answer only quotes.

        Control tokens are never quoted. Reasoning and wraps open only before other text; reasoning that closes there
        was empty.
        """
        markers = self._markers
        if self._scanner.is_control(marker):
            return False
        if marker in markers.wraps.values():
            return True
        if marker in markers.reasoning_ends:
            unclosed, self._unclosed = self._unclosed, ""
            return prose.has_text and marker != unclosed
        return prose.has_text and (marker in markers.reasoning or marker in markers.wraps)

    def _at_one_of(self, markers: Sequence[str]) -> ReaderSteps[bool]:
        """True if a marker follows. Skip white space before it that is not part of a marker."""
        for _ in range(2):
            for marker in markers:
                if (yield from self._scanner.skip_literal(marker)):
                    self._scanner.unread(marker)
                    return True
            yield from self._scanner.skip_space()
        return False

    def _begin(self, prose: Prose) -> ReaderSteps[None]:
        """Read the start of an answer, or of the text after reasoning: the prompt has begun its marker."""
        scanner, prefix = self._scanner, self._dialect.generation_prefix
        scanner.prepend(prefix)
        yield from self._bare_calls(prose)
        if prefix and not (yield from self._at_one_of(self._markers.all)):
            yield from scanner.skip_literal(prefix)

    def _bare_calls(self, prose: Prose) -> ReaderSteps[None]:
        """Read calls without a marker at the start of an answer or after reasoning, as `StructuralTag` does."""
        if not (self._offered and self._dialect.allows_bare_json and self._bare):
            return
        scanner = self._scanner
        if not (yield from begins_bare(scanner)):  # white space or a bracket may belong to a marker
            return
        yield from scanner.skip_space()
        if (yield from bare_objects(scanner, self._offered)):
            prose.at_marker()
            prose.restart()
        if scanner.output and isinstance(text := scanner.output[-1], TextDelta):  # the object is not a call
            scanner.output.pop()
            prose.emit(text.text)

    def _think(self, think: ReasoningTags) -> ReaderSteps[None]:
        self.thinking = True
        prose = Prose(self._scanner, ReasoningDelta)
        prose.at_marker()
        marker = yield from self._scanner.until((think.close, *self._interruptions), prose.emit, prose=True)
        if marker and marker != think.close:
            self._scanner.unread(marker)
            self._unclosed = think.close
        self.thinking = False

    def _channels(self) -> ReaderSteps[None]:
        """Read messages, whose headers name a recipient or a channel."""
        scanner = self._scanner
        while True:
            header, marker = yield from scanner.collect(_HEADER)
            while marker in _HEADER[1:]:
                more, marker = yield from scanner.collect(_HEADER)
                header = f"{header} {more}"
            if not marker:
                return
            recipient = _RECIPIENT.search(header)
            if recipient:
                scanner.output.append(ToolCallStart(recipient[1]))
                yield from scanner.until(_ENDS, emit_arguments(scanner))
                scanner.output.append(ToolCallEnd())
            elif "analysis" in header:
                prose = Prose(scanner, ReasoningDelta)
                self.thinking = True
                yield from scanner.until(_ENDS, prose.emit, prose=True)
                self.thinking = False
            else:
                prose = Prose(scanner)
                yield from scanner.until(_ENDS, prose.emit, prose=True)
                prose.end()
