"""How likely the model thought each token, as clients are told it, and with which text. Pure."""

from collections import deque

from engine.job import Token
from engine.tokenizer import Vocabulary
from server.protocol.events import Logprob, TopLogprob

LEAST = -9999.0
"""What OpenAI says in place of minus infinity, which JSON has not."""


class PendingLogprobs:
    """Which tokens the parts of a text are of.

    A token is told once, with the part in which its text begins. So none is lost where text is held back, and those
    are left out that bring no text, or of which nothing is shown: a stop string's, and half a character at the end.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._waiting: deque[tuple[int, Token]] = deque()

    def add(self, start: int, token: Token) -> None:
        """`start`: how many characters are decoded before it. Who didn't ask for likelihoods has none."""
        if token.logprobs is not None and self._vocabulary.bytes_of(token.id):
            self._waiting.append((start, token))

    def between(self, start: int, end: int) -> tuple[Logprob, ...]:
        """Those of the characters from `start` to `end`. What is before has not been shown, and never will be."""
        found: list[Logprob] = []
        while self._waiting and self._waiting[0][0] < end:
            begins, token = self._waiting.popleft()
            if begins >= start:
                found.append(logprob(token, self._vocabulary))
        return tuple(found)


def logprob(token: Token, vocabulary: Vocabulary) -> Logprob:
    """Of a token that has its likelihood."""
    assert token.logprobs is not None, "it was asked for"
    text, data = _told(token.id, vocabulary)
    top = (TopLogprob(*_one(id_, number, vocabulary)) for id_, number in token.logprobs.top)
    return Logprob(text, max(token.logprobs.logprob, LEAST), data, tuple(top))


def _one(id_: int, number: float, vocabulary: Vocabulary) -> tuple[str, float, tuple[int, ...]]:
    text, data = _told(id_, vocabulary)
    return text, max(number, LEAST), data


def _told(id_: int, vocabulary: Vocabulary) -> tuple[str, tuple[int, ...]]:
    """A token's text and bytes. Control tokens have a name and no bytes; what is no whole characters is escaped, as
    OpenAI does it: `bytes:\\xe2\\x80`."""
    data = vocabulary.bytes_of(id_)
    try:
        text = data.decode() or vocabulary.name_of(id_).encode(errors="replace").decode()
    except UnicodeDecodeError:
        text = "bytes:" + data.decode("ascii", errors="backslashreplace")
    return text, tuple(data)
