"""Parse a model's output into reasoning, text and calls while it arrives. Pure.

The parser emits text as soon as it cannot be part of a marker. It never emits a marker, even if one is split across
chunks. `families` has the markers.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence

from msgspec import Struct

from engine.dialects.prose import Prose
from engine.dialects.wraps import Wrap
from engine.notations import (
    GENERIC_FORMAT,
    CallFormat,
    Offered,
    ParsedDelta,
    Read,
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


class Block(Struct, frozen=True):
    """Calls after a marker."""

    open: str
    """Marker; `$name` stands for the name of an offered function."""
    read: Read
    reads_marker: bool = False
    """True if `read` reads the marker too."""


class ReasoningTags(Struct, frozen=True):
    """Reasoning between two markers. A prompt may end with the first."""

    open: str
    close: str


class Dialect(Struct, frozen=True):
    name: str
    template_signatures: tuple[str, ...] = ()
    """Texts that a template of the family contains; all of them must match."""
    blocks: tuple[Block, ...] = ()
    ignored_markers: tuple[str, ...] = ()
    """Markers around calls that carry no further meaning; `$name` stands for each function's name."""
    allows_bare_json: bool = False
    """True if an answer may consist of calls in JSON without a marker."""
    generation_prefix: str = ""
    """The start of a marker that ends the prompt."""
    content_markers: tuple[str, ...] = ()
    """Markers around text that is no call."""
    channels: bool = False
    """True if the output consists of messages with a recipient (Harmony)."""
    form: CallFormat = GENERIC_FORMAT
    """Format in which grammars write calls."""
    alternatives: tuple[CallFormat, ...] = ()
    """Further formats of calls; `blocks` read all of them."""
    reasoning_tags: tuple[ReasoningTags, ...] = ()
    """Markers of reasoning. The template adds to these, since reasoning tags and call formats combine freely."""
    wraps: tuple[Wrap, ...] = ()
    """Markers around whole answers, found in the template."""
    interrupts: bool = True
    """True if a marker of a call or of the answer ends reasoning that is not closed."""

    @property
    def plain(self) -> bool:
        """True if an answer without calls is only text, which needs no parser."""
        return not (self.channels or self.reasoning_tags or self.content_markers or self.wraps)

    def interruptions(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the markers that end reasoning besides its own: of calls of these functions, and of the answer."""
        if self.channels or not self.interrupts:
            return ()
        forms = (self.form, *self.alternatives)
        markers = [*(block.open for block in self.blocks), *(marker for form in forms for marker in form.markers)]
        called = [marker.replace("$name", name) for name in names for marker in markers]
        answer = self.form.answer.partition("$answer")[0].removeprefix(self.generation_prefix)
        return tuple(dict.fromkeys(filter(None, [*called, answer])))


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
        without a marker is no call: then text without a marker is the answer, verbatim.
        """
        self._dialect = dialect
        self._offered = offered or {}
        self._scanner = Scanner(control_marks or {})
        self._scanner.feed(dialect.generation_prefix)
        self._opened = thinking
        self._bare = bare
        self._interruptions = dialect.interruptions(self._offered)
        self._unclosed = ""
        """Closing marker of reasoning that another marker ended."""
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
        scanner, dialect = self._scanner, self._dialect
        prose = Prose(scanner)
        if self._opened is not None:
            yield from self._think(self._opened)
            prose.at_marker()
            prose.restart()
        yield from self._bare_calls(prose)
        blocks = {marker: block for block in dialect.blocks for marker in self._with_names(block.open)}
        ignored = [marker for each in dialect.ignored_markers for marker in self._with_names(each)]
        thinks = {think.open: think for think in dialect.reasoning_tags}
        closes = {think.close for think in dialect.reasoning_tags} - {*ignored, *dialect.content_markers}
        wraps = {wrap.open: wrap.close for wrap in dialect.wraps}
        markers = (*blocks, *ignored, *dialect.content_markers, *thinks, *closes, *wraps, *wraps.values())
        if dialect.generation_prefix and not (yield from self._at_one_of(markers)):
            yield from scanner.skip_literal(dialect.generation_prefix)
        unopened = ""
        """Closing marker of reasoning that was never opened. It is the answer's text if there is no other."""
        while True:
            ends = markers
            if not self._bare and not (yield from self._at_one_of(markers)):
                ends = (dialect.form.answer.partition("$answer")[2],)
            if not (marker := (yield from scanner.until(ends, prose.emit, prose=True))):
                break
            if marker == self._wrapped:
                self._wrapped = ""
                prose.close()
                continue
            if self._is_text(marker, prose, {*thinks, *wraps}, closes):
                prose.emit(marker)
                continue
            prose.at_marker()
            if marker in blocks:
                if blocks[marker].reads_marker:
                    scanner.unread(marker)
                yield from blocks[marker].read(scanner, self._offered)
                prose.restart()
            elif marker in thinks:
                yield from self._think(thinks[marker])
                prose.restart()
                yield from self._bare_calls(prose)
            elif marker in wraps:
                self._wrapped = wraps[marker]
                prose.has_text = True
            elif marker in closes and not scanner.is_control(marker):
                unopened = marker
        if prose.is_blank and not scanner.cut:
            prose.emit(unopened)
        prose.end()

    def _is_text(self, marker: str, prose: "Prose", opens: Container[str], closes: Container[str]) -> bool:
        """Return True for a marker of reasoning or of a wrap that the answer only quotes.

        Control tokens are never quoted. Reasoning and wraps open only before other text; reasoning that closes there
        was empty.
        """
        if self._scanner.is_control(marker):
            return False
        if any(marker == wrap.close for wrap in self._dialect.wraps):
            return True
        if marker in closes:
            unclosed, self._unclosed = self._unclosed, ""
            return prose.has_text and marker != unclosed
        return marker in opens and prose.has_text

    def _with_names(self, marker: str) -> Iterable[str]:
        return dict.fromkeys(marker.replace("$name", name) for name in self._offered)

    def _at_one_of(self, markers: Sequence[str]) -> ReaderSteps[bool]:
        """Return True if a marker follows. Skip white space before it that is no part of a marker."""
        for _ in range(2):
            for marker in markers:
                if (yield from self._scanner.skip_literal(marker)):
                    self._scanner.unread(marker)
                    return True
            yield from self._scanner.skip_space()
        return False

    def _bare_calls(self, prose: "Prose") -> ReaderSteps[None]:
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
        if scanner.output and isinstance(text := scanner.output[-1], TextDelta):  # the object is no call
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


_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_HEADER = ("<|message|>", "<|channel|>", "<|constrain|>")
"""Markers at the end of a header and between its words."""
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
