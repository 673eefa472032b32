"""Tokens of one answer under its grammar: the written ones, those that are certain to follow, and the end. Pure."""

from collections import deque
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from engine.job import Finished, FinishReason, Job, Token
from server.upstream.tokens.gate import TokenGate
from server.upstream.tokens.outputs import AnswerOutputs


class AnswerTokens:
    def __init__(self, job: Job, n_vocab: int, ends: Collection[int], outputs: AnswerOutputs) -> None:
        """`ends`: tokens that end the answer. `outputs` gets each token."""
        self._job = job
        self._n_vocab = n_vocab
        self._ends = frozenset(ends)
        self._outputs = outputs
        self.gate = TokenGate(job.grammar, n_vocab, self._ends)
        self.all = list(job.prompt)
        """Prompt and answer so far."""
        self._ahead: deque[int] = deque()
        """Tokens that were certain before the stream has written them."""
        self.refused: list[int] | None = None
        """Tokens to choose from, after one that the grammar forbids."""
        self.by_grammar = False
        """True while the upstream writes under the grammar too."""
        self.finished: Finished | None = None

    @property
    def answer(self) -> Sequence[int]:
        return self.all[len(self._job.prompt) :]

    @property
    def left(self) -> int:
        """Number of tokens that the answer may still have."""
        return self._job.max_tokens - (len(self.all) - len(self._job.prompt))

    @property
    def is_ahead(self) -> bool:
        """True if the stream has not written all tokens yet."""
        return bool(self._ahead)

    def has(self, token: int) -> bool:
        """True if the vocabulary has the token."""
        return 0 <= token < self._n_vocab

    def begin_stream(self) -> None:
        """Begin another stream after all tokens so far."""
        self._ahead.clear()

    def take(self, token: Token) -> bool:
        """Take a token of the stream. Return False if the stream cannot be continued. Raises GrammarError."""
        if self.finished is not None:
            return True
        if self._ahead:
            self._outputs.upstream_writes = True
            return token.id == self._ahead.popleft()
        if not self.gate.allows(token.id):
            self.refused = self.gate.allowed
            return False
        self._outputs.upstream_writes = True
        if token.id in self._ends:
            self.finish(FinishReason.STOP)
        else:
            self.accept(token)
            self.force()
        return True

    def end(self, reason: FinishReason) -> bool:
        """Take the end of a stream. Return False if the answer must go on. Raises GrammarError."""
        if self._ahead:
            return False
        if reason is FinishReason.STOP and self.gate.end is None:
            self.refused = self.gate.allowed
            return False
        self.finish(reason)
        return True

    def accept(self, token: Token) -> None:
        """Add a token that the grammar allows. Raises GrammarError."""
        self.gate.accept(token.id)
        self.all.append(token.id)
        self._outputs.add(self._with_known_likely(token))
        if not self.left:
            self.finish(FinishReason.LENGTH)

    def _with_known_likely(self, token: Token) -> Token:
        """Return a token without the likely ones that have no text: an upstream may pad its vocabulary with ids."""
        logprobs = token.logprobs
        if logprobs is None or all(self.has(id_) for id_, _ in logprobs.top):
            return token
        return replace(token, logprobs=replace(logprobs, top=tuple(each for each in logprobs.top if self.has(each[0]))))

    def force(self) -> None:
        """Accept the tokens that are certain to follow. With logprobs, or by the same grammar, the upstream chooses."""
        if self._job.top_logprobs is not None or self.by_grammar or self.refused is not None:
            return
        while self.finished is None and (forced := self.gate.forced()):
            for id_ in forced:
                if self.finished is None and id_ in self._ends:
                    self.finish(FinishReason.STOP)
                elif self.finished is None:
                    self.accept(Token(id_, forced=True))
                    self._ahead.append(id_)

    def finish(self, reason: FinishReason) -> None:
        self.finished = Finished(reason)
