"""Tokens of a request's prompt, within the limits of the server."""

import itertools
from collections.abc import Sequence
from functools import partial

from engine.chat_template import Message
from engine.tokenizer import TokenBound, no_bound
from server.config import LiveConfig
from server.prompt import PreparedRequest, jobs, volatile
from server.served_model.model import ServedModel

ANY_TWO_TEXTS = ("a", "b")
"""Texts of the user. Their prompts differ where the user's first message begins."""


class PromptTokens:
    def __init__(self, config: LiveConfig, model: ServedModel) -> None:
        self._config = config
        self._model = model
        self._volatile = volatile.patterns(config.now.volatile)

    async def of(self, prepared: PreparedRequest, counts_only: bool = False) -> list[int]:
        """Return the tokens of the prompt. `counts_only`: it may be longer than the context. Raises InvalidRequest."""
        if not prepared.open_ended:
            return await self._tokens(prepared, prepared.messages, counts_only)
        one, other = [
            await self._tokens(prepared, [*prepared.messages, Message("user", text)], counts_only)
            for text in ANY_TWO_TEXTS
        ]
        pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
        return [token for token, _ in pairs]

    async def _tokens(self, prepared: PreparedRequest, messages: Sequence[Message], counts_only: bool) -> list[int]:
        n_ctx = self._model.loaded.info.n_ctx
        refuse = self.bound(prepared.field)
        tokens = await self._model.tokens(
            volatile.moved(messages, self._volatile),
            prepared,
            jobs.max_prompt_tokens(prepared.request, n_ctx, self._config.now.max_prompt_tokens),
            counts_only,
            no_bound if counts_only else refuse,
        )
        if not counts_only:
            refuse(min(len(tokens), n_ctx))  # `jobs.job` counts what is too long for the context
        return tokens

    def bound(self, name: str) -> TokenBound:
        """Return the function that refuses a count of prompt tokens beyond the limits. `name`: field of the prompt."""
        limit = self._config.now.max_prompt_tokens
        return partial(jobs.refuse_more, n_ctx=self._model.loaded.info.n_ctx, name=name, limit=limit)
