"""The answer of one upstream to a job: requests that continue each other's tokens, under the job's grammar.

A stream runs on while the grammar allows its tokens. It is cut where it departs from the grammar: the token is chosen
anew among the allowed ones, by a request for one token with biases, and another stream continues from there. Certain
tokens are delivered at once; the stream goes on if it writes the same.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
import trio
from msgspec import Struct
from msgspec.structs import replace

from engine.constraint import GrammarError
from engine.job import Finished, FinishReason, Job, Token
from server.upstream.tokens.answer_tokens import AnswerTokens
from server.upstream.tokens.gate import bias
from server.upstream.tokens.masks import Masks
from server.upstream.tokens.outputs import AnswerOutputs
from server.upstream.tokens.parts import AnswerParts
from server.upstream.tokens.servers import AnswerPart, Continuation, TokenServer, continued, grammar_text
from server.upstream.transport import Attempt, OutputMismatch, UpstreamClient, UpstreamFault, faults

DRAIN_SECONDS = 1.0
"""Seconds for the numbers after the last token."""


class TokenUpstreams(Struct, frozen=True):
    """The upstreams, as they are asked for tokens."""

    model: str
    """Name at the upstreams."""
    n_vocab: int
    ends: Collection[int]
    servers: Mapping[str, TokenServer]
    """Kind of each upstream by its URL."""
    refused: frozenset[str] = frozenset()
    """Sampling fields that are not sent, by our names."""
    has_grammars: bool = False
    """True if each reads grammars in its syntax."""
    chooses: bool = True
    """True if the next token can be limited to some."""

    async def ask(self, client: UpstreamClient, job: Job, attempt: Attempt) -> None:
        """Ask one upstream. Raises UpstreamFault, OutputMismatch, trio.BrokenResourceError."""
        await TokenAnswer(self, client, job, attempt).run()


class TokenAnswer:
    def __init__(self, upstreams: TokenUpstreams, client: UpstreamClient, job: Job, attempt: Attempt) -> None:
        self._upstreams = upstreams
        self._client = client
        self._server = upstreams.servers[client.address.url]
        self._job = job
        self._attempt = attempt
        self._ends = frozenset(upstreams.ends)
        self._outputs = AnswerOutputs(attempt, len(job.prompt))
        self._tokens = AnswerTokens(job, upstreams.n_vocab, self._ends, self._outputs)
        self._masks = Masks(self._tokens.gate)
        self._grammar = ""
        """Grammar for a stream that begins the answer, in the server's syntax."""
        self._choice: list[int] = []
        """Tokens of the last choice."""
        self._streams = True
        """False for the rest of an answer whose stream has lost its last tokens."""

    async def run(self) -> None:
        try:
            await self._answer()
        except GrammarError as error:
            self._tokens.finished = Finished(FinishReason.GRAMMAR, str(error))
        assert self._tokens.finished is not None, "the answer has an end"
        await self._send()
        self._attempt.complete()
        await self._attempt.send(self._tokens.finished)

    @property
    def _is_finished(self) -> bool:
        return self._tokens.finished is not None

    async def _send(self) -> None:
        """Deliver the tokens so far."""
        await self._outputs.send(ends=self._is_finished)

    async def _answer(self) -> None:
        tokens = self._tokens
        if not self._job.max_tokens:  # a prompt to evaluate in advance
            async with self._asked(1, streams=False) as parts:
                await self._read_numbers(parts)
            tokens.finish(FinishReason.LENGTH)
            return
        if self._upstreams.has_grammars and (grammar := self._job.grammar) is not None:
            self._grammar = await trio.to_thread.run_sync(grammar_text, grammar, self._server.syntax)  # up to 0.1 s
        if self._grammar:
            await self._stream_by_grammar()
        tokens.force()
        while not self._is_finished:
            await (self._stream() if tokens.refused is None else self._choose(tokens.refused))

    async def _stream_by_grammar(self) -> None:
        """Read the answer of an upstream that has the grammar too. Its limits may be others, so that it refuses it."""
        self._tokens.by_grammar = True
        try:
            await self._stream()
        except UpstreamFault as fault:
            if self._outputs.upstream_writes or not fault.refuses:
                raise
        finally:
            self._grammar, self._tokens.by_grammar = "", False

    async def _stream(self) -> None:
        """Read a stream of tokens until it ends or departs from the grammar."""
        self._tokens.begin_stream()
        count, most = 0, self._tokens.left
        async with self._asked(most, self._streams) as parts:
            while (part := await parts.next()) is not None:
                count += len(part.tokens)
                await self._outputs.note(part)
                goes_on = await self._take_all(part.tokens)
                if goes_on and part.finish is not None and not self._is_finished:
                    await self._masks.prepare()
                    goes_on = self._end(part)
                await self._send()
                if count >= most or self._is_last(part):
                    await self._read_numbers(parts)
                    return
                if not goes_on or self._is_finished:
                    return

    def _is_last(self, part: AnswerPart) -> bool:
        """True if no token follows the part."""
        return part.finish is not None or not self._ends.isdisjoint(each.id for each in part.tokens)

    async def _read_numbers(self, parts: AnswerParts) -> None:
        """Read what follows the last token, so far as it is there soon."""
        with trio.move_on_after(DRAIN_SECONDS), suppress(UpstreamFault):
            while (part := await parts.next()) is not None:
                await self._outputs.note(part)
            await parts.drain()

    async def _take_all(self, tokens: Sequence[Token]) -> bool:
        """Take tokens of the stream. Return False if the stream cannot be continued, or is not to be."""
        for token in tokens:
            await self._masks.prepare()
            if not self._is_finished and not self._tokens.has(token.id):
                raise faults.malformed(self._client.address.url, f"the vocabulary has no token {token.id}")
            if not self._tokens.take(token):
                return False
            if self._grammar and not self._is_finished:
                await self._masks.prepare()
                if self._tokens.gate.end is not None:
                    return False  # its grammar would hide whether the model wants to end a complete answer
        return True

    def _end(self, part: AnswerPart) -> bool:
        """Take the last part of an answer. Return False if the answer must go on."""
        assert part.finish is not None, "it is the last part"
        if part.finish is FinishReason.LENGTH and part.lost and not self._tokens.is_ahead:
            self._streams = False
            return False
        return self._tokens.end(part.finish)

    async def _choose(self, allowed: list[int]) -> None:
        """Choose the next token among the allowed ones. Raises OutputMismatch if the upstream cannot."""
        tokens = self._tokens
        tokens.refused = None
        if self._ends.issuperset(allowed):
            tokens.finish(FinishReason.STOP)
            return
        if len(allowed) == 1 and self._job.top_logprobs is None:
            tokens.accept(Token(allowed[0], forced=True))
            tokens.force()
            return
        if not self._upstreams.chooses:
            raise OutputMismatch("The upstream's output does not match the grammar of the request.")
        # A stream is worth while if the choice is the same as the last time: in white space, or inside a string.
        most = tokens.left if allowed == self._choice and self._streams else 1
        self._choice = allowed
        begun = len(tokens.all)
        async with self._asked(most, most > 1, allowed) as parts:
            while (part := await parts.next()) is not None:
                goes_on = await self._take_chosen(part, begun)
                await self._send()
                if not goes_on:
                    return
            await parts.drain()

    async def _take_chosen(self, part: AnswerPart, begun: int) -> bool:
        """Take tokens of a choice that began at a length. Return False where the choice is another one.

        Raises OutputMismatch for a token that is not among the choice.
        """
        tokens = self._tokens
        for token in part.tokens:
            if self._is_finished or tokens.is_ahead:
                return False
            await self._masks.prepare()
            allows = tokens.has(token.id) and tokens.gate.allows(token.id)
            if len(tokens.all) > begun and tokens.gate.allowed != self._choice:
                return False
            if not allows:
                field = self._server.choice
                raise OutputMismatch(f"The upstream ignores `{field}`, and its output does not match the grammar.")
            tokens.take(token)
        self._end_choice(part)
        return not self._is_finished

    def _end_choice(self, part: AnswerPart) -> None:
        """Take the end of a choice's part. Raises OutputMismatch if the grammar forbids the end of the answer."""
        if part.lost:
            self._streams = False  # the next choice is one token, which is not streamed
        if not self._is_finished and part.finish is FinishReason.STOP and not self._end(part):
            raise OutputMismatch("The upstream ends its output where the grammar forbids that.")

    @asynccontextmanager
    async def _asked(self, max_tokens: int, streams: bool, allowed: Sequence[int] = ()) -> AsyncIterator[AnswerParts]:
        """Ask for the next tokens, and yield the parts of the answer. `allowed`: to choose from; all if empty."""
        address, job = self._client.address, self._job
        sampling = continued(job.sampling, self._tokens.answer, self._server.sampling)
        if allowed and self._server.choice == "logit_bias":
            biases = bias(allowed, self._upstreams.n_vocab, sampling.logit_bias)
            sampling, allowed = replace(sampling, logit_bias=biases), ()
        ends, grammar = sorted(self._ends), self._grammar
        asked = Continuation(self._tokens.all, max_tokens, sampling, job.top_logprobs, ends, grammar, allowed, streams)
        body = msgspec.json.encode(self._server.body(self._upstreams.model, asked, self._upstreams.refused))
        self._outputs.requests += 1
        async with self._client.request("POST", self._server.target(address), body) as answer:
            yield AnswerParts(address.url, answer, self._server.reader(address.url, asked))
