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

    async def of(self, prepared: PreparedRequest, least_bytes: int = 0) -> list[int]:
        """Return the tokens of the prompt. `least_bytes`: see `ServedModel.render`. Raises InvalidRequest."""
        if not prepared.open_ended:
            return await self._tokens(prepared, prepared.messages, least_bytes)
        one, other = [
            await self._tokens(prepared, [*prepared.messages, Message("user", text)], least_bytes)
            for text in ANY_TWO_TEXTS
        ]
        pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
        return [token for token, _ in pairs]

    async def _tokens(self, prepared: PreparedRequest, messages: Sequence[Message], least_bytes: int) -> list[int]:
        n_ctx = self._model.loaded.info.n_ctx
        # The count of an endpoint that only counts may exceed the context.
        refuse = self.bound(prepared.field)
        tokens = await self._model.tokens(
            volatile.moved(messages, self._volatile),
            prepared,
            jobs.max_prompt_tokens(prepared.request, n_ctx, self._config.now.max_prompt_tokens),
            least_bytes,
            no_bound if least_bytes else refuse,
        )
        if not least_bytes:
            refuse(min(len(tokens), n_ctx))  # `jobs.job` counts what is too long for the context
        return tokens

    def bound(self, name: str) -> TokenBound:
        """Return the function that refuses a count of prompt tokens beyond the limits. `name`: field of the prompt."""
        limit = self._config.now.max_prompt_tokens
        return partial(jobs.refuse_more, n_ctx=self._model.loaded.info.n_ctx, name=name, limit=limit)
