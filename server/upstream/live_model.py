"""The model of upstreams by the latest facts about them; before the first upstream has answered, there is none."""

from collections.abc import Collection, Sequence

from engine.chat_template import Message
from server.config import LiveConfig
from server.prompt import PreparedRequest
from server.served_model import AnsweringModel, ModelCard, OutputConstraints, Prompt
from server.store import AsyncStore
from server.upstream.chat import OPENAI_DEFAULTS
from server.upstream.discovery import DEFAULT_CONTEXT
from server.upstream.registry import UpstreamRegistry
from server.upstream.transport import faults
from server.work_thread import WorkThread


class LiveModel:
    def __init__(
        self, registry: UpstreamRegistry, config: LiveConfig, store: AsyncStore | None, work: WorkThread
    ) -> None:
        self._registry = registry
        self._parts = config, store, work
        self._source = registry.source
        self._opened: AnsweringModel | None = None
        self._aliases: Collection[str] = config.now.aliases

    @property
    def aliases(self) -> Collection[str]:
        return self._aliases

    @aliases.setter
    def aliases(self, names: Collection[str]) -> None:
        self._aliases = names
        if self._opened is not None:
            self._opened.aliases = names

    @property
    def card(self) -> ModelCard:
        if self._registry.source is not None:
            return self._model.card
        config = self._registry.config
        return ModelCard(
            name=self._registry.name,
            created=0,
            engine="upstream",
            n_ctx=config.context or DEFAULT_CONTEXT,
            n_slots=self._registry.n_slots,
            n_vocab=0,
            sampling=OPENAI_DEFAULTS,
        )

    def check_name(self, name: str | None) -> None:
        self._model.check_name(name)

    def effort(self, effort: str | None) -> str | None:
        return self._model.effort(effort)

    async def constraints(self, prepared: PreparedRequest) -> OutputConstraints:
        return await self._model.constraints(prepared)

    async def prompt(self, prepared: PreparedRequest, counts_only: bool = False) -> Prompt:
        return await self._model.prompt(prepared, counts_only)

    async def text_prompt(self, text: str | Sequence[int]) -> Prompt:
        return await self._model.text_prompt(text)

    async def summary_prompt(
        self, messages: Sequence[Message], prepared: PreparedRequest | None = None
    ) -> tuple[int, Prompt]:
        return await self._model.summary_prompt(messages, prepared)

    def forget(self, deleted_id: str, affinity: str | None) -> None:
        if self._opened is not None:
            self._opened.forget(deleted_id, affinity)

    @property
    def _model(self) -> AnsweringModel:
        """The model of the latest source. Raises Unavailable before there is one."""
        source = self._registry.source
        if source is None:
            raise faults.none_usable(self._registry.causes).error
        if self._opened is None or source is not self._source:
            self._opened, self._source = source.open(*self._parts), source
            self._opened.aliases = self._aliases
        return self._opened
