"""What a model writes, taken apart as it comes: reasoning, text, calls. Pure.

What is certain is told at once, and a marker never, however it is cut. Which markers there are is data (`families`).
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
    """Calls behind a marker."""

    open: str
    """With `$name`: that of a function on offer."""
    read: Read
    keeps: bool = False
    """Whether the marker is part of what is read."""


class Think(Struct, frozen=True):
    """Reasoning between two markers. A prompt may end with the first."""

    open: str
    close: str


class Dialect(Struct, frozen=True):
    name: str
    template_signatures: tuple[str, ...] = ()
    """All of them stand in the template."""
    blocks: tuple[Block, ...] = ()
    ignored_markers: tuple[str, ...] = ()
    """Markers that say nothing else: they stand around calls. With `$name` too."""
    allows_bare_json: bool = False
    """Whether an answer may also be nothing but calls, as JSON without a marker."""
    generation_prefix: str = ""
    """The beginning of a marker, with which prompts end."""
    content_markers: tuple[str, ...] = ()
    """Markers around what is no call."""
    channels: bool = False
    """Whether all is said in messages that are addressed (harmony)."""
    form: CallFormat = GENERIC_FORMAT
    """How calls are written."""
    alternatives: tuple[CallFormat, ...] = ()
    """How they may be written, too: `blocks` read all of these."""
    thinks: tuple[Think, ...] = ()
    """The template adds to these: families and their ways to think are mixed freely."""
    wraps: tuple[Wrap, ...] = ()
    """Around whole answers; the template adds these too."""
    interrupts: bool = True
    """True if a marker of a call or of the answer ends a thought that has not closed."""

    @property
    def plain(self) -> bool:
        """Whether an answer is nothing but its text where nothing may be called."""
        return not (self.channels or self.thinks or self.content_markers or self.wraps)

    def interruptions(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the markers that end a thought besides its own: of calls of these functions, and of the answer."""
        if self.channels or not self.interrupts:
            return ()
        forms = (self.form, *self.alternatives)
        markers = [*(block.open for block in self.blocks), *(marker for form in forms for marker in form.markers)]
        called = [marker.replace("$name", name) for name in names for marker in markers]
        answer = self.form.answer.partition("$answer")[0].removeprefix(self.generation_prefix)
        return tuple(dict.fromkeys(filter(None, [*called, answer])))


class Parser:
    """Takes one answer apart. The same text gives the same, however it is cut."""

    def __init__(
        self,
        dialect: Dialect,
        offered: Offered | None = None,
        spelled: Mapping[str, str] | None = None,
        thinking: Think | None = None,
        bare: bool = True,
    ) -> None:
        """`offered`: the functions that may be called, if any; `spelled`: see Scanner; `thinking`: what the prompt
        has begun; `bare`: whether JSON without a marker may be a call. If not, what begins without a marker is the
        answer, to the letter."""
        self._dialect = dialect
        self._offered = offered or {}
        self._scanner = Scanner(spelled or {})
        self._scanner.feed(dialect.generation_prefix)
        self._begun = thinking
        self._bare = bare
        self._interruptions = dialect.interruptions(self._offered)
        self._unclosed = ""
        """The close of a thought that another marker ended."""
        self._wrapped = ""
        """The close of the wrap that has begun."""
        self.thinking = thinking is not None
        """Whether what comes next is reasoning."""
        self._reading = self._channels() if dialect.channels else self._speech()
        self._over = False

    def feed(self, text: str) -> list[ParsedDelta]:
        """What has become certain with `text`."""
        self._scanner.feed(text)
        return self._read()

    def finish(self, cut: bool = False) -> list[ParsedDelta]:
        """The rest. A call without its end is completed where the model ended so; in an answer that was `cut`, it has
        what was written and no more."""
        self._scanner.ended, self._scanner.cut = True, cut
        return self._read()

    def _read(self) -> list[ParsedDelta]:
        if not self._over:
            try:
                next(self._reading)
            except StopIteration:
                self._over = True
        found, self._scanner.found = merged(self._scanner.found), []
        return found

    def _speech(self) -> ReaderSteps[None]:
        """Text, with reasoning and calls between."""
        scanner, dialect = self._scanner, self._dialect
        prose = Prose(scanner)
        if self._begun is not None:
            yield from self._think(self._begun)
            prose.cut()
            prose.anew()
        yield from self._bare_calls(prose)
        blocks = {marker: block for block in dialect.blocks for marker in self._named(block.open)}
        silent = [marker for each in dialect.ignored_markers for marker in self._named(each)]
        thinks = {think.open: think for think in dialect.thinks}
        closes = {think.close for think in dialect.thinks} - {*silent, *dialect.content_markers}
        wraps = {wrap.open: wrap.close for wrap in dialect.wraps}
        markers = (*blocks, *silent, *dialect.content_markers, *thinks, *closes, *wraps, *wraps.values())
        if dialect.generation_prefix and not (yield from self._at_one_of(markers)):
            yield from scanner.passes(dialect.generation_prefix)
        lone = ""
        """The close of a thought that has not begun: the answer's text, if nothing else comes."""
        while True:
            ends = markers
            if not self._bare and not (yield from self._at_one_of(markers)):
                ends = (dialect.form.answer.partition("$answer")[2],)
            if not (marker := (yield from scanner.until(ends, prose.tell, prose=True))):
                break
            if marker == self._wrapped:
                self._wrapped = ""
                prose.close()
                continue
            if self._is_text(marker, prose, {*thinks, *wraps}, closes):
                prose.tell(marker)
                continue
            prose.cut()
            if marker in blocks:
                if blocks[marker].keeps:
                    scanner.back(marker)
                yield from blocks[marker].read(scanner, self._offered)
                prose.anew()
            elif marker in thinks:
                yield from self._think(thinks[marker])
                prose.anew()
                yield from self._bare_calls(prose)
            elif marker in wraps:
                self._wrapped = wraps[marker]
                prose.said = True
            elif marker in closes and not scanner.is_control(marker):
                lone = marker
        if prose.alone and not scanner.cut:
            prose.tell(lone)
        prose.end()

    def _is_text(self, marker: str, prose: "Prose", opens: Container[str], closes: Container[str]) -> bool:
        """True for the marker of a thought or a wrap that an answer quotes: a control token never is one. A thought or
        a wrap begins where nothing was said before, and a thought that ends there had no words."""
        if self._scanner.is_control(marker):
            return False
        if any(marker == wrap.close for wrap in self._dialect.wraps):
            return True
        if marker in closes:
            unclosed, self._unclosed = self._unclosed, ""
            return prose.said and marker != unclosed
        return marker in opens and prose.said

    def _named(self, marker: str) -> Iterable[str]:
        return dict.fromkeys(marker.replace("$name", name) for name in self._offered)

    def _at_one_of(self, markers: Sequence[str]) -> ReaderSteps[bool]:
        """White space before it is passed over, unless it belongs to one."""
        for _ in range(2):
            for marker in markers:
                if (yield from self._scanner.passes(marker)):
                    self._scanner.back(marker)
                    return True
            yield from self._scanner.space()
        return False

    def _bare_calls(self, prose: "Prose") -> ReaderSteps[None]:
        """Where an answer begins, or goes on behind a thought: there `phases` looks for them too."""
        if not (self._offered and self._dialect.allows_bare_json and self._bare):
            return
        scanner = self._scanner
        if not (yield from begins_bare(scanner)):  # a marker may begin with white space, or with a bracket
            return
        yield from scanner.space()
        if (yield from bare_objects(scanner, self._offered)):
            prose.cut()
            prose.anew()
        if scanner.found and isinstance(text := scanner.found[-1], TextDelta):  # it is no call
            scanner.found.pop()
            prose.tell(text.text)

    def _think(self, think: Think) -> ReaderSteps[None]:
        self.thinking = True
        prose = Prose(self._scanner, ReasoningDelta)
        prose.cut()
        marker = yield from self._scanner.until((think.close, *self._interruptions), prose.tell, prose=True)
        if marker and marker != think.close:
            self._scanner.back(marker)
            self._unclosed = think.close
        self.thinking = False

    def _channels(self) -> ReaderSteps[None]:
        """Messages, each with a header that says to whom it goes, or on which channel."""
        scanner = self._scanner
        while True:
            header, marker = yield from scanner.collect(_HEADER)
            while marker in _HEADER[1:]:
                more, marker = yield from scanner.collect(_HEADER)
                header = f"{header} {more}"
            if not marker:
                return
            called = _ADDRESSED.search(header)
            if called:
                scanner.found.append(ToolCallStart(called[1]))
                yield from scanner.until(_ENDS, emit_arguments(scanner))
                scanner.found.append(ToolCallEnd())
            elif "analysis" in header:
                prose = Prose(scanner, ReasoningDelta)
                self.thinking = True
                yield from scanner.until(_ENDS, prose.tell, prose=True)
                self.thinking = False
            else:
                prose = Prose(scanner)
                yield from scanner.until(_ENDS, prose.tell, prose=True)
                prose.end()


_ADDRESSED = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_HEADER = ("<|message|>", "<|channel|>", "<|constrain|>")
"""The end of a header, and markers between its words."""
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
