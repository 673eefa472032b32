"""Reader of one streamed chat completion: chunks -> inputs of the stream machine. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from server.protocol.output_items import MIN_LOGPROB, Logprob, TopLogprob
from server.stream import (
    ArgumentsAdded,
    ReasoningAdded,
    StreamInput,
    TextAdded,
    ToolCallEnded,
    ToolCallStarted,
)
from server.upstream.chat.calls import CallOrder
from server.upstream.chat.chunks import (
    AddedCall,
    AddedDelta,
    AddedFunction,
    LikelyToken,
    ReadChoice,
    ReportedUsage,
    WrittenToken,
    decode_chunk,
)
from server.upstream.chat.output_checks import OutputChecks, RunningChecks
from server.upstream.transport import BROKEN_OFF, DONE, EventData, EventTooLong, OutputMismatch, faults, shallow

MAX_DELTAS = 1 << 30
"""More deltas than any answer has."""
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""`finish_reason` -> `incomplete_details.reason`."""
TOKEN_CHARACTERS = 1024
"""More characters than any token has."""
MIN_TOKENS = 64
"""Tokens whose text may always come, also if it is none of the model, such as llama-swap's progress."""
MAX_ANSWER_BYTES = 64 << 20
"""Bytes of a stream at most: 4,096 tokens with 20 logprobs each have 12 MB."""


class ChatReader:
    """The answer of one attempt."""

    def __init__(
        self,
        url: str,
        calls: Mapping[str, ToolCallStarted],
        parallel: bool,
        checks: OutputChecks,
        max_deltas: int = MAX_DELTAS,
    ) -> None:
        """`url`: of the upstream, for errors. `calls`: start of a call by the names of the offered functions.

        `max_deltas`: deltas after which the answer is cut, since it has more tokens than the request allows.
        """
        self._url = url
        self._calls = calls
        self._parallel = parallel
        self._max_deltas = max_deltas
        self._checks = RunningChecks(checks)
        self._events = EventData()
        self._bytes = 0
        self._characters = 0
        """Characters of text, reasoning and arguments so far."""
        self._order = CallOrder()
        self._has_arguments = False
        self.deltas = 0
        """Number of deltas with text, reasoning or a call: at least one token each."""
        self.reasoning_deltas = 0
        self.finish_reason: str | None = None
        self.stop: str | None = None
        """Stop string that ended the output, if the upstream names it."""
        self.usage: ReportedUsage | None = None
        self.done = False
        """True if nothing more is needed of the stream."""
        self.ended_early = False
        """True if the upstream would write more tokens or calls than the request allows."""

    @property
    def incomplete(self) -> str | None:
        """Reason for which the answer is incomplete."""
        return INCOMPLETE.get(self.finish_reason or "")

    def feed(self, data: bytes) -> list[StreamInput]:
        """Return the inputs that some bytes of the body contain. Raises UpstreamFault, OutputMismatch."""
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER_BYTES:
            raise faults.malformed(self._url, f"its answer has more than {MAX_ANSWER_BYTES} bytes")
        try:
            return [input_ for event in self._events.feed(data) for input_ in self._event(event)]
        except EventTooLong as error:
            raise faults.malformed(self._url, "an event of its stream is too long") from error

    def finish(self) -> list[StreamInput]:
        """Return the inputs at the end of the body. Raises UpstreamFault if the answer is not complete."""
        if self.finish_reason is None and not self.done:
            raise faults.cut(self._url, "no finish_reason")
        inputs = list(self._end_call())
        if self.incomplete is None and self.stop is None:
            self._checks.end()
        self.done = True
        return inputs

    def _event(self, data: bytes) -> Iterator[StreamInput]:
        if self.done:
            return
        if data.strip() == DONE:
            yield from self.finish()
            return
        try:
            chunk = decode_chunk(shallow(data))
        except faults.DECODING_ERRORS as error:
            raise faults.malformed(self._url, f"an event is not a chunk of a chat completion ({error})") from error
        if chunk.fault is not None:
            raise faults.failed(self._url, chunk.fault)
        self.usage = chunk.usage or self.usage
        if chunk.choice is not None:
            yield from self._choice(chunk.choice)

    def _choice(self, choice: ReadChoice) -> Iterator[StreamInput]:
        if self.finish_reason is not None or self.done:
            return
        delta = choice.delta
        if delta is not None and self.deltas >= self._max_deltas and _has_content(delta):
            self.finish_reason = "length"
            self.done = self.ended_early = True
            yield from self._end_call()
        elif delta is not None:
            yield from self._delta(delta, choice)
        if choice.finish_reason and not self.ended_early:
            self._finish(choice, choice.finish_reason)

    def _finish(self, choice: ReadChoice, reason: str) -> None:
        if reason in BROKEN_OFF:
            raise faults.cut(self._url, f"finish_reason {reason!r}")
        self.finish_reason = reason
        self.stop = choice.stop_reason if isinstance(choice.stop_reason, str) else None

    def _delta(self, delta: AddedDelta, choice: ReadChoice) -> Iterator[StreamInput]:
        if delta.function_call is not None:
            raise faults.malformed(self._url, "it calls by `function_call` instead of `tool_calls`")
        if reasoning := delta.reasoning_content or delta.reasoning:
            self.deltas += 1
            self.reasoning_deltas += 1
            self._count(reasoning)
            yield from self._end_call()
            yield ReasoningAdded(reasoning)
        if text := delta.content or delta.refusal:
            self.deltas += 1
            self._count(text)
            yield from self._end_call()
            self._checks.text(text)
            if not self._checks.drops_text:
                yield TextAdded(text, _logprobs(choice))
        for call in delta.tool_calls or ():
            self.deltas += 1
            yield from self._call_delta(call)

    def _count(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > TOKEN_CHARACTERS * max(self._max_deltas, MIN_TOKENS):
            raise faults.malformed(self._url, f"{self._max_deltas} tokens have no {self._characters} characters")

    def _call_delta(self, delta: AddedCall) -> Iterator[StreamInput]:
        function = delta.function or AddedFunction()
        if self._order.begins(delta):
            yield from self._next_call(delta, function.name or "")
        elif not self._order.continues(delta):
            if function.arguments:
                raise faults.malformed(self._url, "it continues a call that has ended")
            return
        if function.arguments and not self.ended_early:
            self._has_arguments = True
            self._count(function.arguments)
            self._checks.arguments(function.arguments)
            yield ArgumentsAdded(function.arguments)

    def _next_call(self, delta: AddedCall, name: str) -> Iterator[StreamInput]:
        """End the call before, and begin the next one if the request permits several."""
        if self._order.has_calls and not self._parallel:
            yield from self._end_call()
            self.done = self.ended_early = True
            return
        if not name:
            raise faults.malformed(self._url, "a call has no name")
        if (call := self._calls.get(name)) is None:
            raise OutputMismatch(f"The upstream's model calls {name[:100]!r}, which the request does not offer.")
        yield from self._end_call()
        self._order.begin(delta)
        self._has_arguments = False
        self._checks.begin_call(name)
        yield call

    def _end_call(self) -> Iterator[StreamInput]:
        if not self._order.open:
            return
        self._order.open = False
        if not self._has_arguments:
            self._checks.arguments("{}")
            yield ArgumentsAdded("{}")
        if self.finish_reason != "length":
            self._checks.end_call()
            yield ToolCallEnded()


def _has_content(delta: AddedDelta) -> bool:
    return bool(delta.content or delta.refusal or delta.reasoning or delta.reasoning_content or delta.tool_calls)


def _logprobs(choice: ReadChoice) -> tuple[Logprob, ...]:
    tokens: Sequence[WrittenToken] = (choice.logprobs and choice.logprobs.content) or ()
    return tuple(
        Logprob(each.token, max(each.logprob, MIN_LOGPROB), _bytes(each), tuple(map(_top, each.top_logprobs or ())))
        for each in tokens
    )


def _top(token: LikelyToken) -> TopLogprob:
    return TopLogprob(token.token, max(token.logprob, MIN_LOGPROB), _bytes(token))


def _bytes(token: LikelyToken) -> tuple[int, ...]:
    return tuple(token.token.encode() if token.bytes is None else token.bytes)
