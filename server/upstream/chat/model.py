"""The model of upstream servers, asked by chat completions: it has messages where the embedded model has tokens.

Numbers of tokens are estimates, so that nothing is refused for its length unless that is certain: the upstream decides.
"""

from collections.abc import Collection, Sequence
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.chat_template import Message
from engine.job import SamplingParams
from server.config import LiveConfig
from server.prompt import PreparedRequest, compaction, jobs, truncation, volatile
from server.prompt_comparison import Compared
from server.protocol.errors import InvalidRequest
from server.protocol.formats import PlainFormat
from server.served_model import UNCONSTRAINED, JobParams, ModelCard, OutputConstraints, check_name
from server.store import AsyncStore
from server.tools import NO_TOOLS, GrammarInput, Toolbox
from server.upstream.chat import output_checks
from server.upstream.chat.body import chat_fields
from server.upstream.chat.job import ChatJob, ChatProcessor
from server.upstream.transport import faults
from server.work_thread import WorkThread

OPENAI_DEFAULTS = SamplingParams(temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, repeat_penalty=1.0)
"""Settings to echo for a request that has none: the upstream applies its own."""
BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 6
"""Tokens around a message."""


class UpstreamModel(Struct, frozen=True, kw_only=True):
    """Facts about the model, as its server gave them."""

    name: str
    """Name at the upstream."""
    created: int
    n_ctx: int
    n_slots: int
    refused: frozenset[str] = frozenset()
    """Fields that an upstream refuses, so that they are not sent."""
    ignored: frozenset[str] = frozenset()
    """Fields that have no effect at an upstream."""
    front: str = ""
    """Name of this server in a chain of fronts."""

    def open(self, config: LiveConfig, store: AsyncStore | None, work: WorkThread) -> "ChatModel":
        return ChatModel(self, config, work)


class ChatModel:
    def __init__(self, upstream: UpstreamModel, config: LiveConfig, work: WorkThread) -> None:
        self.card = ModelCard(
            name=upstream.name,
            created=upstream.created,
            engine="upstream",
            n_ctx=upstream.n_ctx,
            n_slots=upstream.n_slots,
            n_vocab=0,
            sampling=OPENAI_DEFAULTS,
            reasons=True,
            lacking=tuple(sorted(upstream.refused | upstream.ignored)),
        )
        self.aliases: Collection[str] = config.now.aliases
        self._upstream = upstream
        self._config = config
        self._work = work
        self._volatile = volatile.patterns(config.now.volatile)

    def check_name(self, name: str | None) -> None:
        check_name(name, self.card.name, self.aliases)

    def effort(self, effort: str | None) -> str | None:
        return effort

    async def constraints(self, prepared: PreparedRequest) -> OutputConstraints:
        """Return the constraints, which are verified in the upstream's output.

        Raises InvalidRequest for schemas that cannot be verified, and for grammars in Lark, which chat completions
        cannot express.
        """
        request, toolbox = prepared.request, prepared.toolbox
        if isinstance(request.format, PlainFormat) and not toolbox.specs:
            return UNCONSTRAINED
        for spec in toolbox.specs:
            if isinstance(spec.input, GrammarInput) and spec.input.syntax == "lark":
                raise InvalidRequest(
                    f"The Lark grammar in `{spec.place}` cannot be enforced by an upstream: leave it out.",
                    param=spec.place,
                )
        size = output_checks.constraints_bytes(request.format, toolbox)
        return await self._work.run(size, output_checks.constraints, request, prepared.schema_field, toolbox)

    async def prompt(self, prepared: PreparedRequest, counts_only: bool = False) -> "ChatPrompt":
        limit = self._config.now.max_prompt_tokens
        messages: Sequence[Message] = volatile.moved(prepared.messages, self._volatile)
        most = jobs.max_prompt_tokens(prepared.request, self.card.n_ctx, limit)
        if most is not None:
            messages = truncation.fit_last_turns(messages, partial(Estimate, prepared.toolbox), most).messages
        prompt = ChatPrompt(self._upstream, self._work, messages, prepared.toolbox)
        if limit and not counts_only:
            jobs.refuse_more(len(prompt), max(self.card.n_ctx, len(prompt)), prepared.field, limit)
        return prompt

    async def text_prompt(self, text: str | Sequence[int]) -> "ChatPrompt":
        raise InvalidRequest(
            "This server asks an upstream by chat completions, which cannot continue a plain text: send messages to "
            "/v1/chat/completions.",
            param="prompt",
        )

    async def summary_prompt(
        self, messages: Sequence[Message], prepared: PreparedRequest | None = None
    ) -> tuple[int, "ChatPrompt"]:
        toolbox = NO_TOOLS if prepared is None else prepared.toolbox
        n_ctx = self.card.n_ctx
        count, _ = compaction.next_part(messages, partial(Estimate, toolbox), n_ctx, n_ctx * BYTES_PER_TOKEN)
        asked = compaction.with_summary_prompt(messages[:count])
        return count, ChatPrompt(self._upstream, self._work, volatile.moved(asked, self._volatile), toolbox)

    def forget(self, deleted_id: str, affinity: str | None) -> None:
        """Do nothing: prompts are not compared."""


class ChatPrompt:
    def __init__(
        self, upstream: UpstreamModel, work: WorkThread, messages: Sequence[Message], toolbox: Toolbox
    ) -> None:
        self._upstream = upstream
        self._work = work
        self._messages = messages
        self._tokens = estimated_tokens(messages, toolbox)

    def __len__(self) -> int:
        return self._tokens

    async def job(self, params: JobParams) -> ChatJob:
        """Return the job. Its limit of tokens goes to the upstream if the prompt surely leaves room for them.

        Otherwise the upstream would refuse the request instead of using the room that there is. Raises InvalidRequest,
        and UpstreamError for a request that has passed here before.
        """
        self._check(params)
        request = params.request
        most = params.limit or self._upstream.n_ctx
        limit = min(request.max_output_tokens or most, most)
        sent = limit if request.max_output_tokens or 2 * self._tokens + limit <= self._upstream.n_ctx else None
        return ChatJob(
            body=await self._work.run(self._tokens * BYTES_PER_TOKEN, self._body, params, sent),
            max_tokens=0 if request.prewarms else limit,
            lane=params.lane,
            affinity=params.affinity,
            fronts=params.fronts,
            calls=params.toolbox.calls,
            parallel=params.toolbox.parallel,
            checks=output_checks.checks_of(params.constraints),
        )

    def _body(self, params: JobParams, max_tokens: int | None) -> bytes:
        fields = chat_fields(self._upstream.name, self._messages, params, max_tokens)
        return msgspec.json.encode({key: each for key, each in fields.items() if key not in self._upstream.refused})

    def _check(self, params: JobParams) -> None:
        if self._upstream.front in params.fronts:
            raise faults.looped()
        if "tools" in self._upstream.refused and params.toolbox.specs:
            raise InvalidRequest("The upstream has no tools: leave `tools` out, or use another one.", param="tools")

    def lacking(self, params: JobParams) -> tuple[str, ...]:
        names = self._upstream.refused | self._upstream.ignored
        if not names:
            return ()
        one = replace(params, toolbox=replace(params.toolbox, specs=params.toolbox.specs[:1]))  # has all fields of many
        return tuple(sorted(chat_fields(self._upstream.name, (), one, None).keys() & names))

    def processor(self, prepared: PreparedRequest, stops: Sequence[str]) -> ChatProcessor:
        return ChatProcessor(self._tokens)

    async def compare(self, prepared: PreparedRequest, response_id: str, client: str, group: str) -> Compared:
        return Compared()


class Estimate:
    """A prompt whose tokens are unknown, of about that length."""

    def __init__(self, toolbox: Toolbox, messages: Sequence[Message]) -> None:
        self.messages = messages
        self._length = estimated_tokens(messages, toolbox)

    def __len__(self) -> int:
        return self._length


def estimated_tokens(messages: Sequence[Message], toolbox: Toolbox) -> int:
    """Return about the number of tokens that a prompt has."""
    size = sum(truncation.message_bytes(message) for message in messages)
    size += sum(len(tool.description) + len(tool.parameters) for tool in toolbox.tools)
    return size // BYTES_PER_TOKEN + MESSAGE_TOKENS * (len(messages) + len(toolbox.tools))
