"""The model that answers, as the API sees it."""

from collections.abc import Collection, Sequence

import msgspec
import trio
from msgspec import Struct

from engine import ChatTemplate, Message, ModelInfo, TemplateError, Tool, Vocabulary
from server.errors import InvalidRequest, NotFound
from server.exchange import Exchange

LONG_CHARACTERS = 1 << 16
"""Conversations longer than this are tokenized outside the event loop: they take more than 10 ms."""


class Served(Struct, frozen=True):
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


class Models:
    def __init__(self, served: Served, aliases: Collection[str]) -> None:
        self.served = served
        self._aliases = aliases

    async def list_all(self, exchange: Exchange) -> None:
        await exchange.answer(200, msgspec.json.encode(ModelList((self._object(),))))

    async def retrieve(self, exchange: Exchange, name: str) -> None:
        self.resolve(name)
        await exchange.answer(200, msgspec.json.encode(self._object()))

    def resolve(self, name: str | None) -> None:
        """Raises InvalidRequest, NotFound."""
        if name is None:
            raise InvalidRequest("`model` is missing: name the model that is to answer.", param="model")
        if name != self.served.name and name not in self._aliases and "*" not in self._aliases:
            raise NotFound(
                f"There is no model {name!r}; this server has {self.served.name!r} (--alias gives it more names).",
                param="model",
                code="model_not_found",
            )

    async def tokens(
        self, messages: Sequence[Message], effort: str | None = None, tools: Sequence[Tool] = ()
    ) -> list[int]:
        """The prompt; for the others see ChatTemplate. Raises InvalidRequest where the template refuses."""
        template = self.served.template
        try:
            said = sum(len(message.content) for message in messages)
            if said + sum(len(tool.parameters) for tool in tools) > LONG_CHARACTERS:
                return await trio.to_thread.run_sync(template.prompt, messages, effort, tools)
            return template.prompt(messages, effort, tools)
        except TemplateError as error:
            raise InvalidRequest(f"{str(error)[0].upper()}{str(error)[1:]}.", param="input") from error

    def _object(self) -> ModelObject:
        info = self.served.info
        meta = ModelMeta(info.engine, info.n_ctx, info.n_slots, info.n_vocab)
        return ModelObject(self.served.name, self.served.created, meta)
