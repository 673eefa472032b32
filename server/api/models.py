"""`/v1/models`: list the model under its name and its aliases."""

import msgspec
from msgspec import UNSET, Struct, UnsetType

from server.api.codex_catalog import CodexModel, codex_model
from server.http import Exchange
from server.served_model import AnsweringModel


class ModelMeta(Struct, frozen=True):
    engine: str
    n_ctx: int
    n_slots: int
    n_vocab: int
    n_ctx_train: int
    """Tokens of context in training; 0 if the file does not name them."""
    n_params: int
    size: int
    """Bytes of the file's tensors."""
    quantization: str
    """Type of most weights, as GGUF names it."""
    sha256: str
    """SHA-256 of the file; for a split file, that of each part, separated by spaces."""
    capabilities: tuple[str, ...]
    lacking: tuple[str, ...] | UnsetType = UNSET
    """Fields that the upstream lacks; absent if it lacks none."""


class ModelObject(Struct, frozen=True):
    id: str
    created: int
    meta: ModelMeta
    object: str = "model"
    owned_by: str = "responsed"


class ModelList(Struct, frozen=True):
    data: tuple[ModelObject, ...]
    object: str = "list"
    models: tuple[CodexModel, ...] | UnsetType = UNSET
    """The catalog of Codex CLI, for a request with its `client_version`."""


class ModelsHandler:
    def __init__(self, model: AnsweringModel) -> None:
        self._model = model

    async def list_all(self, exchange: Exchange) -> None:
        own = self._model.card.name
        names = tuple(dict.fromkeys(name for name in (own, *self._model.aliases) if name not in ("*", "")))
        models: tuple[CodexModel, ...] | UnsetType = UNSET
        if "client_version" in exchange.query:
            models = tuple(codex_model(name, self._model.card.n_ctx, self._model.card.reasons) for name in names)
        await exchange.answer(200, msgspec.json.encode(ModelList(tuple(map(self._object, names)), models=models)))

    async def retrieve(self, exchange: Exchange, name: str) -> None:
        self._model.check_name(name)
        await exchange.answer(200, msgspec.json.encode(self._object(name)))

    def _object(self, name: str) -> ModelObject:
        card, file = self._model.card, self._model.card.file
        meta = ModelMeta(
            card.engine,
            card.n_ctx,
            card.n_slots,
            card.n_vocab,
            n_ctx_train=file.n_ctx_train,
            n_params=file.n_params,
            size=file.size,
            quantization=file.quantization,
            sha256=file.sha256,
            capabilities=self._capabilities(),
            lacking=card.lacking or UNSET,
        )
        return ModelObject(name, card.created, meta)

    def _capabilities(self) -> tuple[str, ...]:
        reasoning = ["reasoning"] if self._model.card.reasons else []
        known = ("responses", "chat", "tools", "structured_output", "logprobs", *reasoning)
        return tuple(name for name in known if name not in self._model.card.lacking)
