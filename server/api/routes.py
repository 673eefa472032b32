"""Routes of the server, and what the endpoints share."""

from collections.abc import Callable
from pathlib import Path

from server.api.chat_completions import ChatCompletionsHandler
from server.api.compact import CompactHandler
from server.api.conversations import ConversationsHandler
from server.api.input_tokens import InputTokensHandler
from server.api.models import ModelsHandler
from server.api.openapi import OpenAPIHandler
from server.api.responses import ResponsesHandler
from server.api.stored_responses import StoredResponsesHandler
from server.api.text_completions import TextCompletionsHandler
from server.api.websocket import WebSocketHandler
from server.config import Config, LiveConfig
from server.generation import ActivityCount, AdmissionControl, Generations, GenerationSummary, Generator, Timeouts
from server.http import Bodies, Handlers, Router
from server.mcp import ApprovedCalls, McpAccess, McpSessions
from server.monitoring import HealthHandler, Metrics, StatusHandler
from server.page import StatusPage
from server.preprocessing import KEY_NAME, BodyReader, History, ReasoningSeal, References, RequestReader, SpecBuilder
from server.relay import Forgetting, Relay
from server.served_model import ModelSource
from server.store import AsyncStore, Limits
from server.work_thread import WorkThread


class Services:
    """Services that the endpoints share: reading of requests, tokens and constraints, admission, generation, store."""

    def __init__(
        self,
        config: Config,
        engine: Generator,
        served: ModelSource,
        store: AsyncStore | None,
        state_dir: Path | None,
        on_end: Callable[[GenerationSummary], None],
    ) -> None:
        """`on_end` is called with each generation that has ended; see `App` for the others."""
        self.live = live = LiveConfig(config)
        self.engine = engine
        self.store = store
        self.busy = ActivityCount()
        self.work = work = WorkThread(lambda: not self.generations.idle)
        self.bodies = Bodies(
            config.max_body_bytes, config.body_gap_seconds, work, config.body_timeout_seconds, config.max_json_depth
        )
        self.model = served.open(live, store, work)
        self.admission = AdmissionControl(self.model.card.n_slots, config.queue)
        self.generations = Generations(engine, store, _timeouts(config), self.admission, self.busy, on_end)
        self.relay = Relay(store)
        self.forgetting = Forgetting(engine, self.model, store, state_dir)
        history = History(store, self.generations, work)
        references = References(live, store, work)
        self.body_reader = BodyReader(live, self.bodies, self.model, work)
        seal = ReasoningSeal(state_dir and state_dir / KEY_NAME, work, store)
        self.mcp_access = McpAccess(*_mcp_servers(config))
        mcp_sessions = McpSessions(self.mcp_access, ApprovedCalls(store))
        self.reader = RequestReader(live, self.body_reader, history, references, seal, mcp_sessions, work)
        self.specs = SpecBuilder(live, engine, self.model, store, seal, work)

    def reload(self, config: Config) -> None:
        """Take over the settings that need no restart; answers in progress are not affected."""
        self.live.reload(config)
        self.model.aliases = config.aliases
        self.admission.queue = config.queue
        self.bodies.reload(config.max_body_bytes, config.body_timeout_seconds, config.max_json_depth)
        self.generations.timeouts = _timeouts(config)
        self.mcp_access.reload(*_mcp_servers(config))
        self.engine.limit_steps(config.max_step_ms / 1e3)
        if self.store is not None:
            self.store.responses.limit(store_limits(config))


def store_limits(config: Config) -> Limits:
    return Limits(config.store_responses, config.store_megabytes, config.store_days)


def _timeouts(config: Config) -> Timeouts:
    return Timeouts(config.heartbeat_seconds, config.resume_window_seconds, config.answer_timeout_seconds)


def _mcp_servers(config: Config) -> tuple[tuple[str, ...], dict[str, str], float]:
    connectors = dict(each.split("=", 1) for each in config.mcp_connectors)
    return config.allow_mcp, connectors, config.mcp_timeout_seconds


def routes(services: Services, metrics: Metrics | None, status: StatusHandler, websockets: WebSocketHandler) -> Router:
    """Return the router to all endpoints."""
    health = HealthHandler(services.engine, services.generations, services.model, services.store, metrics)
    models, page = ModelsHandler(services.model), StatusPage()
    return Router(
        {
            "/": {"GET": page.retrieve, "HEAD": page.retrieve},
            "/health": {"GET": health.health, "HEAD": health.health},
            "/ready": {"GET": health.ready, "HEAD": health.ready},
            "/version": {"GET": health.version, "HEAD": health.version},
            "/metrics": {"GET": health.metrics},
            "/status": {"GET": status.retrieve},
            "/openapi.json": {"GET": OpenAPIHandler(services.work).retrieve},
            "/v1/models": {"GET": models.list_all, "HEAD": models.list_all},
            "/v1/models/{name...}": {"GET": models.retrieve, "HEAD": models.retrieve},
            **_generation_routes(services, websockets),
            **_stored_response_routes(services),
            **_conversation_routes(services),
        }
    )


def _generation_routes(services: Services, websockets: WebSocketHandler) -> dict[str, Handlers]:
    reader, specs, generations, model = services.reader, services.specs, services.generations, services.model
    responses = ResponsesHandler(services.live.now, reader, specs, generations, stores=services.store is not None)
    chat_completions = ChatCompletionsHandler(services.live, services.body_reader, specs, generations, services.work)
    text_completions = TextCompletionsHandler(model, services.body_reader, specs, generations)
    return {
        "/v1/responses": {"POST": responses.create, "GET": websockets.connect},
        "/v1/chat/completions": {"POST": chat_completions.create},
        "/v1/completions": {"POST": text_completions.create},
        "/v1/responses/input_tokens": {"POST": InputTokensHandler(reader, model).count},
        "/v1/responses/compact": {"POST": CompactHandler(model, reader, specs, generations).create},
    }


def _stored_response_routes(services: Services) -> dict[str, Handlers]:
    """Return routes whose pattern matches some of the others, which come first."""
    names = services.live.now.reasoning_events
    stored = StoredResponsesHandler(
        services.generations, services.store, services.relay, services.forgetting, services.work, names
    )
    return {
        "/v1/responses/{id}": {"GET": stored.retrieve, "DELETE": stored.delete},
        "/v1/responses/{id}/cancel": {"POST": stored.cancel},
        "/v1/responses/{id}/input_items": {"GET": stored.input_items},
    }


def _conversation_routes(services: Services) -> dict[str, Handlers]:
    conversations = ConversationsHandler(
        services.live, services.bodies, services.store, services.forgetting, services.work
    )
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
