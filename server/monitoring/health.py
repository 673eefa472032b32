"""`/health`, `/ready`, `/version` and `/metrics`: the state of the server, for managers and monitoring."""

import logging
from typing import Literal, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from server.generation import Generations, GenerationSummary, Generator
from server.http import Exchange
from server.monitoring.metrics_state import MetricsState
from server.monitoring.release import release
from server.protocol.errors import NotFound, Unavailable
from server.served_model import AnsweringModel
from server.store import AsyncStore, StoreError

TEXT_FORMAT = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
"""Media type of Prometheus's text format."""

log = logging.getLogger("responsed.store")


class Metrics(Protocol):
    """Recorder of metrics; see `metrics`."""

    def record_request(self, route: str, status: int) -> None: ...
    def record_refusal(self, reason: str) -> None: ...
    def record_answer(self, summary: GenerationSummary) -> None: ...
    def render(self, state: MetricsState) -> bytes: ...


class Health(Struct, frozen=True):
    status: Literal["ok"] = "ok"
    fallback: str | UnsetType = UNSET
    """Reason for another engine than llama.cpp; absent if llama.cpp runs the model."""


class Version(Struct, frozen=True):
    version: str
    engine: str
    model: str


class HealthHandler:
    def __init__(
        self,
        engine: Generator,
        generations: Generations,
        model: AnsweringModel,
        store: AsyncStore | None,
        metrics: Metrics | None,
    ) -> None:
        self._engine = engine
        self._generations = generations
        self._n_slots = model.card.n_slots
        self._store = store
        self._store_error = ""
        """Why the store could not be written when readiness was asked last; empty if it could."""
        self._metrics = metrics
        self._health = msgspec.json.encode(Health(fallback=model.card.fallback or UNSET))
        self._model = model

    async def health(self, exchange: Exchange) -> None:
        """Answer whether the process works: otherwise only a restart helps."""
        if not self._engine.running:
            raise Unavailable("The engine has stopped: restart the server.")
        if self._engine.stuck:
            raise Unavailable("The model has not finished a step for too long: restart the server if this persists.")
        await exchange.answer(200, self._health)

    async def ready(self, exchange: Exchange) -> None:
        """Answer whether new requests are welcome: the server is not stopping, and the store can be written."""
        if self._generations.stopping:
            raise Unavailable("The server is shutting down; use another one.")
        if self._store is not None:
            try:
                await self._store.run(self._store.responses.check_writable)
                self._store_error = ""
            except StoreError as error:
                if self._store_error != (reason := str(error)):
                    self._store_error = reason
                    log.warning("not ready: %s", reason)
                raise Unavailable("The store cannot be written now: see the server log.") from error
        await self.health(exchange)

    async def version(self, exchange: Exchange) -> None:
        card = self._model.card
        await exchange.answer(200, msgspec.json.encode(Version(release(), card.engine, card.name)))

    async def metrics(self, exchange: Exchange) -> None:
        if self._metrics is None:
            raise NotFound("This server has no metrics; start it with --metrics true.")
        await exchange.answer(200, self._metrics.render(await self._state()), TEXT_FORMAT)

    async def _state(self) -> MetricsState:
        generations, store = self._generations, self._store
        return MetricsState(
            self._n_slots,
            generations.queue_limit,
            generations.running_by_lane,
            generations.waiting_by_lane,
            self._engine.stats(),
            self._engine.servers(),
            None if store is None else await store.usage(),
        )
