"""The ASGI callable: routes, and how each is answered."""

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias
from uuid import uuid4

import msgspec
import trio
from msgspec import Struct

from engine import ChatTemplate, Engine, EngineStopped, Job, Message, ModelInfo, Piece, TemplateError, Vocabulary
from server import prompt, schema, sse
from server.answer import Answer
from server.config import Config
from server.cues import Created, Running, failure
from server.errors import ApiError, InvalidRequest, MethodNotAllowed, NotFound, Unavailable
from server.events import Event, Response
from server.exchange import Exchange, HungUp, Receive, Scope, Send
from server.stream import Stream

Handler: TypeAlias = Callable[["App", Exchange], Awaitable[None]]

LONG_CHARACTERS = 1 << 16
"""Conversations longer than this are tokenized outside the event loop: they take more than 10 ms."""

MOST_NOTICED = 1000
"""Kinds of skipped things that are remembered; clients can make up any number of them."""

log = logging.getLogger("responsed.http")


class Served(Struct, frozen=True):
    """The model that answers, as the API sees it."""

    name: str
    created: int
    """When the file was made, in seconds."""
    info: ModelInfo
    vocabulary: Vocabulary
    template: ChatTemplate


class ModelMeta(Struct, frozen=True):
    engine: str
    n_ctx: int
    n_slots: int
    n_vocab: int


class ModelObject(Struct, frozen=True):
    id: str
    created: int
    meta: ModelMeta
    object: str = "model"
    owned_by: str = "responsed"


class ModelList(Struct, frozen=True):
    data: tuple[ModelObject, ...]
    object: str = "list"


class App:
    """Answers requests about one model."""

    def __init__(self, config: Config, engine: Engine, served: Served) -> None:
        self._config = config
        self._engine = engine
        self._served = served
        self._noticed: set[str] = set()
        self._answering = 0
        self._quiet = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._exchange(Exchange(scope, receive, send, f"req_{uuid4().hex}"))
            case "lifespan":  # hypercorn doesn't start before this is answered
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
            case _:
                await receive()
                await send({"type": "websocket.close", "code": 1000})

    async def quiet(self) -> None:
        """Wait until no answer is being made. Several may wait."""
        while self._answering:
            if self._quiet.is_set():
                self._quiet = trio.Event()
            await self._quiet.wait()

    async def _exchange(self, exchange: Exchange) -> None:
        began = time.perf_counter()
        self._answering += 1
        try:
            await self._route(exchange)
        except HungUp:
            pass
        except ApiError as error:
            await exchange.refuse(error)
        except Exception:
            log.exception("%s failed", exchange.id)
            await exchange.refuse(ApiError("The server made a mistake; its log says which."))
        finally:
            self._answering -= 1
            self._quiet.set()
        seconds = time.perf_counter() - began
        log.info("%s %s %s %d %.1f ms", exchange.id, exchange.method, exchange.target, exchange.status, seconds * 1e3)

    async def _route(self, exchange: Exchange) -> None:
        path, handlers = exchange.path, ROUTES.get(exchange.path)
        if handlers is None and path.startswith(MODEL_PREFIX):
            handlers = MODEL_ROUTE
        if handlers is None:
            raise NotFound(f"There is nothing at {path}.")
        if (handler := handlers.get(exchange.method)) is not None:
            return await handler(self, exchange)
        allow = ", ".join([*handlers, "OPTIONS"])
        if exchange.method != "OPTIONS":
            raise MethodNotAllowed(f"{exchange.method} is not for {path}; use {allow}.", allow=allow)
        return await exchange.answer(204, b"", [(b"allow", allow.encode())])

    async def health(self, exchange: Exchange) -> None:
        if not self._engine.running:
            raise Unavailable("The engine does not run.")
        if self._engine.stuck:
            raise Unavailable("The model does not come back from a step.")
        await exchange.answer(200, b'{"status":"ok"}')

    async def list_models(self, exchange: Exchange) -> None:
        await exchange.answer(200, msgspec.json.encode(ModelList((self._model_object(),))))

    async def retrieve_model(self, exchange: Exchange) -> None:
        self._resolve(exchange.path.removeprefix(MODEL_PREFIX))
        await exchange.answer(200, msgspec.json.encode(self._model_object()))

    async def create_response(self, exchange: Exchange) -> None:
        if not self._engine.running:
            raise Unavailable("The server is shutting down.")
        body = await exchange.body(self._config.max_body_bytes, self._config.body_gap_seconds)
        request = schema.decode(body)
        self._resolve(request.model)
        conversation = prompt.conversation(request)
        self._notice([*(f"field {name}" for name in schema.unknown_fields(body)), *conversation.skipped])
        sampling = prompt.sampling(request, self._config.sampling)
        tokens = await self._tokens(conversation.messages)
        job = prompt.job(request, tokens, sampling, self._served.info.n_ctx)
        response = Response(
            id=f"resp_{uuid4().hex}",
            created_at=int(time.time()),
            model=self._served.name,
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            metadata=request.metadata or {},
            parallel_tool_calls=request.parallel_tool_calls is not False,
            prompt_cache_key=request.prompt_cache_key,
            safety_identifier=request.safety_identifier,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )
        stream = Stream(response)
        answer = Answer(self._served.vocabulary, len(tokens), prompt.stops(request))
        if request.stream:
            await self._streamed(exchange, stream, answer, job)
        else:
            await self._whole(exchange, stream, answer, job)

    async def _streamed(self, exchange: Exchange, stream: Stream, answer: Answer, job: Job) -> None:
        async def push(events: list[Event]) -> None:
            await exchange.push(sse.encode(events))

        def last_words(error: ApiError) -> bytes:
            return sse.encode([] if stream.closed else stream.feed(failure(error))) + sse.DONE

        async with exchange.until_hang_up():
            await exchange.start_stream(last_words)
            # Before the job: the first byte waits neither for the model nor for a slot.
            await push([*stream.feed(Created()), *stream.feed(Running())])
            await self._generate(stream, answer, job, push)
        await exchange.close(sse.DONE)

    async def _whole(self, exchange: Exchange, stream: Stream, answer: Answer, job: Job) -> None:
        """The stream, folded."""

        async def ignore(events: list[Event]) -> None:
            pass

        async with exchange.until_hang_up():
            stream.feed(Created())
            stream.feed(Running())
            await self._generate(stream, answer, job, ignore)
        if not stream.closed:
            raise HungUp
        if (error := stream.response.error) is not None:
            raise ApiError(error.message)
        await exchange.answer(200, msgspec.json.encode(stream.response))

    async def _generate(
        self, stream: Stream, answer: Answer, job: Job, push: Callable[[list[Event]], Awaitable[None]]
    ) -> None:
        try:
            with self._engine.generate(job) as pieces:
                while not answer.ended:
                    arrived = await _arrived(pieces)
                    now = int(time.time())
                    cues = [cue for piece in arrived for cue in answer.take(piece, now)]
                    if events := [event for cue in cues for event in stream.feed(cue)]:
                        await push(events)
        except EngineStopped:
            await push(stream.feed(failure(Unavailable("The server is shutting down."))))

    async def _tokens(self, messages: Sequence[Message]) -> list[int]:
        template = self._served.template
        try:
            if sum(len(message.content) for message in messages) > LONG_CHARACTERS:
                return await trio.to_thread.run_sync(template.prompt, messages)
            return template.prompt(messages)
        except TemplateError as error:
            raise InvalidRequest(f"{str(error)[0].upper()}{str(error)[1:]}.", param="input") from error

    def _resolve(self, name: str | None) -> None:
        """Raises InvalidRequest, NotFound."""
        if name is None:
            raise InvalidRequest("`model` is missing: name the model that is to answer.", param="model")
        aliases = self._config.aliases
        if name != self._served.name and name not in aliases and "*" not in aliases:
            raise NotFound(
                f"There is no model {name!r}; this server has {self._served.name!r} (--alias gives it more names).",
                param="model",
                code="model_not_found",
            )

    def _notice(self, skipped: Iterable[str]) -> None:
        """Log what is skipped, each kind of thing once: clients send the same with every request."""
        for what in skipped:
            if what not in self._noticed and len(self._noticed) < MOST_NOTICED:
                self._noticed.add(what)
                log.warning("skipped, here and from now on: %.100r", what)

    def _model_object(self) -> ModelObject:
        info = self._served.info
        meta = ModelMeta(info.engine, info.n_ctx, info.n_slots, info.n_vocab)
        return ModelObject(self._served.name, self._served.created, meta)


async def _arrived(pieces: trio.MemoryReceiveChannel[Piece]) -> list[Piece]:
    """What there is, at least one: all of it leaves in one `send`, which costs the same whatever its size."""
    arrived = [await pieces.receive()]
    with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
        while True:
            arrived.append(pieces.receive_nowait())
    return arrived


MODEL_PREFIX = "/v1/models/"
ROUTES: dict[str, dict[str, Handler]] = {
    "/health": {"GET": App.health, "HEAD": App.health},
    "/v1/models": {"GET": App.list_models, "HEAD": App.list_models},
    "/v1/responses": {"POST": App.create_response},
}
MODEL_ROUTE: dict[str, Handler] = {"GET": App.retrieve_model, "HEAD": App.retrieve_model}
