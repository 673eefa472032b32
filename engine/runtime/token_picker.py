"""Pick one job's tokens from the logits of a step: sampled under the job's grammar, or forced by it.

A forced token is certain: the grammar allows no other text. It takes no draw of the job's seed, and is delivered before
it is evaluated ("jump-forward decoding", SGLang), unless the job asks for logprobs: then it needs the row before it.
Forced tokens depend on the tokens before them only, so that equal seeds give equal answers whatever else runs.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence

from engine.constraint import Constraint
from engine.job import Job, Token
from engine.model import FloatArray
from engine.sampling import Sampler


class TokenPicker:
    """The sampler and the constraint of one job."""

    def __init__(self, job: Job, end_tokens: Collection[int]) -> None:
        """Raises GrammarError."""
        self._sampler = Sampler(job.sampling, job.prompt, job.top_logprobs)
        self.constraint: Constraint | None = None if job.grammar is None else job.grammar.start()
        self._end_tokens = end_tokens
        self._remaining_tokens = job.max_tokens
        """Number of tokens that may still be sampled or forced."""
        self._awaits_logprobs = job.top_logprobs is not None
        self._forced: deque[int] = deque()
        """Forced tokens that are accepted and not returned yet."""
        self._force()

    def pick(self, logits: Callable[[int], FloatArray], draft: Sequence[int]) -> tuple[list[Token], Sequence[int]]:
        """Return a token for each row of logits, up to the first that differs from its draft token, and the forced
        tokens after these. Raises GrammarError.

        If the job asks for logprobs, later calls return the forced tokens again, each with its row's logprobs.
        """
        tokens: list[Token] = []
        for row, draft_token in enumerate((*draft, None)):
            tokens.append(self._next(logits(row)))
            if tokens[-1].id != draft_token:
                break
        forced = tuple(self._forced)
        if not self._awaits_logprobs:
            self._forced.clear()
        return tokens, forced

    def _next(self, logits: FloatArray) -> Token:
        raw_logits = self._sampler.raw_logits(logits)
        is_forced = bool(self._forced)
        token = self._forced.popleft() if is_forced else self._sample(logits)
        return Token(token, self._sampler.logprobs(raw_logits, token), is_forced)

    def _sample(self, logits: FloatArray) -> int:
        if self.constraint is not None:
            self.constraint.apply_mask(logits)
        token = self._sampler.pick(logits)
        self._remaining_tokens -= 1
        if self.constraint is not None:
            self.constraint.accept(token)
            if token not in self._end_tokens:
                self._force()
        return token

    def _force(self) -> None:
        """Accept all tokens that are certain to follow, at most as many as the job has left."""
        while self.constraint is not None and self._remaining_tokens > 0 and (forced := self.constraint.forced()):
            for token in forced:
                self.constraint.accept(token)
                self._sampler.record(token)
                self._forced.append(token)
                self._remaining_tokens -= 1
                if token in self._end_tokens or self._remaining_tokens <= 0:
                    return
