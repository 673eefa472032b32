"""Logprobs in the form of the API, and their assignment to parts of the text. Pure."""

from collections import deque

from engine.job import Token
from engine.tokenizer import Vocabulary
from server.protocol.output_items import MIN_LOGPROB, Logprob, TopLogprob


class PendingLogprobs:
    """Logprobs of tokens whose text has not been emitted yet.

    A token belongs to the part in which its text begins. So pending text loses no token, and tokens without emitted
    text are left out: those of a stop string, and half a character at the end.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._waiting: deque[tuple[int, Token]] = deque()

    def add(self, start: int, token: Token) -> None:
        """Add a token that begins at the character `start`. Ignore tokens without logprobs or text."""
        if token.logprobs is not None and self._vocabulary.bytes_of(token.id):
            self._waiting.append((start, token))

    def between(self, start: int, end: int) -> tuple[Logprob, ...]:
        """Remove and return the logprobs of the characters from `start` to `end`; discard earlier ones."""
        found: list[Logprob] = []
        while self._waiting and self._waiting[0][0] < end:
            begins, token = self._waiting.popleft()
            if begins >= start:
                found.append(logprob(token, self._vocabulary))
        return tuple(found)


def logprob(token: Token, vocabulary: Vocabulary) -> Logprob:
    """Return the logprob of a token that has one."""
    assert token.logprobs is not None, "the token has logprobs"
    text, data = _text_and_bytes(token.id, vocabulary)
    top = (TopLogprob(*_top(id_, number, vocabulary)) for id_, number in token.logprobs.top)
    return Logprob(text, max(token.logprobs.logprob, MIN_LOGPROB), data, tuple(top))


def _top(id_: int, number: float, vocabulary: Vocabulary) -> tuple[str, float, tuple[int, ...]]:
    text, data = _text_and_bytes(id_, vocabulary)
    return text, max(number, MIN_LOGPROB), data


def _text_and_bytes(id_: int, vocabulary: Vocabulary) -> tuple[str, tuple[int, ...]]:
    """Return a token's text and bytes.

    Control tokens have a name and no bytes. Incomplete characters are escaped like OpenAI's: `bytes:\\xe2\\x80`.
    """
    data = vocabulary.bytes_of(id_)
    try:
        text = data.decode() or vocabulary.name_of(id_).encode(errors="replace").decode()
    except UnicodeDecodeError:
        text = "bytes:" + data.decode("ascii", errors="backslashreplace")
    return text, tuple(data)
