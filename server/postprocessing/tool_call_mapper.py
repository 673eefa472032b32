"""Mapper of parsed output to stream inputs; it gives calls the names that the client uses. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.dialects import Parser
from engine.notations import ParsedDelta, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart
from engine.notations import ToolCallArguments as Argued
from server.stream import ArgumentsAdded, ReasoningAdded, StreamInput, TextAdded, ToolCallEnded, ToolCallStarted


class ToolCallMapper:
    def __init__(
        self,
        parser: Parser,
        markers: Mapping[int, str],
        calls: Mapping[str, ToolCallStarted] | None = None,
        parallel: bool = True,
        allows_text: bool = True,
    ) -> None:
        """Map the output of `parser`.

        `markers`: the parser's text for control tokens. `calls`: the client's tool for each name that the model knows;
        None accepts any name. `parallel` allows several calls. Without `allows_text`, text is dropped: it is the
        beginning of a call that was cut.
        """
        self._parser = parser
        self._markers = markers
        self._calls = calls
        self._unoffered = False
        """True within a call of a function that the request does not offer; its arguments become text."""
        self._parallel = parallel
        self._allows_text = allows_text
        self.calling: ToolCallStarted | None = None
        """Open call."""
        self.done = False
        """True after the only call of a response without parallel calls."""

    @property
    def thinking(self) -> bool:
        return self._parser.thinking

    def marker_of(self, token: int) -> str | None:
        return self._markers.get(token)

    def feed(self, text: str) -> list[StreamInput]:
        return list(self._inputs(self._parser.feed(text)))

    def finish(self, cut: bool) -> list[StreamInput]:
        """Return the inputs for the rest of the output.

        If the output was `cut`, an open call stays open, since it is incomplete. A call whose name was cut is dropped.
        """
        rest = self._parser.finish(cut)
        if cut and rest and isinstance(rest[-1], ToolCallEnd):
            last = max((n for n, each in enumerate(rest) if isinstance(each, ToolCallStart)), default=-1)
            begun = rest[last] if last >= 0 else None
            rest = (
                rest[:last] if isinstance(begun, ToolCallStart) and begun.name not in (self._calls or {}) else rest[:-1]
            )
        return list(self._inputs(rest))

    def _inputs(self, deltas: Iterable[ParsedDelta]) -> Iterator[StreamInput]:
        for delta in deltas:
            if self.done:
                return
            match delta:
                case TextDelta(text):
                    if self._allows_text:
                        yield TextAdded(text)
                case ReasoningDelta(text):
                    yield ReasoningAdded(text)
                case Argued(text):
                    yield from self._arguments(text)
                case ToolCallStart(name):
                    yield from self._begin_call(name)
                case ToolCallEnd():
                    yield from self._end_call()

    def _begin_call(self, name: str) -> Iterator[StreamInput]:
        if self._calls is not None and name not in self._calls:
            self._unoffered = True
            return
        self.calling = (self._calls or {}).get(name) or ToolCallStarted(name)
        yield self.calling

    def _arguments(self, text: str) -> Sequence[StreamInput]:
        if not self._unoffered:
            return (ArgumentsAdded(text),)
        return (TextAdded(text),) if self._allows_text else ()

    def _end_call(self) -> Iterator[StreamInput]:
        if self._unoffered:
            self._unoffered = False
            return
        self.calling = None
        yield ToolCallEnded()
        self.done = not self._parallel
