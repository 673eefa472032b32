"""`POST /v1/responses`: from the request to a generation, which the client then follows, waits for, or leaves alone."""

import logging
import time
from collections.abc import Iterable
from uuid import uuid4

import msgspec
from msgspec import Raw

from engine import ChatTemplate, Engine, Sampling
from server import items, prompt, schema, sse, tools
from server.answer import Answer
from server.archive import Archive
from server.config import Config
from server.entries import Missing
from server.errors import ApiError, InvalidRequest, Unavailable
from server.events import Reasoning, Response
from server.exchange import Exchange, HungUp
from server.follow import follow
from server.generation import STOPPING, Generation, Order
from server.generations import Generations
from server.interpreter import Interpreter
from server.models import Models
from server.schema import Request
from server.tools import NO_TOOLS, Toolbox

MOST_NOTICED = 1000
"""Kinds of skipped things that are remembered; clients can make up any number of them."""

log = logging.getLogger("responsed.http")


class Responses:
    def __init__(
        self, config: Config, engine: Engine, models: Models, generations: Generations, archive: Archive | None
    ) -> None:
        self._config = config
        self._engine = engine
        self._models = models
        self._generations = generations
        self._archive = archive
        self._noticed: set[str] = set()
        self._encode = sse.encoder(config.reasoning_events)

    async def create(self, exchange: Exchange) -> None:
        if not self._engine.running:
            raise Unavailable(STOPPING)
        body = await exchange.body(self._config.max_body_bytes, self._config.body_gap_seconds)
        request = schema.decode(body)
        self._models.resolve(request.model)
        self._check_background(request)
        past = await self._past(request.previous_response_id)
        conversation = prompt.conversation(request, past)
        toolbox = tools.toolbox(request.tools or (), request.tool_choice, request.parallel_tool_calls is not False)
        unknown = (f"field {name}" for name in schema.unknown_fields(body))
        self.notice([*unknown, *conversation.skipped, *toolbox.skipped])
        tokens = await self._models.tokens(conversation.messages, prompt.effort(request), toolbox.tools)
        generation = self._generations.make(self.order(request, tokens, toolbox))
        if request.background:
            await self._leave_alone(exchange, generation, bool(request.stream))
        elif request.stream:
            await follow(exchange, generation, start=self._generations.start, encode=self._encode)
        else:
            response = await self.whole(exchange, generation)
            await exchange.answer(200, msgspec.json.encode(response))

    async def _leave_alone(self, exchange: Exchange, generation: Generation, streamed: bool) -> None:
        if not await generation.begin():
            raise Unavailable("A background response has to be stored, and that is not possible now.")
        first = generation.response
        self._generations.start(generation)
        if streamed:
            await follow(exchange, generation, encode=self._encode)
        else:
            await exchange.answer(200, msgspec.json.encode(first))

    async def whole(self, exchange: Exchange, generation: Generation) -> Response:
        """The stream, folded. Raises HungUp, and ApiError where it failed."""
        with generation.reading():
            async with exchange.until_hang_up():
                self._generations.start(generation)
                await generation.ended.wait()
        if not generation.ended.is_set():
            raise HungUp
        if (error := generation.response.error) is not None:
            raise ApiError(error.message)
        return generation.response

    def order(self, request: Request, tokens: list[int], toolbox: Toolbox = NO_TOOLS, name: str = "input") -> Order:
        """`tokens` came of the field `name`. Raises InvalidRequest."""
        served = self._models.served
        sampling = prompt.sampling(request, self._config.sampling)
        job = prompt.job(request, tokens, sampling, served.info.n_ctx, name)
        first = self._first(request, sampling, toolbox)
        assert request.input is not None, "`prompt` refuses it"
        return Order(
            first=first,
            job=job,
            answer=Answer(
                served.vocabulary, len(tokens), prompt.stops(request), _interpreter(served.template, tokens, toolbox)
            ),
            items=items.kept(request.input, first.id) if first.store else b"[]",
            streamed=bool(request.stream),
            tells_progress=bool(request.return_progress),
        )

    def _first(self, request: Request, sampling: Sampling, toolbox: Toolbox) -> Response:
        return Response(
            id=f"resp_{uuid4().hex}",
            created_at=int(time.time()),
            status="queued" if request.background or self._engine.full else "in_progress",
            background=bool(request.background),
            model=self._models.served.name,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            metadata=request.metadata or {},
            parallel_tool_calls=request.parallel_tool_calls is not False,
            previous_response_id=request.previous_response_id,
            prompt_cache_key=request.prompt_cache_key,
            reasoning=Reasoning(prompt.effort(request) if self._models.served.template.manners.effort else None),
            safety_identifier=request.safety_identifier,
            store=self._archive is not None and request.store is not False,
            temperature=sampling.temperature,
            tool_choice=toolbox.choice,
            tools=toolbox.echo,
            top_p=sampling.top_p,
        )

    def _check_background(self, request: Request) -> None:
        """Raises InvalidRequest."""
        if not request.background:
            return
        if self._archive is None:
            raise InvalidRequest(
                "A background response has to be stored, and this server stores none (--store).", param="background"
            )
        if request.store is False:
            raise InvalidRequest("A background response has to be stored: leave `store` out.", param="background")

    async def _past(self, previous: str | None) -> list[Raw]:
        """The items of all responses up to that one. Raises InvalidRequest."""
        if previous is None:
            return []
        if self._archive is None:
            raise InvalidRequest(
                "This server stores no responses (--store): send the whole conversation as `input`.",
                param="previous_response_id",
            )
        if self._generations.stored(previous) is not None:
            raise InvalidRequest(f"Response {previous!r} is still being made.", param="previous_response_id")
        try:
            chain = await self._archive.chain(previous, time.time())
        except Missing as error:
            raise _gone(error.id) from error
        if chain[-1].unfinished:  # see Kept
            raise _gone(previous)
        return [item for stored in chain for item in items.history(stored.items, stored.response)]

    def notice(self, skipped: Iterable[str]) -> None:
        """Log what is skipped, each kind of thing once: clients send the same with every request."""
        for what in skipped:
            if what not in self._noticed and len(self._noticed) < MOST_NOTICED:
                self._noticed.add(what)
                log.warning("skipped, here and from now on: %.100r", what)


def _interpreter(template: ChatTemplate, tokens: list[int], toolbox: Toolbox) -> Interpreter | None:
    parser = template.parser(tokens, toolbox.offered)
    return None if parser is None else Interpreter(parser, template.marks, toolbox.calls, toolbox.parallel)


def _gone(response_id: str) -> InvalidRequest:
    message = f"There is no response {response_id!r} here (any more)."
    return InvalidRequest(message, param="previous_response_id", code="previous_response_not_found")
