"""Answers of upstreams about their model: the list of models, and what some servers have beside it. Data only."""

from msgspec import Struct

MAX_NAME = 512
"""Characters of a model's name."""
MAX_CONTEXT = 1 << 31
"""More tokens than any context has."""
VERSIONS = {"llamacpp": "/props", "vllm": "/version"}
"""Path of a server's own version by the kind of the server."""


def _first_context(*counts: int | None) -> int:
    """Return the first number of tokens that a context can have; 0 if there is none."""
    return next((each for each in counts if each and 0 < each <= MAX_CONTEXT), 0)


class ModelFacts(Struct):
    n_ctx: int | None = None
    n_params: int | None = None
    size: int | None = None


class ListedModel(Struct):
    id: str
    created: int | None = None
    owned_by: str | None = None
    """`llamacpp`, `vllm`, `sglang`."""
    max_model_len: int | None = None
    """vLLM and SGLang."""
    context_length: int | None = None
    """LiteLLM and OpenRouter."""
    meta: ModelFacts | None = None
    """llama.cpp and responsed."""

    def is_named(self, wanted: str | None) -> bool:
        """Return whether the model has a name; None stands for any that fits on a line."""
        if wanted is not None:
            return self.id == wanted
        return 0 < len(self.id) <= MAX_NAME and self.id.isprintable()

    @property
    def context(self) -> int:
        """Tokens of the context; 0 if the list does not name them."""
        own = None if self.meta is None else self.meta.n_ctx
        return _first_context(self.max_model_len, self.context_length, own)


class ListedModels(Struct):
    data: list[ListedModel]


class GenerationSettings(Struct):
    n_ctx: int | None = None


class ServerProperties(Struct):
    """llama.cpp's `/props` and vLLM's `/version`."""

    default_generation_settings: GenerationSettings | None = None
    build_info: str = ""
    model_path: str = ""
    chat_template: str = ""
    version: str = ""

    @property
    def n_ctx(self) -> int:
        return 0 if self.default_generation_settings is None else _first_context(self.default_generation_settings.n_ctx)


class SglangSettings(Struct):
    enable_deterministic_inference: bool = False
    grammar_backend: str | None = None
    is_known: bool = True

    @property
    def unsafe(self) -> frozenset[str]:
        """Return the fields that end SGLang's process: `min_p` with deterministic inference, known or not."""
        return frozenset({"min_p"} if self.enable_deterministic_inference or not self.is_known else ())
