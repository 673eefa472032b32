"""ASGI application: routes requests to their handlers and answers exceptions with error objects."""

import logging
import time
from pathlib import Path
from uuid import uuid4

import trio
from msgspec.structs import replace

from engine.job import Job, SamplingParams
from engine.runtime import Engine
from server.access import AccessPolicy, ApiKeys, client_request_id
from server.api.chat_completions import ChatCompletionsHandler
from server.api.compact import CompactHandler
from server.api.conversations import ConversationsHandler
from server.api.input_tokens import InputTokensHandler
from server.api.models import ModelsHandler
from server.api.openapi import OpenAPIHandler
from server.api.request_log import PUBLIC, log_request
from server.api.responses import ResponsesHandler
from server.api.stored_responses import StoredResponsesHandler
from server.api.text_completions import TextCompletionsHandler
from server.api.websocket import WebSocketHandler
from server.config import Config
from server.generation import (
    ActivityCount,
    AdmissionControl,
    Generations,
    GenerationSummary,
    Timeouts,
    as_api_error,
    stopping,
)
from server.http import (
    Bodies,
    ClientDisconnected,
    Exchange,
    Handlers,
    Receive,
    Router,
    Scope,
    Send,
    WorkThread,
)
from server.mcp import McpAccess
from server.monitoring import Metrics, StatusHandler
from server.preprocessing import BodyReader, History, ReasoningSeal, References, RequestReader, SpecBuilder
from server.prompt import Past, builder, prepare
from server.prompt_comparison import PromptComparisons
from server.protocol import request as wire
from server.protocol import sse
from server.protocol.errors import ApiError
from server.protocol.prompt_cache import ResponseCacheOptions
from server.served_model import ModelDetails, ServedModel
from server.session import Responder, ResponseMemory, SessionTurn
from server.store import AsyncStore
from server.websocket import WebSocketLimits

CLIENT_CLOSED_REQUEST = 499
"""Status of a request whose client left before the answer, in the log and the metrics only (nginx's number)."""

GREEDY = SamplingParams(temperature=0, top_p=1, top_k=0, min_p=0)

log = logging.getLogger("responsed.http")


class App:
    """Serve one model over HTTP."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        served: ModelDetails,
        store: AsyncStore | None = None,
        keys: ApiKeys | None = None,
        metrics: Metrics | None = None,
        seal_key: Path | None = None,
    ) -> None:
        """`store`: responses and conversations; None if the server stores none. `keys`: None if anybody may call it.

        `metrics`: None if the server counts nothing. `seal_key`: file of the key for
        sealed reasoning; None for a key of this run only.
        """
        self._metrics = metrics
        self.keys = keys
        self._engine = engine
        self._busy = ActivityCount()
        self.work = work = WorkThread(lambda: not self._generations.idle)
        self._bodies = Bodies(
            config.max_body_bytes, config.body_gap_seconds, work, config.body_timeout_seconds, config.max_json_depth
        )
        self._access = _access_policy(config)
        timeouts = Timeouts(config.heartbeat_seconds, config.resume_window_seconds, config.answer_timeout_seconds)
        self._admission = AdmissionControl(served.info.n_slots, config.queue)
        self._generations = Generations(engine, store, timeouts, self._admission, self._busy, self._record_answer)
        self._model = model = ServedModel(served, config.aliases, work)
        history = History(store, self._generations, work)
        references = References(store, config.max_body_bytes, work)
        bodies = BodyReader(self._bodies, model, work, config.strict_fields)
        seal = ReasoningSeal(seal_key, work)
        mcp = McpAccess(config.allow_mcp, dict(each.split("=", 1) for each in config.mcp_connectors))
        reader = RequestReader(config, bodies, history, references, seal, mcp, work)
        comparisons = PromptComparisons(served.vocabulary, store, work)
        self._specs = specs = SpecBuilder(config, engine, model, store, comparisons, seal, work)
        models = ModelsHandler(model)
        responses = ResponsesHandler(config, reader, specs, self._generations, stores=store is not None)
        chat_completions = ChatCompletionsHandler(bodies, specs, self._generations, work)
        text_completions = TextCompletionsHandler(model, bodies, specs, self._generations)
        self.websockets = self._websocket_handler(config, reader)
        tokens = InputTokensHandler(reader, specs)
        compact = CompactHandler(model, reader, specs, self._generations)
        stored = StoredResponsesHandler(
            engine, self._generations, store, comparisons, sse.encoder(config.reasoning_events)
        )
        conversations = ConversationsHandler(config, engine, self._bodies, store, comparisons, work)
        status = StatusHandler(engine, self._generations, served, store, metrics)
        self._routes = Router(
            {
                **_status_routes(status),
                "/openapi.json": {"GET": OpenAPIHandler(work).retrieve},
                "/v1/models": {"GET": models.list_all, "HEAD": models.list_all},
                "/v1/models/{name...}": {"GET": models.retrieve, "HEAD": models.retrieve},
                "/v1/responses": {"POST": responses.create, "GET": self.websockets.connect},
                "/v1/chat/completions": {"POST": chat_completions.create},
                "/v1/completions": {"POST": text_completions.create},
                "/v1/responses/input_tokens": {"POST": tokens.count},
                "/v1/responses/compact": {"POST": compact.create},
                "/v1/responses/{id}": {"GET": stored.retrieve, "DELETE": stored.delete},
                "/v1/responses/{id}/cancel": {"POST": stored.cancel},
                "/v1/responses/{id}/input_items": {"GET": stored.input_items},
                **_conversation_routes(conversations),
            }
        )

    def _websocket_handler(self, config: Config, reader: RequestReader) -> WebSocketHandler:
        """Return the handler of WebSocket mode, over the stages of POST."""
        memory = ResponseMemory(config.max_body_bytes)
        encode = sse.messages(config.reasoning_events)
        responder = Responder(self._bodies, reader, self._specs, self._generations, memory, self.work, encode)
        limits = WebSocketLimits(message_gap=config.body_gap_seconds, message_total=config.body_timeout_seconds)
        return WebSocketHandler(responder, limits, self._authorize, self._record_turn)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                exchange = Exchange(scope, receive, send, f"req_{uuid4().hex}")
                async with exchange.open():
                    await self._exchange(exchange)
            case "lifespan":  # hypercorn waits for these answers before it starts
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})

    async def host(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the tasks of all generations until cancelled. Serve requests only while this runs."""
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

    def stop_admitting(self) -> None:
        """Fail the requests that wait for a slot, so that their clients can use another server at once."""
        self._generations.stop_admitting()

    async def wait_idle(self) -> None:
        """Wait until the server makes no answer. Several tasks may wait at once."""
        await self._busy.wait_idle()

    async def prewarm_job(self, body: bytes) -> Job:
        """Return the job that evaluates the prompt of a body of `POST /v1/responses`.

        Without input, the prompt ends where the user's first message would begin. Raises ApiError.
        """
        request = replace(wire.decode(body), prompt_cache_options=ResponseCacheOptions(prewarm=True))
        prompt = await self._specs.prompts.of(prepare(request, Past()))
        return builder.job(request, prompt, GREEDY, self._model.served.info.n_ctx)

    def reload(self, config: Config, keys: ApiKeys | None) -> None:
        """Apply new API keys, names, access rules and limits; requests in progress are not affected."""
        self.keys = keys
        self._access = _access_policy(config)
        self._model.aliases = config.aliases
        self._admission.queue = config.queue
        self._bodies.reload(config.max_body_bytes, config.body_timeout_seconds, config.max_json_depth)

    async def _exchange(self, exchange: Exchange) -> None:
        began = time.perf_counter()
        self._busy.begin()
        try:
            await self._answer(exchange)
        except ClientDisconnected:
            exchange.outcome = exchange.outcome or "client disconnected"
            exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
        except Exception as failure:
            await self._refuse(exchange, as_api_error(failure, exchange.id))
        finally:
            self._bodies.release(exchange)
            self._busy.end()
        self._record(exchange, began)

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
        if self._metrics is not None:
            self._metrics.record_answer(summary)

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.path not in PUBLIC:
            self._access.check(exchange.header(b"host"), exchange.header(b"origin"))
            if (origin := exchange.header(b"origin")) is not None and self._access.allows(origin):
                exchange.allow_origin(origin)
            if exchange.method != "OPTIONS":  # a preflight carries no key (Fetch, 3.3)
                self._authorize(exchange)
            exchange.client_request_id = client_request_id(exchange.header(b"x-client-request-id"))
        handler, parameters, allow, exchange.route = self._routes.find(exchange.method, exchange.path)
        if handler is None:
            await exchange.answer(204, b"", [(b"allow", allow.encode())])
        else:
            await handler(exchange, *parameters)


def _access_policy(config: Config) -> AccessPolicy:
    return AccessPolicy((*config.allow_hosts, *config.hosts), config.allow_origins)


def _status_routes(status: StatusHandler) -> dict[str, Handlers]:
    return {
        "/health": {"GET": status.health, "HEAD": status.health},
        "/ready": {"GET": status.ready, "HEAD": status.ready},
        "/version": {"GET": status.version, "HEAD": status.version},
        "/metrics": {"GET": status.metrics},
    }


def _conversation_routes(conversations: ConversationsHandler) -> dict[str, Handlers]:
    return {
        "/v1/conversations": {"POST": conversations.create},
        "/v1/conversations/{id}": {
            "GET": conversations.retrieve,
            "POST": conversations.update,
            "DELETE": conversations.delete,
        },
        "/v1/conversations/{id}/items": {"GET": conversations.list_items, "POST": conversations.add_items},
        "/v1/conversations/{id}/items/{item}": {
            "GET": conversations.retrieve_item,
            "DELETE": conversations.delete_item,
        },
    }
