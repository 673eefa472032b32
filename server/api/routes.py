"""Routes of the server, and the stages of a request that the endpoints share."""

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
from server.config import Config
from server.generation import ActivityCount, AdmissionControl, Generations, GenerationSummary, Generator, Timeouts
from server.http import Bodies, Handlers, Router, WorkThread
from server.mcp import McpAccess
from server.monitoring import LiveStatus, Metrics, StatusHandler
from server.preprocessing import BodyReader, History, ReasoningSeal, References, RequestReader, SpecBuilder
from server.protocol import sse
from server.served_model import ModelSource
from server.store import AsyncStore


class Stages:
    """Stages of a request: reading, tokens and constraints, admission and generation."""

    def __init__(
        self,
        config: Config,
        engine: Generator,
        served: ModelSource,
        store: AsyncStore | None,
        seal_key: Path | None,
        on_end: Callable[[GenerationSummary], None],
    ) -> None:
        """`on_end` is called with each generation that has ended; see `App` for the others."""
        self.config = config
        self.engine = engine
        self.store = store
        self.busy = ActivityCount()
        self.work = work = WorkThread(lambda: not self.generations.idle)
        self.bodies = Bodies(
            config.max_body_bytes, config.body_gap_seconds, work, config.body_timeout_seconds, config.max_json_depth
        )
        timeouts = Timeouts(config.heartbeat_seconds, config.resume_window_seconds, config.answer_timeout_seconds)
        self.model = served.open(config, store, work)
        self.admission = AdmissionControl(self.model.card.n_slots, config.queue)
        self.generations = Generations(engine, store, timeouts, self.admission, self.busy, on_end)
        history = History(store, self.generations, work)
        references = References(store, config.max_body_bytes, work)
        self.body_reader = BodyReader(self.bodies, self.model, work, config.strict_fields)
        seal = ReasoningSeal(seal_key, work)
        mcp = McpAccess(config.allow_mcp, dict(each.split("=", 1) for each in config.mcp_connectors))
        self.reader = RequestReader(config, self.body_reader, history, references, seal, mcp, work)
        self.specs = SpecBuilder(config, engine, self.model, store, seal, work)


def routes(stages: Stages, metrics: Metrics | None, live: LiveStatus, websockets: WebSocketHandler) -> Router:
    """Return the router to all endpoints."""
    status = StatusHandler(stages.engine, stages.generations, stages.model, stages.store, metrics)
    models = ModelsHandler(stages.model)
    return Router(
        {
            "/health": {"GET": status.health, "HEAD": status.health},
            "/ready": {"GET": status.ready, "HEAD": status.ready},
            "/version": {"GET": status.version, "HEAD": status.version},
            "/metrics": {"GET": status.metrics},
            "/status": {"GET": live.retrieve},
            "/openapi.json": {"GET": OpenAPIHandler(stages.work).retrieve},
            "/v1/models": {"GET": models.list_all, "HEAD": models.list_all},
            "/v1/models/{name...}": {"GET": models.retrieve, "HEAD": models.retrieve},
            **_generation_routes(stages, websockets),
            **_stored_response_routes(stages),
            **_conversation_routes(stages),
        }
    )


def _generation_routes(stages: Stages, websockets: WebSocketHandler) -> dict[str, Handlers]:
    reader, specs, generations, model = stages.reader, stages.specs, stages.generations, stages.model
    responses = ResponsesHandler(stages.config, reader, specs, generations, stores=stages.store is not None)
    chat_completions = ChatCompletionsHandler(stages.body_reader, specs, generations, stages.work)
    text_completions = TextCompletionsHandler(model, stages.body_reader, specs, generations)
    return {
        "/v1/responses": {"POST": responses.create, "GET": websockets.connect},
        "/v1/chat/completions": {"POST": chat_completions.create},
        "/v1/completions": {"POST": text_completions.create},
        "/v1/responses/input_tokens": {"POST": InputTokensHandler(reader, model).count},
        "/v1/responses/compact": {"POST": CompactHandler(model, reader, specs, generations).create},
    }


def _stored_response_routes(stages: Stages) -> dict[str, Handlers]:
    """Return routes whose pattern matches some of the others, which come first."""
    encode = sse.encoder(stages.config.reasoning_events)
    stored = StoredResponsesHandler(stages.engine, stages.generations, stages.store, stages.model, encode)
    return {
        "/v1/responses/{id}": {"GET": stored.retrieve, "DELETE": stored.delete},
        "/v1/responses/{id}/cancel": {"POST": stored.cancel},
        "/v1/responses/{id}/input_items": {"GET": stored.input_items},
    }


def _conversation_routes(stages: Stages) -> dict[str, Handlers]:
    conversations = ConversationsHandler(
        stages.config, stages.engine, stages.bodies, stages.store, stages.model, stages.work
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
