"""What a model utters -> cues: with its calls by the names that the client has for them. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from engine.dialects import Parser
from engine.notations import ParsedDelta, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart
from engine.notations import ToolCallArguments as Argued
from server.stream.inputs import ArgumentsAdded, ReasoningAdded, StreamInput, TextAdded, ToolCallEnded, ToolCallStarted


class ToolCallMapper:
    def __init__(
        self,
        parser: Parser,
        marks: Mapping[int, str],
        calls: Mapping[str, ToolCallStarted] | None = None,
        parallel: bool = True,
        speaks: bool = True,
    ) -> None:
        """`marks`: what the parser wants to have for control tokens; `calls`: what each function that the model
        knows is to the client (None: any name is a function); `parallel`: whether an answer may have more than one
        call; `speaks`: whether it may have text. If not, what looks like it is a call's beginning that was cut."""
        self._parser = parser
        self._marks = marks
        self._calls = calls
        self._unoffered = False
        """True within a call of a function that the request doesn't offer: its arguments are text."""
        self._parallel = parallel
        self._speaks = speaks
        self.calling: ToolCallStarted | None = None
        """The call that is open."""
        self.satisfied = False
        """Whether nothing more is wanted: the one call is made."""

    @property
    def thinking(self) -> bool:
        return self._parser.thinking

    def mark_of(self, token: int) -> str | None:
        return self._marks.get(token)

    def feed(self, text: str) -> list[StreamInput]:
        return list(self._cues(self._parser.feed(text)))

    def finish(self, cut: bool) -> list[StreamInput]:
        """The rest. Where the answer was `cut`, a call that its end finds open stays so: it is not whole. One whose
        very name was cut is none."""
        rest = self._parser.finish(cut)
        if cut and rest and isinstance(rest[-1], ToolCallEnd):
            last = max((n for n, each in enumerate(rest) if isinstance(each, ToolCallStart)), default=-1)
            begun = rest[last] if last >= 0 else None
            rest = (
                rest[:last] if isinstance(begun, ToolCallStart) and begun.name not in (self._calls or {}) else rest[:-1]
            )
        return list(self._cues(rest))

    def _cues(self, utterances: Iterable[ParsedDelta]) -> Iterator[StreamInput]:
        for utterance in utterances:
            if self.satisfied:
                return
            match utterance:
                case TextDelta(text):
                    if self._speaks:
                        yield TextAdded(text)
                case ReasoningDelta(text):
                    yield ReasoningAdded(text)
                case ToolCallStart(name) if self._calls is not None and name not in self._calls:
                    self._unoffered = True
                case ToolCallStart(name):
                    self.calling = (self._calls or {}).get(name) or ToolCallStarted(name)
                    yield self.calling
                case Argued(text) if self._unoffered:
                    if self._speaks:
                        yield TextAdded(text)
                case Argued(text):
                    yield ArgumentsAdded(text)
                case ToolCallEnd() if self._unoffered:
                    self._unoffered = False
                case ToolCallEnd():
                    self.calling = None
                    yield ToolCallEnded()
                    self.satisfied = not self._parallel
