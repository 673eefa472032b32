"""The model that this process has loaded, behind the interface that the rest of the server uses."""

from collections.abc import Collection, Sequence
from functools import partial

from engine.chat_template import Message
from server.config import LiveConfig
from server.prompt import PreparedRequest, TokenCounter, compaction, volatile
from server.prompt_comparison import PromptComparisons
from server.served_model.interface import ModelCard, check_name
from server.served_model.model import RENDERINGS, LoadedModel, ServedModel
from server.served_model.prompt_tokens import PromptTokens
from server.served_model.token_prompt import TokenPrompt
from server.store import AsyncStore
from server.work_thread import WorkThread


class ModelDetails(LoadedModel, frozen=True):
    def open(self, config: LiveConfig, store: AsyncStore | None, work: WorkThread) -> "EmbeddedModel":
        return EmbeddedModel(self, config, store, work)


class EmbeddedModel:
    def __init__(self, loaded: LoadedModel, config: LiveConfig, store: AsyncStore | None, work: WorkThread) -> None:
        info = loaded.info
        self.card = ModelCard(
            name=loaded.name,
            created=loaded.created,
            engine=info.engine,
            n_ctx=info.n_ctx,
            n_slots=info.n_slots,
            n_vocab=info.n_vocab,
            sampling=config.now.sampling,
            reasons=bool(loaded.template.dialect.reasoning_tags),
            file=loaded.file,
            fallback=loaded.fallback,
        )
        self.aliases: Collection[str] = config.now.aliases
        model = self._model = ServedModel(loaded, work)
        self.effort, self.constraints = model.effort, model.constraints
        self._tokens = PromptTokens(config, model)
        self._comparisons = PromptComparisons(loaded.vocabulary, model.effort, store, work)
        self._volatile = volatile.patterns(config.now.volatile)

    def check_name(self, name: str | None) -> None:
        check_name(name, self.card.name, self.aliases)

    async def prompt(self, prepared: PreparedRequest, counts_only: bool = False) -> TokenPrompt:
        return self._prompt(await self._tokens.of(prepared, counts_only))

    async def text_prompt(self, text: str | Sequence[int]) -> TokenPrompt:
        bound = self._tokens.bound("prompt")
        tokens = await self._model.prompt_tokens(text, bound)
        bound(min(len(tokens), self.card.n_ctx))
        return self._prompt(tokens)

    async def summary_prompt(
        self, messages: Sequence[Message], prepared: PreparedRequest | None = None
    ) -> tuple[int, TokenPrompt]:
        model, n_ctx = self._model, self.card.n_ctx
        if prepared is None:
            part = partial(compaction.next_part, n_ctx=n_ctx, max_bytes=model.most_bytes)
            count, tokens = await model.render(messages, part, RENDERINGS)
            return count, self._prompt(tokens)

        def moved_part(messages: Sequence[Message], tokens: TokenCounter) -> tuple[int, list[int]]:
            def moved(some: Sequence[Message]) -> list[int]:
                return tokens(volatile.moved(some, self._volatile))

            return compaction.next_part(messages, moved, n_ctx, model.most_bytes)

        count, tokens = await model.render(messages, moved_part, RENDERINGS, prepared)
        return count, self._prompt(tokens)

    def forget(self, deleted_id: str, affinity: str | None) -> None:
        self._comparisons.forget(deleted_id, affinity)

    def _prompt(self, tokens: list[int]) -> TokenPrompt:
        return TokenPrompt(self._model, self._comparisons, tokens)
