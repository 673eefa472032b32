"""`POST /v1/responses`: read, prepare, compile, admit, generate, stream."""

from contextlib import nullcontext

import msgspec
from msgspec.structs import replace

from server.access import reads_open_names
from server.api.streaming import deliver, stream_events
from server.config import Config
from server.generation import Generation, Generations
from server.http import Exchange
from server.preprocessing import RequestReader, SpecBuilder, lane_of
from server.protocol import sse
from server.protocol.errors import InvalidRequest, Unavailable
from server.protocol.request import Request


class ResponsesHandler:
    def __init__(
        self, config: Config, reader: RequestReader, specs: SpecBuilder, generations: Generations, stores: bool
    ) -> None:
        """`stores`: True if the server has an open store."""
        self._config = config
        self._reader = reader
        self._specs = specs
        self._generations = generations
        self._stores = stores
        self._reasoning_events = config.reasoning_events

    async def create(self, exchange: Exchange) -> None:
        self._generations.check_admission(exchange.caller)
        body = await self._reader.read_body(exchange)
        request = body.request
        self._check_background(request)
        self._generations.check_admission(exchange.caller, lane_of(request, exchange.caller))
        with nullcontext() if request.background else exchange.watch.while_connected():
            prepared = await self._reader.load_and_prepare(exchange, body)
            spec = await self._specs.specify(prepared, exchange)
            spec = replace(spec, event_heartbeats=exchange.is_codex)
        with self._generations.admit(spec) as generation:
            if request.background:
                await self._run_in_background(exchange, generation, bool(request.stream))
            else:
                encode = self._encoder(exchange) if request.stream else None
                await deliver(exchange, self._generations, generation, encode=encode, render=msgspec.json.encode)

    def _encoder(self, exchange: Exchange) -> sse.Encode:
        return sse.encoder(reads_open_names(self._reasoning_events, exchange.header))

    async def _run_in_background(self, exchange: Exchange, generation: Generation, streamed: bool) -> None:
        if not await generation.begin():
            message = "A background response must be stored, but the store cannot be written now: try again later."
            raise Unavailable(message, reason="store")
        first = generation.response
        self._generations.start(generation)
        exchange.starts_generation = True
        if streamed:
            await stream_events(exchange, generation, encode=self._encoder(exchange))
        else:
            await exchange.answer(200, msgspec.json.encode(first))

    def _check_background(self, request: Request) -> None:
        """Raise InvalidRequest or Unavailable if the request is for a background response that cannot be stored."""
        if not request.background:
            return
        if not self._stores and self._config.store != "off":
            message = "A background response must be stored, but the store could not be opened: see the server log."
            raise Unavailable(message, reason="store")
        if not self._stores:
            message = "A background response must be stored, but this server stores none: start it with --store PATH."
            raise InvalidRequest(message, param="background")
        if request.store is False:
            raise InvalidRequest("A background response must be stored: leave `store` out.", param="background")
