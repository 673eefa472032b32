"""Outputs of an answer for its job: tokens, and the numbers of the prompt by the first request."""

from engine.job import Progress, Started, Token
from server.upstream.tokens.servers import AnswerPart
from server.upstream.transport import Attempt


class AnswerOutputs:
    def __init__(self, attempt: Attempt, prompt_tokens: int) -> None:
        self._attempt = attempt
        self._prompt_tokens = prompt_tokens
        self._tokens: list[Token] = []
        """Tokens to deliver once the upstream has written one, so that another can be asked until then."""
        self.upstream_writes = False
        """True once the upstream has written a token."""
        self.requests = 0

    def add(self, token: Token) -> None:
        self._tokens.append(token)

    async def note(self, part: AnswerPart) -> None:
        """Pass on the numbers of the first request, whose prompt is that of the job."""
        if self.requests > 1:
            return
        if part.cached is not None:
            await self._attempt.send(Started(min(max(part.cached, 0), self._prompt_tokens)))
        if part.evaluated is not None:
            await self._attempt.send(Progress(min(max(part.evaluated, 0), self._prompt_tokens)))

    async def send(self, ends: bool) -> None:
        """Deliver the tokens if the upstream has written one, or if the answer ends."""
        if not self.upstream_writes and not ends:
            return
        if self._tokens:
            await self._attempt.begin()
        for token in self._tokens:
            await self._attempt.send(token)
        self._tokens.clear()
