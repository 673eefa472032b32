"""Output of one generation: engine outputs -> bytes -> text -> stream inputs. Pure."""

from collections.abc import Iterable, Sequence

from engine.job import EngineOutput, Finished, FinishReason, Progress, Started, StepTimes, Token
from engine.tokenizer import Detokenizer, StopStrings, Vocabulary
from server.postprocessing.logprobs import PendingLogprobs
from server.postprocessing.processor import UpstreamTrace
from server.postprocessing.tool_call_mapper import ToolCallMapper
from server.protocol.errors import ApiError, GrammarMismatch
from server.protocol.events import PromptProgress
from server.protocol.output_items import Logprob
from server.protocol.response import Usage, counted_usage
from server.stream import End, ReasoningAdded, StreamInput, TextAdded, failure


class OutputProcessor:
    """Converter of engine outputs to stream inputs, with a count of the usage."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_tokens: int,
        stops: Sequence[str],
        mapper: ToolCallMapper | None = None,
    ) -> None:
        """Without a mapper the output is text only."""
        self._vocabulary = vocabulary
        self._decoder = Detokenizer()
        self._stops = StopStrings(stops)
        self._kind: type[TextAdded] | type[ReasoningAdded] = TextAdded
        """Kind of text that the stop strings see; a stop string cannot span text and reasoning."""
        self._logprobs = PendingLogprobs(vocabulary)
        self._shown = 0
        self._mapper = mapper
        self._reasoned = self._forced = 0
        self._pending: tuple[Logprob, ...] = ()
        """Logprobs of tokens whose text the mapper has not returned yet."""
        self._prompt_tokens = prompt_tokens
        self._cached = 0
        self._evaluated = 0
        self.upstream: UpstreamTrace | None = None
        self.started = False
        """True once the engine has started."""
        self.ended = False
        self.output_tokens = 0
        """Number of generated tokens, including an end token."""

    def process(self, output: EngineOutput, now: int) -> list[StreamInput]:
        """Return the stream inputs for an engine output; `now` is in seconds.

        Ignore outputs after the end: a stop string may match while the next token is in flight.
        """
        if self.ended:
            return []
        match output:
            case Token():
                self.output_tokens += 1
                self._forced += output.forced
                return self._token(output, now)
            case Started(cached):
                self.started = True
                self._cached = self._evaluated = cached
            case Progress(evaluated):
                self._evaluated = evaluated
            case StepTimes():
                pass
            case Finished():
                return self._finish(output, now)
        return []

    def _finish(self, output: Finished, now: int) -> list[StreamInput]:
        match output.reason:
            case FinishReason.FAILED:
                return self._fail(ApiError(output.message))
            case FinishReason.GRAMMAR:
                message = f"{self._subject} no longer matches its grammar: {output.message}."
                return self._fail(GrammarMismatch(message))
            case FinishReason.LENGTH if not self.output_tokens:  # the job was to generate nothing
                self.ended = True
                return [End(now, self.usage)]
        self.output_tokens += output.reason is FinishReason.STOP
        return self._end(now, "max_output_tokens" if output.reason is FinishReason.LENGTH else None)

    def _fail(self, error: ApiError) -> list[StreamInput]:
        self.ended = True
        return [failure(error, self._usage_so_far)]

    @property
    def _usage_so_far(self) -> Usage | None:
        return self.usage if self.started else None

    @property
    def _subject(self) -> str:
        """Subject of the error: the open call or the output."""
        calling = None if self._mapper is None else self._mapper.calling
        return "The model's output" if calling is None else f"The call of the tool `{calling.name}`"

    @property
    def progress(self) -> PromptProgress | None:
        """Progress of the prompt; None while the response waits for a slot."""
        return PromptProgress(self._prompt_tokens, self._cached, self._evaluated) if self.started else None

    @property
    def pending_prompt_tokens(self) -> int:
        """Number of prompt tokens that are not evaluated."""
        return 0 if self.output_tokens else self._prompt_tokens - self._evaluated

    @property
    def usage(self) -> Usage:
        return counted_usage(self._prompt_tokens, self._cached, self.output_tokens, self._reasoned, self._forced)

    def cut(self, now: int, reason: str) -> list[StreamInput]:
        """End the output before its end, for `reason`."""
        return self._end(now, reason)

    def _token(self, token: Token, now: int) -> list[StreamInput]:
        self._logprobs.add(self._decoder.decoded, token)
        mapper = self._mapper
        if mapper is None:
            inputs = self._text(self._stops.feed(self._decoder.feed(self._vocabulary.bytes_of(token.id))))
        else:
            was_reasoning = mapper.thinking
            marker = mapper.marker_of(token.id)
            inputs = self._mapped(
                self._decoder.insert_marker(marker)
                if marker
                else self._decoder.feed(self._vocabulary.bytes_of(token.id))
            )
            # The markers around reasoning count as reasoning tokens, although they are not shown.
            if was_reasoning or mapper.thinking:
                self._reasoned += 1
                self._pending = ()
        ended = self._stops.matched is not None or (mapper is not None and mapper.done)
        return [*inputs, *self._end(now, None)] if ended else inputs

    def _text(self, text: str) -> list[StreamInput]:
        if not text:
            return []
        return [TextAdded(text, self._logprobs_of(text))]

    def _logprobs_of(self, text: str) -> tuple[Logprob, ...]:
        begin, self._shown = self._shown, self._shown + len(text)
        return self._logprobs.between(begin, self._shown)

    def _mapped(self, text: str) -> list[StreamInput]:
        assert self._mapper is not None
        self._pending += self._logprobs_of(text)
        return self._before_stop(self._mapper.feed(text))

    def _before_stop(self, inputs: Iterable[StreamInput]) -> list[StreamInput]:
        """Return the inputs up to a stop string. Stop strings match text and reasoning, but no calls and no markers."""
        found: list[StreamInput] = []
        for input_ in inputs:
            if self._stops.matched is not None:
                break
            if isinstance(input_, TextAdded | ReasoningAdded):
                if type(input_) is not self._kind:
                    found += self._flushed()
                    self._kind = type(input_)
                found += self._emitted(self._stops.feed(input_.text))
            else:
                found += [*self._flushed(), input_]
                self._pending = ()
        return found

    def _flushed(self) -> list[StreamInput]:
        return self._emitted(self._stops.flush())

    def _emitted(self, text: str) -> list[StreamInput]:
        if not text:
            return []
        if self._kind is ReasoningAdded:
            self._pending = ()
            return [ReasoningAdded(text)]
        return [TextAdded(text, self._take_logprobs(len(text)))]

    def _take_logprobs(self, characters: int) -> tuple[Logprob, ...]:
        """Remove and return the pending logprobs of the next `characters`; all of them if no text is pending."""
        pending, self._pending = self._pending, ()
        if not self._stops.pending and self._stops.matched is None:
            return pending
        count = covered = 0
        while count < len(pending) and covered < characters:
            covered += len(bytes(pending[count].bytes).decode(errors="ignore"))
            count += 1
        self._pending = pending[count:]
        return pending[:count]

    def _rest(self, cut: bool) -> list[StreamInput]:
        if self._mapper is None:
            return self._text(self._stops.flush())
        return [*self._before_stop(self._mapper.finish(cut)), *self._flushed()]

    def _end(self, now: int, incomplete: str | None) -> list[StreamInput]:
        self.ended = True
        rest: list[StreamInput] = []
        if self._stops.matched is None:  # text after a stop string is not part of the output
            rest = self._rest(cut=incomplete is not None)
        matched = self._stops.matched
        return [*rest, End(now, self.usage, incomplete if matched is None else None, matched)]
