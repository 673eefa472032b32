"""ASGI application: routes requests to their handlers and answers exceptions with error objects."""

import logging
import time
from functools import partial
from pathlib import Path

import trio
from msgspec.structs import replace

from engine.job import SamplingParams
from server.access import AccessPolicy, ApiKeys, client_request_id
from server.api.request_log import KEYLESS, PUBLIC, log_request
from server.api.routes import Services, routes
from server.api.websocket import WebSocketHandler
from server.config import Config
from server.generation import GenerationSummary, Generator, GeneratorJob, as_api_error, stopping
from server.http import ClientDisconnected, Exchange, Receive, Scope, Send, new_request_id
from server.monitoring import Metrics, StatusHandler
from server.prompt import Past, prepare
from server.protocol import request as wire
from server.protocol.errors import ApiError
from server.protocol.prompt_cache import ResponseCacheOptions
from server.served_model import JobParams, ModelSource
from server.session import Responder, ResponseMemory, SessionTurn
from server.store import AsyncStore
from server.websocket import WebSocketLimits

CLIENT_CLOSED_REQUEST = 499
"""Status of a request whose client left before the answer, in the log and the metrics only (nginx's number)."""

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)

PINGS = 6
"""Number of unanswered pings after which the client of a WebSocket is taken for gone."""

log = logging.getLogger("responsed.http")


class App:
    """Serve one model over HTTP."""

    def __init__(
        self,
        config: Config,
        engine: Generator,
        served: ModelSource,
        store: AsyncStore | None = None,
        keys: ApiKeys | None = None,
        metrics: Metrics | None = None,
        state_dir: Path | None = None,
    ) -> None:
        """`store`: responses and conversations; None if the server stores none. `keys`: None if the server needs no
        key.

        `metrics`: None if the server has no metrics. `state_dir`: folder of the key for sealed reasoning, and of the
        deletions that were followed; None for a key that lasts for this run only.
        """
        self._metrics = metrics
        self.keys = keys
        self._access = _access_policy(config)
        self._memory = ResponseMemory(config.max_body_bytes)
        self._services = Services(config, engine, served, store, state_dir, self._record_answer)
        self._generations = self._services.generations
        self.work = self._services.work
        self.websockets = self._websocket_handler(config)
        self._status = StatusHandler(engine, self._generations, self._services.model, store, trio.current_time)
        self._routes = routes(self._services, metrics, self._status, self.websockets)

    def _websocket_handler(self, config: Config) -> WebSocketHandler:
        """Return the handler of WebSocket mode, with the services of POST."""
        services, names = self._services, config.reasoning_events
        responder = Responder(
            services.bodies, services.reader, services.specs, services.generations, self._memory, services.work, names
        )
        return WebSocketHandler(responder, _websocket_limits(config), self._authorize, self._record_turn)

    @property
    def config(self) -> Config:
        """Return the settings in force."""
        return self._services.live.now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._exchange(Exchange(scope, receive, send, new_request_id()))
            case "lifespan":  # hypercorn waits for these answers before it starts
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})

    async def host(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of all generations until cancelled. Serve requests only while this runs."""
        async with trio.open_nursery() as nursery:
            if self._services.store is not None:
                nursery.start_soon(self._services.store.keep_alive, self._services.forgetting.follow)
            await self._generations.host(task_status=task_status)

    @property
    def running(self) -> int:
        """Number of responses that have a slot."""
        return self._generations.running

    @property
    def waiting(self) -> int:
        """Number of responses that wait for a slot."""
        return self._generations.waiting

    @property
    def generated_tokens(self) -> int:
        """Number of tokens generated since the start."""
        return self._generations.generated_tokens

    def stop(self) -> None:
        """End all generations with an error."""
        self._generations.fail(stopping())
        self._services.relay.stop()

    def stop_admitting(self) -> None:
        """Fail the requests that wait for a slot, so that their clients can use another server at once."""
        self._generations.stop_admitting()

    async def wait_idle(self) -> None:
        """Wait until no answer is in progress. Several tasks may wait at once."""
        await self._services.busy.wait_idle()

    async def prewarm_job(self, body: bytes) -> tuple[int, GeneratorJob]:
        """Return the tokens of the prompt of a body of `POST /v1/responses`, and the job that evaluates it.

        Without input, the prompt ends where the user's first message would begin. Raises ApiError.
        """
        request = replace(wire.decode(body), prompt_cache_options=ResponseCacheOptions(prewarm=True))
        prompt = await self._services.model.prompt(prepare(request, Past()))
        params = JobParams(request=request, field="input", sampling=GREEDY, savable=True)
        return len(prompt), await prompt.job(params)

    def reload(self, config: Config, keys: ApiKeys | None) -> None:
        """Apply new API keys and the settings that need no restart; answers in progress are not affected."""
        self.keys = keys
        self._services.reload(config)
        self._access = _access_policy(self.config)
        self._memory.limit = config.max_body_bytes
        self.websockets.limits = _websocket_limits(config)

    async def _exchange(self, exchange: Exchange) -> None:
        self._services.busy.begin()
        try:
            await exchange.watch.serve(partial(self._answer, exchange))
        finally:
            self._services.busy.end()
        if not exchange.status:
            exchange.status = CLIENT_CLOSED_REQUEST
            exchange.outcome = exchange.outcome or exchange.disconnect_reason
        self._record(exchange, exchange.began)

    def _record(self, request: Exchange | SessionTurn, began: float) -> None:
        """Count and log a request that has ended."""
        if self._metrics is not None:
            self._metrics.record_request(request.route, request.status)
        log_request(request, time.perf_counter() - began)

    def _record_turn(self, turn: SessionTurn, began: float) -> None:
        """Count and log a request of a WebSocket."""
        if self._metrics is not None and turn.refusal:
            self._metrics.record_refusal(turn.refusal)
        self._record(turn, began)

    def _authorize(self, exchange: Exchange) -> None:
        """Set the caller. Raises Unauthorized."""
        if self.keys is not None:
            exchange.caller = self.keys.caller(exchange.header(b"authorization"))

    async def _refuse(self, exchange: Exchange, error: ApiError) -> None:
        """Send an error, of the request or of its response."""
        if self._metrics is not None and not exchange.starts_generation:
            self._metrics.record_refusal(error.reason)
        exchange.outcome = exchange.outcome or error.summary
        await exchange.send_error(error)

    def _record_answer(self, summary: GenerationSummary) -> None:
        log.info(summary.line(), extra={"summary": summary})
        self._status.record_answer(summary)
        if self._metrics is not None:
            self._metrics.record_answer(summary)

    async def _answer(self, exchange: Exchange) -> None:
        """Answer a request, or refuse it; its status stays 0 if its client disconnects before that."""
        try:
            await self._handle(exchange)
        except ClientDisconnected:
            exchange.outcome = exchange.outcome or exchange.disconnect_reason
        except Exception as failure:
            await self._refuse(exchange, as_api_error(failure, exchange.id))
            failure.with_traceback(None)  # its frames have the generation, which has this error
        finally:
            self._services.bodies.free(exchange.reserved)

    async def _handle(self, exchange: Exchange) -> None:
        if exchange.path not in PUBLIC:
            self._access.check(exchange.header(b"host"), exchange.header(b"origin"))
            if (origin := exchange.header(b"origin")) is not None and self._access.allows(origin):
                exchange.allow_origin(origin)
            if exchange.path not in KEYLESS and exchange.method != "OPTIONS":  # a preflight has no key (Fetch, 3.3)
                self._authorize(exchange)
            exchange.client_request_id = client_request_id(exchange.header(b"x-client-request-id"))
        handler, parameters, allow, exchange.route = self._routes.find(exchange.method, exchange.path)
        if handler is None:
            await exchange.answer(204, b"", [(b"allow", allow.encode())])
        else:
            await handler(exchange, *parameters)


def _access_policy(config: Config) -> AccessPolicy:
    return AccessPolicy((*config.allow_hosts, *config.hosts), config.allow_origins)


def _websocket_limits(config: Config) -> WebSocketLimits:
    return WebSocketLimits(
        ping=config.websocket_ping_seconds,
        pong=PINGS * config.websocket_ping_seconds,
        idle=config.websocket_idle_timeout_seconds,
        message_gap=config.body_gap_seconds,
        message_total=config.body_timeout_seconds,
    )
