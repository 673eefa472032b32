"""`POST /v1/responses`: from the request to a generation, which the client then follows, waits for, or leaves alone."""

import time
from collections.abc import Sequence
from uuid import uuid4

import msgspec
from msgspec import UNSET, Raw, Struct
from msgspec.structs import replace

from engine.chat_template import ChatTemplate, Message
from engine.job import SamplingParams
from engine.runtime import Engine
from server.api import conversations
from server.api.references import References
from server.api.streaming import stream_events
from server.config import Config
from server.generation import Generation, Generations, GenerationSpec
from server.http import Bodies, ClientDisconnected, Exchange
from server.prompt import builder, stored_items
from server.protocol import formats, sse
from server.protocol import request as schema
from server.protocol.errors import ApiError, InvalidRequest, NotHeld, Unavailable
from server.protocol.events import ConversationReference, Reasoning, Response, TextConfig
from server.protocol.extensions import extended
from server.protocol.fields import skipped_fields
from server.protocol.formats import Format, PlainFormat
from server.protocol.request import Request
from server.served_model import UNCONSTRAINED, OutputConstraints, ServedModel
from server.store import AsyncStore, Missing
from server.stream import OutputProcessor, ToolCallMapper
from server.tools import NO_TOOLS, Toolbox

MOST_SKIPPED = 100
"""Skipped things that a response names; clients can make up any number of them."""

MOST_UNENFORCED = 100
"""Places in schemas that a response names."""


class ParsedRequest(Struct, frozen=True):
    request: Request
    """With what its references stand for."""
    messages: tuple[Message, ...]
    """All that was said up to it."""
    root: str | None
    """What all turns of its conversation have in common; None where it begins."""
    toolbox: Toolbox
    skipped: tuple[str, ...] = ()
    """Everything in it that has no effect."""


class ResponsesHandler:
    def __init__(
        self,
        config: Config,
        engine: Engine,
        models: ServedModel,
        bodies: Bodies,
        generations: Generations,
        archive: AsyncStore | None,
    ) -> None:
        self._config = config
        self._bodies = bodies
        self._engine = engine
        self._models = models
        self._generations = generations
        self._archive = archive
        self._references = References(archive, config.max_body_bytes)
        self._encode = sse.encoder(config.reasoning_events)

    async def create(self, exchange: Exchange) -> None:
        self._generations.check()
        asked = await self.asked(exchange)
        request = asked.request
        self._check_background(request)
        hold = await self._models.constraints(request.format, "text.format.schema", asked.toolbox, asked.messages)
        tokens = await self.tokens(request, asked.messages, asked.toolbox)
        codex = exchange.header(b"originator") or exchange.header(b"user-agent") or ""
        order = await self.order(
            request,
            tokens,
            exchange.client,
            asked.root,
            toolbox=asked.toolbox,
            hold=hold,
            repeats=codex.startswith("codex"),
        )
        order = replace(order, first=with_skipped(order.first, asked.skipped))
        with self._generations.make(order) as generation:
            if request.background:
                await self._leave_alone(exchange, generation, bool(request.stream))
            elif request.stream:
                await stream_events(exchange, generation, start=self._generations.start, encode=self._encode)
            else:
                response = await self.whole(exchange, generation)
                await exchange.answer(200, msgspec.json.encode(response))

    async def asked(self, exchange: Exchange) -> ParsedRequest:
        """Raises ApiError."""
        body = await self._bodies.read(exchange)
        request = schema.decode(body)
        fields = sorted(skipped_fields(body, schema.KNOWN))
        self.check_strict(fields)
        self._models.resolve(request.model)
        past, root = await self._before(request)
        request = await self._references.resolved(request, past)
        toolbox = builder.toolbox(request)
        conversation = builder.conversation(request, past, toolbox)
        skipped = (*fields, *builder.without_effect(request), *conversation.skipped, *toolbox.skipped)
        exchange.skipped = skipped
        return ParsedRequest(request, conversation.messages, root, toolbox, tuple(dict.fromkeys(skipped)))

    def check_strict(self, fields: Sequence[str]) -> None:
        """Raises InvalidRequest for an unknown field on a server with --strict-fields."""
        if fields and self._config.strict_fields:
            raise InvalidRequest(f"`{fields[0]}` is no field of this request (--strict-fields).", param=fields[0])

    async def tokens(
        self, request: Request, messages: Sequence[Message], toolbox: Toolbox = NO_TOOLS, least_bytes: int = 0
    ) -> list[int]:
        """What is evaluated. `least_bytes`: see `ServedModel.render`. Raises InvalidRequest."""
        most = builder.most(request, self._models.served.info.n_ctx)
        variables = builder.template_variables(request)
        return await self._models.tokens(messages, most, builder.effort(request), toolbox.tools, least_bytes, variables)

    async def _leave_alone(self, exchange: Exchange, generation: Generation, streamed: bool) -> None:
        if not await generation.begin():
            raise Unavailable("A background response has to be stored, and that is not possible now.")
        first = generation.response
        self._generations.start(generation)
        if streamed:
            await stream_events(exchange, generation, encode=self._encode)
        else:
            await exchange.answer(200, msgspec.json.encode(first))

    async def whole(self, exchange: Exchange, generation: Generation) -> Response:
        """The stream, folded. Raises HungUp, and ApiError where it failed."""
        with generation.reading():
            async with exchange.until_hang_up():
                self._generations.start(generation)
                await generation.ended.wait()
        if not generation.ended.is_set():
            exchange.outcome = "cancelled"
            raise ClientDisconnected
        exchange.outcome = generation.response.status
        if generation.error is not None:
            raise generation.error
        if (error := generation.response.error) is not None:
            raise (NotHeld if error.code == NotHeld.code else ApiError)(error.message)
        return generation.response

    async def order(
        self,
        request: Request,
        tokens: list[int],
        client: str,
        root: str | None = None,
        name: str = "input",
        toolbox: Toolbox = NO_TOOLS,
        hold: OutputConstraints = UNCONSTRAINED,
        repeats: bool = False,
        plain_text: bool = False,
    ) -> GenerationSpec:
        """`root`: see Asked; `tokens` came of the field `name`; `repeats`: see Order; `plain_text`: whether the answer
        is nothing but text, whatever the model's family reads in it.

        Raises InvalidRequest.
        """
        served = self._models.served
        sampling = builder.sampling(request, self._config.sampling)
        builder.check_bias(sampling, served.info.n_vocab)
        job = builder.job(request, tokens, sampling, served.info.n_ctx, name)
        grammar = await self._models.grammar(hold, tokens, builder.effort(request), job.max_tokens)
        first = self._first(request, sampling, toolbox.in_effect(hold.loose))
        if hold.unenforced:
            first = replace(first, responsed=extended(first.responsed, unenforced=hold.unenforced[:MOST_UNENFORCED]))
        return GenerationSpec(
            first=first,
            job=replace(
                job,
                client=client,
                affinity=root or builder.affinity(request, client) or first.id,
                savable=first.store or self._config.snapshot_unstored,
                grammar=grammar,
            ),
            answer=OutputProcessor(
                served.vocabulary,
                len(tokens),
                builder.stops(request),
                None if plain_text else _interpreter(served.template, tokens, toolbox, request.format),
            ),
            items=stored_items.kept(request.input or (), first.id) if first.store or first.conversation else b"[]",
            streamed=bool(request.stream),
            tells_progress=bool(request.return_progress),
            repeats=repeats,
        )

    def _first(self, request: Request, sampling: SamplingParams, toolbox: Toolbox) -> Response:
        return Response(
            id=f"resp_{uuid4().hex}",
            created_at=int(time.time()),
            frequency_penalty=sampling.frequency_penalty,
            status="queued" if request.background or self._engine.full else "in_progress",
            background=bool(request.background),
            conversation=ConversationReference(name) if (name := request.conversation_id) is not None else UNSET,
            model=request.model or self._models.served.name,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            max_tool_calls=request.max_tool_calls,
            metadata=request.metadata or {},
            parallel_tool_calls=request.parallel_tool_calls is not False,
            presence_penalty=sampling.presence_penalty,
            previous_response_id=request.previous_response_id,
            prompt_cache_key=request.prompt_cache_key,
            reasoning=Reasoning(self._models.holding.effort(builder.effort(request)), builder.summary(request)),
            safety_identifier=request.safety_identifier,
            store=self._archive is not None and request.store is not False,
            temperature=sampling.temperature,
            text=TextConfig(formats.in_effect(request.format), (request.text and request.text.verbosity) or UNSET),
            tool_choice=toolbox.choice,
            tools=toolbox.echo,
            top_logprobs=request.top_logprobs or 0,
            top_p=sampling.top_p,
            truncation=request.truncation or "disabled",
            user=request.user or UNSET,
        )

    def _check_background(self, request: Request) -> None:
        """Raises InvalidRequest, Unavailable."""
        if not request.background:
            return
        if self._archive is None and self._config.store != "off":
            raise Unavailable("A background response has to be stored, and the store could not be opened: see the log.")
        if self._archive is None:
            raise InvalidRequest(
                "A background response has to be stored, and this server stores none (--store).", param="background"
            )
        if request.store is False:
            raise InvalidRequest("A background response has to be stored: leave `store` out.", param="background")

    async def _before(self, request: Request) -> tuple[list[Raw], str | None]:
        """The items that come before the input, and what names all of that conversation. Raises InvalidRequest,
        NotFound."""
        if (conversation := request.conversation_id) is None:
            return await self._past(request.previous_response_id)
        if request.previous_response_id is not None:
            raise InvalidRequest(
                "Either `conversation` or `previous_response_id` says what came before, not both.", param="conversation"
            )
        return await conversations.said(self._archive, conversation), conversation

    async def _past(self, previous: str | None) -> tuple[list[Raw], str | None]:
        """The items of all responses up to that one, and the id of the first. Raises InvalidRequest."""
        if previous is None:
            return [], None
        if self._archive is None:
            raise InvalidRequest(
                "This server stores no responses (--store): send the whole conversation as `input`.",
                param="previous_response_id",
            )
        if self._generations.stored(previous) is not None:
            raise InvalidRequest(f"Response {previous!r} is still being made.", param="previous_response_id")
        try:
            chain = await self._archive.chain(previous, time.monotonic())
        except Missing as error:
            raise _gone(error.id) from error
        if chain[-1].unfinished:  # see Kept
            raise _gone(previous)
        return [
            item for stored in chain for item in stored_items.conversation_items(stored.items, stored.response)
        ], chain[0].id


def with_skipped(response: Response, skipped: Sequence[str]) -> Response:
    if not skipped:
        return response
    return replace(response, responsed=extended(response.responsed, skipped=tuple(skipped[:MOST_SKIPPED])))


def _interpreter(template: ChatTemplate, tokens: list[int], toolbox: Toolbox, wanted: Format) -> ToolCallMapper | None:
    formatted = not (isinstance(wanted, PlainFormat) or toolbox.must_call)
    parser = template.parser(tokens, toolbox.offered, bare=not formatted)
    return (
        None
        if parser is None
        else ToolCallMapper(parser, template.marks, toolbox.calls, toolbox.parallel, speaks=not toolbox.must_call)
    )


def _gone(response_id: str) -> InvalidRequest:
    message = f"There is no response {response_id!r} here (any more)."
    return InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
