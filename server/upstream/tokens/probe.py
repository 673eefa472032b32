"""Probe of an upstream that is to continue tokens: whether its tokens are ours, and which fields it refuses or ignores.

A field that decides which token comes is ignored for certain if another token comes.
"""

from collections.abc import Sequence, Set
from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from engine.grammar.ebnf import ebnf
from engine.job import SamplingParams, Token
from engine.tokenizer import Vocabulary
from server.upstream.tokens.gate import FULL_BIAS
from server.upstream.tokens.llamacpp import LlamaCppServer
from server.upstream.tokens.parts import AnswerParts
from server.upstream.tokens.servers import NEUTRAL, Continuation, Syntax, TokenServer
from server.upstream.tokens.sglang import SglangServer
from server.upstream.tokens.vllm import VllmServer
from server.upstream.transport import MissingFields, UpstreamClient, UpstreamFault, faults

PROBE_SECONDS = 120.0
"""Seconds for all requests to one upstream. Fields that are left then count as present."""
TEXT = "The capital of France is Paris. The capital of Italy is"
UNLIKELY = "Z"
JSON_TEXT = '"Q"'
GRAMMAR = f'start: T0? r1\nT0: /(?:\\n{{1,2}})/\nr1: %lark {{\nstart: %json {{"const": {JSON_TEXT}}}\n}}'
COMPARED = 4
"""Tokens that must be equal where a field decides them."""
GREEDY = replace(NEUTRAL, temperature=0.0)
WILD = replace(NEUTRAL, temperature=2.0)
HARMLESS = SamplingParams(
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    min_p=0.05,
    seed=7,
    presence_penalty=0.1,
    frequency_penalty=0.1,
    repeat_penalty=1.05,
    repeat_last_n=16,
    logit_bias={5: -1.0},
)
"""Values that every server with the field accepts."""
DECISIVE: dict[str, Any] = {"top_k": 1, "min_p": 1.0, "top_p": 1e-6}
"""Values with which the most likely token comes at any temperature."""


def kind_of(owned_by: str, vocabulary: Vocabulary, grammar_backend: str = "") -> TokenServer:
    """Return the kind of a server by the owner of its model; vLLM's for an unknown one.

    `grammar_backend`: SGLang's reader of grammars; empty if it is unknown.
    """
    sglang = SglangServer(grammar_backend)
    kinds: dict[str, TokenServer] = {"llamacpp": LlamaCppServer(vocabulary), "sglang": sglang}
    return kinds.get(owned_by) or VllmServer()


class TokenProbe:
    def __init__(
        self,
        client: UpstreamClient,
        server: TokenServer,
        model: str,
        vocabulary: Vocabulary,
        unsafe: Set[str] = frozenset(),
    ) -> None:
        """`unsafe`: sampling fields that are not tried, and count as refused."""
        self._client = client
        self._server = server
        self._model = model
        self._vocabulary = vocabulary
        self._prompt = vocabulary.encode_prompt(TEXT)
        self._refused = set(unsafe)
        self._ignored = set(HARMLESS.__struct_fields__).difference(server.sampling)

    async def run(self) -> MissingFields:
        """Return what the upstream lacks. Raises UpstreamFault if it cannot continue our tokens."""
        with trio.move_on_after(PROBE_SECONDS):
            greedy = await self._greedy()
            await self._probe_harmless()
            await self._probe_decisive([each.id for each in greedy[:COMPARED]])
            await self._probe_choice()
            await self._probe_logprobs()
            await self._probe_grammar()
        return MissingFields(frozenset(self._refused), frozenset(self._ignored))

    async def _greedy(self) -> Sequence[Token]:
        """Return the most likely tokens. Raises UpstreamFault if their text is another one in our vocabulary."""
        tokens, theirs = await self._answer(8, GREEDY)
        url = self._client.address.url
        if not tokens:
            raise faults.malformed(url, "it returns no tokens")
        ours, theirs = (text.strip("\ufffd \n") for text in (self._text(tokens), theirs))
        if theirs and not (ours.startswith(theirs) or theirs.startswith(ours)):
            raise faults.malformed(
                url, f"its tokens are not those of --tokenizer: it writes {theirs!r} where the file has {ours!r}"
            )
        return tokens

    async def _probe_harmless(self) -> None:
        """Send all fields at once, and one after the other only if that is refused."""
        if await self._ask(1, HARMLESS) is not None:
            return
        for name in self._server.sampling.keys() - self._refused:
            if await self._ask(1, replace(GREEDY, **{name: getattr(HARMLESS, name)})) is None:
                self._refused.add(name)

    async def _probe_decisive(self, greedy: Sequence[int]) -> None:
        for name, value in DECISIVE.items():
            if name not in self._refused and await self._ids(replace(WILD, **{name: value})) != greedy:
                self._ignored.add(name)
        if "seed" not in self._refused:
            one, other = [await self._ids(replace(WILD, seed=7)) for _ in range(2)]
            if one != other:
                self._ignored.add("seed")

    async def _probe_choice(self) -> None:
        """Have an unlikely token chosen, by its bias and by the server's own field."""
        id_ = self._vocabulary.encode(UNLIKELY)[-1]
        if "logit_bias" not in self._refused:
            chosen = await self._ask(1, replace(GREEDY, logit_bias={id_: FULL_BIAS}))
            if not _begins_with(id_, chosen):
                self._ignored.add("logit_bias")
        if self._server.choice != "logit_bias":
            chosen = await self._ask(1, GREEDY, allowed=[id_])
            if not _begins_with(id_, chosen):
                (self._refused if chosen is None else self._ignored).add(self._server.choice)

    async def _probe_logprobs(self) -> None:
        likely = await self._ask(1, GREEDY, top_logprobs=1)
        if likely is None:
            self._refused.add("logprobs")
        elif likely and likely[0].id not in self._vocabulary.end_tokens and likely[0].logprobs is None:
            self._ignored.add("logprobs")

    async def _probe_grammar(self) -> None:
        """Try a grammar as those of answers: a regex, and a grammar with a schema in it."""
        if self._server.syntax is Syntax.NONE:
            self._refused.add("grammar")
            return
        grammar = ebnf(GRAMMAR, self._vocabulary.name_of) if self._server.syntax is Syntax.EBNF else GRAMMAR
        written = await self._ask(len(JSON_TEXT) + 2, GREEDY, grammar=grammar)
        if self._text(written or ()).lstrip("\n") != JSON_TEXT:
            (self._refused if written is None else self._ignored).add("grammar")

    def _text(self, tokens: Sequence[Token]) -> str:
        """Return the text of tokens in our vocabulary. Raises UpstreamFault for a token that it does not have.

        The other answers are compared by ids only, whatever they are: at a high temperature, a model may choose one of
        the ids with which it pads its vocabulary.
        """
        unknown = next((each.id for each in tokens if not 0 <= each.id < len(self._vocabulary)), None)
        if unknown is not None:
            cause = f"it returns the token {unknown}, which the file of --tokenizer does not have"
            raise faults.malformed(self._client.address.url, cause)
        return b"".join(self._vocabulary.bytes_of(each.id) for each in tokens).decode(errors="replace")

    async def _ids(self, sampling: SamplingParams) -> list[int]:
        return [each.id for each in await self._ask(COMPARED, sampling) or ()]

    async def _ask(self, max_tokens: int, sampling: SamplingParams, **fields: Any) -> list[Token] | None:
        """Return the tokens of an answer; None if the request is refused."""
        try:
            return (await self._answer(max_tokens, sampling, **fields))[0]
        except UpstreamFault as fault:
            if not fault.refuses:
                raise
            return None

    async def _answer(self, max_tokens: int, sampling: SamplingParams, **fields: Any) -> tuple[list[Token], str]:
        """Return the tokens of an answer and their text. `fields`: others of a `Continuation`."""
        address, ends = self._client.address, sorted(self._vocabulary.end_tokens)
        asked = Continuation(self._prompt, max_tokens, sampling, ends=ends, streams=max_tokens > COMPARED, **fields)
        body = msgspec.json.encode(self._server.body(self._model, asked, frozenset(self._refused)))
        tokens: list[Token] = []
        text = ""
        async with self._client.request("POST", self._server.target(address), body) as answer:
            parts = AnswerParts(address.url, answer, self._server.reader(address.url, asked))
            while (part := await parts.next()) is not None:
                tokens += part.tokens
                text += part.text
            await parts.drain()
        return tokens, text


def _begins_with(id_: int, tokens: Sequence[Token] | None) -> bool:
    """True if an answer was not refused, and begins with the token."""
    return tokens is not None and [each.id for each in tokens[:1]] == [id_]
