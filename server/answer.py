"""One answer as it comes: the engine's pieces -> bytes -> text -> events. Pure."""

from collections.abc import Sequence

from engine import Finish, Piece, Progress, Reason, Started, TextDecoder, Token, Vocabulary
from server.errors import ApiError
from server.events import Event, InputTokensDetails, OutputTokensDetails, Usage
from server.stream import Stream


class Answer:
    """Feeds a Stream from pieces, and counts what was used."""

    def __init__(self, stream: Stream, vocabulary: Vocabulary, prompt_tokens: int, stops: Sequence[str]) -> None:
        self._stream = stream
        self._vocabulary = vocabulary
        self._decoder = TextDecoder(stops)
        self._prompt_tokens = prompt_tokens
        self._cached = 0
        self.produced = 0
        """Tokens the model has given so far, an end token included."""

    @property
    def ended(self) -> bool:
        return self._stream.closed

    def take(self, piece: Piece, now: int) -> list[Event]:
        """The events that `piece` brings; `now` in seconds. After the end there are none: a stop string may
        come while the next token is on its way."""
        if self.ended:
            return []
        match piece:
            case Started(cached):
                self._cached = cached
                return []
            case Progress():
                return []
            case Token(id_):
                self.produced += 1
                return self._text(self._vocabulary.bytes_of(id_), now)
            case Finish(Reason.FAILED, message):
                return self._stream.fail(ApiError(message))
            case Finish(reason):
                self.produced += reason is Reason.STOP
                return self._end(now, "max_output_tokens" if reason is Reason.LENGTH else None)

    def fail(self, error: ApiError) -> list[Event]:
        return self._stream.fail(error)

    def _text(self, data: bytes, now: int) -> list[Event]:
        text = self._decoder.feed(data)
        events = self._stream.feed(text) if text else []
        return [*events, *self._end(now, None)] if self._decoder.stopped else events

    def _end(self, now: int, incomplete: str | None) -> list[Event]:
        rest = self._decoder.flush()
        events = self._stream.feed(rest) if rest else []
        return [*events, *self._stream.finish(now, self._usage(), incomplete)]

    def _usage(self) -> Usage:
        return Usage(
            input_tokens=self._prompt_tokens,
            input_tokens_details=InputTokensDetails(self._cached, self._prompt_tokens - self._cached),
            output_tokens=self.produced,
            output_tokens_details=OutputTokensDetails(0),
            total_tokens=self._prompt_tokens + self.produced,
        )
