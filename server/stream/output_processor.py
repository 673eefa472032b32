"""One answer as it comes: the engine's pieces -> bytes -> text -> cues. Pure."""

from collections.abc import Iterable, Sequence

from engine.job import EngineOutput, Finished, FinishReason, Progress, Started, Token
from engine.tokenizer import Detokenizer, StopStrings, Vocabulary
from server.protocol.errors import ApiError, NotHeld
from server.protocol.events import InputTokensDetails, Logprob, OutputTokensDetails, PromptProgress, Usage
from server.stream.inputs import End, ReasoningAdded, StreamInput, TextAdded, failure
from server.stream.logprobs import PendingLogprobs
from server.stream.tool_call_mapper import ToolCallMapper


class OutputProcessor:
    """Makes cues of pieces, and counts what was used."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_tokens: int,
        stops: Sequence[str],
        interpreter: ToolCallMapper | None = None,
    ) -> None:
        """Without an interpreter it is nothing but text."""
        self._vocabulary = vocabulary
        self._decoder = Detokenizer()
        self._stops = StopStrings(stops)
        self._kind: type[TextAdded] | type[ReasoningAdded] = TextAdded
        """Kind of text that the stop strings are looked for in. None lies across two kinds."""
        self._ledger = PendingLogprobs(vocabulary)
        self._shown = 0
        self._interpreter = interpreter
        self._reasoned = 0
        self._waiting: tuple[Logprob, ...] = ()
        """Of tokens whose text is with the interpreter."""
        self._prompt_tokens = prompt_tokens
        self._cached = 0
        self._evaluated = 0
        self.started = False
        """Whether the engine is at work on it."""
        self.ended = False
        self.produced = 0
        """Tokens the model has given so far, an end token included."""

    def process(self, piece: EngineOutput, now: int) -> list[StreamInput]:
        """The cues that `piece` brings; `now` in seconds. After the end there are none: a stop string may
        come while the next token is on its way."""
        if self.ended:
            return []
        match piece:
            case Started(cached):
                self.started = True
                self._cached = self._evaluated = cached
                return []
            case Progress(evaluated):
                self._evaluated = evaluated
                return []
            case Token():
                self.produced += 1
                return self._token(piece, now)
            case Finished(FinishReason.FAILED, message):
                self.ended = True
                return [failure(ApiError(message), self._usage_so_far)]
            case Finished(FinishReason.GRAMMAR, message):
                self.ended = True
                return [failure(NotHeld(f"{self._told} cannot be held any longer: {message}."), self._usage_so_far)]
            case Finished(reason):
                self.produced += reason is FinishReason.STOP
                return self._end(now, "max_output_tokens" if reason is FinishReason.LENGTH else None)

    @property
    def _usage_so_far(self) -> Usage | None:
        return self.usage if self.started else None

    @property
    def _told(self) -> str:
        """What was being written."""
        calling = None if self._interpreter is None else self._interpreter.calling
        return "The answer" if calling is None else f"The call of the tool `{calling.name}`"

    @property
    def progress(self) -> PromptProgress | None:
        """How much of the prompt is read; None while it waits for a slot."""
        return PromptProgress(self._prompt_tokens, self._cached, self._evaluated) if self.started else None

    @property
    def usage(self) -> Usage:
        return Usage(
            input_tokens=self._prompt_tokens,
            input_tokens_details=InputTokensDetails(self._cached, self._prompt_tokens - self._cached),
            output_tokens=self.produced,
            output_tokens_details=OutputTokensDetails(self._reasoned),
            total_tokens=self._prompt_tokens + self.produced,
        )

    def _token(self, token: Token, now: int) -> list[StreamInput]:
        self._ledger.add(self._decoder.decoded, token)
        interpreter = self._interpreter
        if interpreter is None:
            cues = self._said(self._stops.feed(self._decoder.feed(self._vocabulary.bytes_of(token.id))))
        else:
            thought = interpreter.thinking
            mark = interpreter.mark_of(token.id)
            cues = self._interpreted(
                self._decoder.insert_marker(mark) if mark else self._decoder.feed(self._vocabulary.bytes_of(token.id))
            )
            # The markers around it are reasoning too: they are paid for, and shown nowhere.
            if thought or interpreter.thinking:
                self._reasoned += 1
                self._waiting = ()
        over = self._stops.matched is not None or (interpreter is not None and interpreter.satisfied)
        return [*cues, *self._end(now, None)] if over else cues

    def _said(self, text: str) -> list[StreamInput]:
        if not text:
            return []
        return [TextAdded(text, self._likely(text))]

    def _likely(self, text: str) -> tuple[Logprob, ...]:
        begin, self._shown = self._shown, self._shown + len(text)
        return self._ledger.between(begin, self._shown)

    def _interpreted(self, text: str) -> list[StreamInput]:
        assert self._interpreter is not None
        self._waiting += self._likely(text)
        return self._before_stop(self._interpreter.feed(text))

    def _before_stop(self, cues: Iterable[StreamInput]) -> list[StreamInput]:
        """The cues up to a stop string. Only text and reasoning have any: calls and the markers around them don't."""
        found: list[StreamInput] = []
        for cue in cues:
            if self._stops.matched is not None:
                break
            if isinstance(cue, TextAdded | ReasoningAdded):
                if type(cue) is not self._kind:
                    found += self._flushed()
                    self._kind = type(cue)
                found += self._certain(self._stops.feed(cue.text))
            else:
                found += [*self._flushed(), cue]
                self._waiting = ()
        return found

    def _flushed(self) -> list[StreamInput]:
        return self._certain(self._stops.flush())

    def _certain(self, text: str) -> list[StreamInput]:
        if not text:
            return []
        if self._kind is ReasoningAdded:
            self._waiting = ()
            return [ReasoningAdded(text)]
        return [TextAdded(text, self._likelihoods(len(text)))]

    def _likelihoods(self, characters: int) -> tuple[Logprob, ...]:
        """Return those waiting whose text begins in the next `characters`; all, where no text is held back."""
        waiting, self._waiting = self._waiting, ()
        if not self._stops.pending and self._stops.matched is None:
            return waiting
        count = covered = 0
        while count < len(waiting) and covered < characters:
            covered += len(bytes(waiting[count].bytes).decode(errors="ignore"))
            count += 1
        self._waiting = waiting[count:]
        return waiting[:count]

    def _rest(self, cut: bool) -> list[StreamInput]:
        if self._interpreter is None:
            return self._said(self._stops.flush())
        return [*self._before_stop(self._interpreter.finish(cut)), *self._flushed()]

    def _end(self, now: int, incomplete: str | None) -> list[StreamInput]:
        self.ended = True
        rest: list[StreamInput] = []
        if self._stops.matched is None:  # the text behind a stop string is no part of the answer
            rest = self._rest(cut=incomplete is not None)
        matched = self._stops.matched
        return [*rest, End(now, self.usage, incomplete if matched is None else None, matched)]
