"""One answer as it comes: the engine's pieces -> bytes -> text -> cues. Pure."""

from collections.abc import Sequence

from engine import Finish, Piece, Progress, Reason, Started, TextDecoder, Token, Vocabulary
from server.cues import Cue, End, Text, failure
from server.errors import ApiError
from server.events import InputTokensDetails, OutputTokensDetails, PromptProgress, Usage
from server.logprobs import Ledger


class Answer:
    """Makes cues of pieces, and counts what was used."""

    def __init__(self, vocabulary: Vocabulary, prompt_tokens: int, stops: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        self._decoder = TextDecoder(stops)
        self._ledger = Ledger(vocabulary)
        self._shown = 0
        self._prompt_tokens = prompt_tokens
        self._cached = 0
        self._evaluated = 0
        self.started = False
        """Whether the engine is at work on it."""
        self.ended = False
        self.produced = 0
        """Tokens the model has given so far, an end token included."""

    def take(self, piece: Piece, now: int) -> list[Cue]:
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
                return self._text(piece, now)
            case Finish(Reason.FAILED, message):
                self.ended = True
                return [failure(ApiError(message))]
            case Finish(reason):
                self.produced += reason is Reason.STOP
                return self._end(now, "max_output_tokens" if reason is Reason.LENGTH else None)

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
            output_tokens_details=OutputTokensDetails(0),
            total_tokens=self._prompt_tokens + self.produced,
        )

    def _text(self, token: Token, now: int) -> list[Cue]:
        self._ledger.add(self._decoder.decoded, token)
        cues = self._said(self._decoder.feed(self._vocabulary.bytes_of(token.id)))
        return [*cues, *self._end(now, None)] if self._decoder.stopped else cues

    def _said(self, text: str) -> list[Cue]:
        if not text:
            return []
        begin, self._shown = self._shown, self._shown + len(text)
        return [Text(text, self._ledger.between(begin, self._shown))]

    def _end(self, now: int, incomplete: str | None) -> list[Cue]:
        self.ended = True
        return [*self._said(self._decoder.flush()), End(now, self.usage, incomplete)]
