"""One answer as it comes: the engine's pieces -> bytes -> text -> cues. Pure."""

from collections.abc import Sequence

from engine import Finish, Piece, Progress, Reason, Started, TextDecoder, Token, Vocabulary
from server.cues import Cue, End, Text, failure
from server.errors import ApiError
from server.events import InputTokensDetails, OutputTokensDetails, PromptProgress, Usage
from server.interpreter import Interpreter


class Answer:
    """Makes cues of pieces, and counts what was used."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_tokens: int,
        stops: Sequence[str],
        interpreter: Interpreter | None = None,
    ) -> None:
        """Without an interpreter it is nothing but text."""
        self._vocabulary = vocabulary
        self._interpreter = interpreter
        self._reasoned = 0
        self._decoder = TextDecoder(stops)
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
            case Token(id_):
                self.produced += 1
                return self._token(id_, now)
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
            output_tokens_details=OutputTokensDetails(self._reasoned),
            total_tokens=self._prompt_tokens + self.produced,
        )

    def _token(self, id_: int, now: int) -> list[Cue]:
        interpreter = self._interpreter
        if interpreter is None:
            cues = self._told(self._decoder.feed(self._vocabulary.bytes_of(id_)))
        else:
            thought = interpreter.thinking
            if mark := interpreter.mark_of(id_):
                cues = self._told(self._decoder.mark(mark))
            else:
                cues = self._told(self._decoder.feed(self._vocabulary.bytes_of(id_)))
            # The markers around it are reasoning too: they are paid for, and shown nowhere.
            self._reasoned += thought or interpreter.thinking
        over = self._decoder.stopped or (interpreter is not None and interpreter.satisfied)
        return [*cues, *self._end(now, None)] if over else cues

    def _told(self, text: str) -> list[Cue]:
        if self._interpreter is None:
            return [Text(text)] if text else []
        return self._interpreter.feed(text)

    def _end(self, now: int, incomplete: str | None) -> list[Cue]:
        self.ended = True
        rest = self._told(self._decoder.flush())
        if self._interpreter is not None:
            rest += self._interpreter.finish(cut=incomplete is not None)
        return [*rest, End(now, self.usage, incomplete)]
