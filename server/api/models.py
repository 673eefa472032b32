"""`/v1/models`: list the model under its name and its aliases."""

import msgspec
from msgspec import UNSET, Struct, UnsetType

from server.api.codex_catalogue import CodexModel, codex_model
from server.http import Exchange
from server.served_model import ServedModel


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
    capabilities: tuple[str, ...]


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
    """The catalogue of Codex CLI, for a request with its `client_version`."""


class ModelsHandler:
    def __init__(self, model: ServedModel) -> None:
        self._model = model

    async def list_all(self, exchange: Exchange) -> None:
        own = self._model.served.name
        names = (own, *(alias for alias in self._model.aliases if alias not in ("*", own)))
        models: tuple[CodexModel, ...] | UnsetType = UNSET
        if "client_version" in exchange.query:
            models = tuple(codex_model(name, self._model.served.info.n_ctx, self._thinks) for name in names)
        await exchange.answer(200, msgspec.json.encode(ModelList(tuple(map(self._object, names)), models=models)))

    async def retrieve(self, exchange: Exchange, name: str) -> None:
        self._model.resolve(name)
        await exchange.answer(200, msgspec.json.encode(self._object(name)))

    def _object(self, name: str) -> ModelObject:
        info, file = self._model.served.info, self._model.served.file
        meta = ModelMeta(
            info.engine,
            info.n_ctx,
            info.n_slots,
            info.n_vocab,
            n_ctx_train=file.n_ctx_train,
            n_params=file.n_params,
            size=file.size,
            quantization=file.quantization,
            capabilities=self._capabilities(),
        )
        return ModelObject(name, self._model.served.created, meta)

    def _capabilities(self) -> tuple[str, ...]:
        return ("responses", "chat", "tools", "structured_output", "logprobs", *(["reasoning"] if self._thinks else []))

    @property
    def _thinks(self) -> bool:
        return bool(self._model.served.template.dialect.reasoning_tags)
