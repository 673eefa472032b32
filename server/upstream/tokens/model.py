"""The model of upstream servers that continue tokens: prompts, grammars and parsers are those of the embedded model."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.chat_template import ChatTemplate
from engine.model import ModelInfo
from engine.tokenizer import Vocabulary
from server.config import LiveConfig
from server.prompt import PreparedRequest
from server.prompt_comparison import PromptComparisons
from server.served_model import EmbeddedModel, JobParams, LoadedModel, ServedModel, TokenPrompt
from server.store import AsyncStore
from server.upstream.tokens.processor import TokenProcessor
from server.upstream.tokens.servers import wanted_fields
from server.work_thread import WorkThread


class TokenModelSource(Struct, frozen=True, kw_only=True):
    """Facts about the model: its server's, and those of its vocabulary."""

    name: str
    """Name at the upstream."""
    created: int
    n_ctx: int
    n_slots: int
    vocabulary: Vocabulary
    template: ChatTemplate
    lacking: frozenset[str] = frozenset()
    """Fields that have no effect at an upstream."""

    def open(self, config: LiveConfig, store: AsyncStore | None, work: WorkThread) -> "TokenModel":
        return TokenModel(self, config, store, work)


class TokenModel(EmbeddedModel):
    def __init__(
        self, source: TokenModelSource, config: LiveConfig, store: AsyncStore | None, work: WorkThread
    ) -> None:
        info = ModelInfo(
            engine="upstream",
            n_ctx=source.n_ctx,
            n_slots=source.n_slots,
            n_vocab=len(source.vocabulary),
            max_batch_tokens=source.n_ctx,
            batched=True,
            copies_prefixes=False,
            multi_row_logits=False,
            saves_state=False,
            cuts_state=False,
            truncates=True,
        )
        loaded = LoadedModel(source.name, source.created, info, source.vocabulary, source.template)
        super().__init__(loaded, config, store, work)
        self.card = replace(self.card, lacking=tuple(sorted(source.lacking)))

    def _prompt(self, tokens: list[int]) -> "UpstreamTokenPrompt":
        return UpstreamTokenPrompt(self._model, self._comparisons, tokens, self.card.lacking)


class UpstreamTokenPrompt(TokenPrompt):
    def __init__(
        self, model: ServedModel, comparisons: PromptComparisons, tokens: list[int], lacking: Sequence[str]
    ) -> None:
        super().__init__(model, comparisons, tokens)
        self._lacking = lacking

    def lacking(self, params: JobParams) -> tuple[str, ...]:
        wanted = wanted_fields(params.sampling)
        if params.request.top_logprobs is not None or params.request.include:
            wanted |= {"logprobs"}
        return tuple(name for name in self._lacking if name in wanted)

    def processor(self, prepared: PreparedRequest, stops: Sequence[str]) -> TokenProcessor:
        return TokenProcessor(self._model.loaded.vocabulary, len(self.tokens), stops, self._tool_calls(prepared))
