"""A model family as data: its markers, and how it writes calls and reasoning. Pure."""

from collections.abc import Iterable

from msgspec import Struct

from engine.dialects.wraps import Wrap
from engine.notations import GENERIC_FORMAT, CallFormat, Read


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
    """The calls and the reasoning of a model family, and the signatures of its templates."""

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
    """Markers around text that is not a call."""
    channels: bool = False
    """True if the output consists of messages with a recipient (Harmony)."""
    call_format: CallFormat = GENERIC_FORMAT
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

    @property
    def numbers_ids(self) -> bool:
        """True if the id of a call is its function's name and its number."""
        return ":$number" in self.call_format.call

    def _call_markers(self) -> list[str]:
        """Return the markers of calls, except those with which another one ends: as MiniMax M3's with the generic
        one."""
        formats = (self.call_format, *self.alternatives)
        markers = [
            *(block.open for block in self.blocks),
            *(marker for call_format in formats for marker in call_format.markers),
        ]
        return [each for each in markers if not any(m != each and m.endswith(each) for m in self.call_format.markers)]

    def interruptions(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the markers that end reasoning besides its own: of calls of these functions, and of the answer."""
        if self.channels or not self.interrupts:
            return ()
        called = [marker.replace("$name", name) for name in names for marker in self._call_markers()]
        answer = self.call_format.answer.partition("$answer")[0].removeprefix(self.generation_prefix)
        return tuple(dict.fromkeys(filter(None, [*called, answer])))
