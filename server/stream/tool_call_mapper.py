"""What a model utters -> cues: with its calls by the names that the client has for them. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from engine.dialects import Parser
from engine.notations import Arguments as Argued
from engine.notations import CallBegun, CallEnded, Reasoned, Said, Utterance
from server.stream.inputs import Arguments, Called, Calling, Cue, Reasoning, Text


class Interpreter:
    def __init__(
        self,
        parser: Parser,
        marks: Mapping[int, str],
        calls: Mapping[str, Calling] | None = None,
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
        self.calling: Calling | None = None
        """The call that is open."""
        self.satisfied = False
        """Whether nothing more is wanted: the one call is made."""

    @property
    def thinking(self) -> bool:
        return self._parser.thinking

    def mark_of(self, token: int) -> str | None:
        return self._marks.get(token)

    def feed(self, text: str) -> list[Cue]:
        return list(self._cues(self._parser.feed(text)))

    def finish(self, cut: bool) -> list[Cue]:
        """The rest. Where the answer was `cut`, a call that its end finds open stays so: it is not whole. One whose
        very name was cut is none."""
        rest = self._parser.finish(cut)
        if cut and rest and isinstance(rest[-1], CallEnded):
            last = max((n for n, each in enumerate(rest) if isinstance(each, CallBegun)), default=-1)
            begun = rest[last] if last >= 0 else None
            rest = rest[:last] if isinstance(begun, CallBegun) and begun.name not in (self._calls or {}) else rest[:-1]
        return list(self._cues(rest))

    def _cues(self, utterances: Iterable[Utterance]) -> Iterator[Cue]:
        for utterance in utterances:
            if self.satisfied:
                return
            match utterance:
                case Said(text):
                    if self._speaks:
                        yield Text(text)
                case Reasoned(text):
                    yield Reasoning(text)
                case CallBegun(name) if self._calls is not None and name not in self._calls:
                    self._unoffered = True
                case CallBegun(name):
                    self.calling = (self._calls or {}).get(name) or Calling(name)
                    yield self.calling
                case Argued(text) if self._unoffered:
                    if self._speaks:
                        yield Text(text)
                case Argued(text):
                    yield Arguments(text)
                case CallEnded() if self._unoffered:
                    self._unoffered = False
                case CallEnded():
                    self.calling = None
                    yield Called()
                    self.satisfied = not self._parallel
