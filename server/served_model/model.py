"""The loaded model: its prompts and its constraints."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import msgspec
import trio
from msgspec import Struct

from engine.chat_template import ChatTemplate, Message, TemplateError, Tool
from engine.constraint import Grammar, GrammarError
from engine.gguf import FileFacts
from engine.model import ModelInfo
from engine.structured_output import CompileCache, K, V
from engine.tokenizer import TokenBound, Vocabulary, no_bound
from server.prompt import PreparedRequest, TokenCounter, options, truncation
from server.protocol.errors import InvalidRequest
from server.protocol.request import Request
from server.served_model.constraint_builder import ConstraintBuilder
from server.served_model.output_constraints import UNCONSTRAINED, OutputConstraints, constraint_spec
from server.work_thread import Check, WorkThread

RENDERINGS = 8
"""Approximate number of renderings that truncating a conversation takes."""
COUNTED_BYTES = 1 << 20
"""Bytes up to which a prompt is counted even if it cannot fit the context; a larger one would take seconds."""
WITHOUT_OPTIONS = PreparedRequest(request=Request())

T = TypeVar("T")
Rendering: TypeAlias = Callable[[Sequence[Message], TokenCounter], T]


class LoadedModel(Struct, frozen=True):
    name: str
    created: int
    """When the file was made, in seconds."""
    info: ModelInfo
    vocabulary: Vocabulary
    template: ChatTemplate
    file: FileFacts = FileFacts()
    fallback: str = ""
    """Reason why llama.cpp does not run the model; empty if it does, or if another engine was requested."""


class ServedModel:
    def __init__(self, loaded: LoadedModel, work: WorkThread) -> None:
        self.loaded = loaded
        self._work = work
        self._constraints = ConstraintBuilder(loaded.vocabulary, loaded.template)
        self.effort = self._constraints.effort
        self._compiling = trio.CapacityLimiter(1)

    async def tokens(
        self,
        messages: Sequence[Message],
        prepared: PreparedRequest,
        most: int | None = None,
        counts_only: bool = False,
        bound: TokenBound = no_bound,
    ) -> list[int]:
        """Return the prompt. It has more than `most` tokens only if the last turn alone does (see `truncation`).

        `prepared`, `counts_only`: see `render`. `bound` gets the number of tokens so far, unless old turns may be
        dropped.
        """
        if most is None:
            return await self.render(messages, lambda whole, tokens: tokens(whole), 1, prepared, counts_only, bound)
        messages = truncation.last_within(messages, self.most_bytes)
        fitted = partial(truncation.fit_last_turns, max_tokens=most)
        return await self.render(messages, fitted, RENDERINGS, prepared)

    async def prompt_tokens(self, prompt: str | Sequence[int], bound: TokenBound) -> list[int]:
        """Return a prompt without a chat template. `bound`: see `tokens`. Raises InvalidRequest for unknown token
        ids."""
        vocabulary = self.loaded.vocabulary
        if not isinstance(prompt, str):
            return await self._work.run(len(prompt), self._known_ids, prompt)
        self._check_size(len(prompt.encode()), self.most_bytes, "prompt")
        return await self._work.run_checked(
            len(prompt), lambda check: vocabulary.encode_prompt(prompt, bound=_checked(check, bound))
        )

    def _known_ids(self, prompt: Sequence[int]) -> list[int]:
        """Return the ids. Raises InvalidRequest for one that the model does not have."""
        size = len(self.loaded.vocabulary)
        if (wrong := next((id_ for id_ in prompt if not 0 <= id_ < size), None)) is not None:
            message = f"`prompt` has the token {wrong}; this model has those from 0 to {size - 1}."
            raise InvalidRequest(message, param="prompt")
        return list(prompt)

    @property
    def most_bytes(self) -> int:
        """Bytes that a prompt in the context can have at most."""
        return self.loaded.info.n_ctx * self.loaded.vocabulary.max_token_bytes

    async def render(
        self,
        messages: Sequence[Message],
        how: Rendering[T],
        times: int = 1,
        prepared: PreparedRequest = WITHOUT_OPTIONS,
        counts_only: bool = False,
        bound: TokenBound = no_bound,
    ) -> T:
        """Call `how` with the messages and a function that renders them, at most `times` times; return its result.

        `prepared`: request whose options the template gets. `counts_only`: `COUNTED_BYTES` may be rendered even if
        they do not fit into the context. Raises InvalidRequest for more bytes, and for messages that the template
        refuses.
        """
        tools, variables = prepared.toolbox.rendered, options.template_variables(prepared.request)
        effort = options.effort(prepared.request)
        prompt = partial(self.loaded.template.prompt, effort=effort, tools=tools, variables=variables)

        most_bytes = max(self.most_bytes, COUNTED_BYTES) if counts_only else self.most_bytes

        def work(check: Check) -> T:
            def bounded(some: Sequence[Message]) -> list[int]:
                self._check_size(sum(map(truncation.message_bytes, some)), most_bytes, "input")
                return prompt(some, bound=_checked(check, bound))

            return how(messages, bounded)

        characters = sum(map(_characters, messages)) + sum(map(_tool_characters, tools))
        characters += len(msgspec.json.encode(variables)) if variables else 0
        try:
            return await self._work.run_checked(characters * times, work)
        except TemplateError as error:
            raise InvalidRequest(f"{str(error)[0].upper()}{str(error)[1:]}.", param="input") from error

    async def constraints(self, prepared: PreparedRequest) -> OutputConstraints:
        """Return the constraints of the answer to a request. Raises InvalidRequest."""
        called = {call.name for message in prepared.messages for call in message.calls}
        asked = constraint_spec(prepared.request.format, prepared.schema_field, prepared.toolbox, called)
        if asked.format is None and not asked.all_specs and asked.uncallable is None:
            return UNCONSTRAINED
        return await self._compiled(self._constraints.build, asked)

    async def grammar(
        self, constraints: OutputConstraints, tokens: Sequence[int], effort: str | None, max_tokens: int
    ) -> Grammar | None:
        """Return the constraint of the job that answers the prompt `tokens`; see ConstraintBuilder.

        Raises InvalidRequest.
        """
        if (key := self._constraints.key(constraints, tokens, effort, max_tokens)) is None:
            return None
        try:
            tag = await self._compiled(self._constraints.tags, key.without_budget)
        except GrammarError as error:
            raise InvalidRequest(f"The answer cannot be constrained: {error}.") from error
        return tag.with_budget(key.budget)

    async def _compiled(self, cache: CompileCache[K, V], key: K) -> V:
        """Return a cached value at once, even while another one is being compiled."""
        if (value := cache.get(key)) is not None:
            return value
        return await trio.to_thread.run_sync(cache, key, limiter=self._compiling)

    def _check_size(self, size: int, most: int, name: str) -> None:
        """Raise InvalidRequest for a text, of the field `name`, of more than `most` bytes."""
        if size > most:
            raise InvalidRequest(
                f"The {name} has {size} bytes, and the model's context has {self.loaded.info.n_ctx} tokens. "
                f"Shorten the {name}, or start the server with a larger --context.",
                param=name,
                code="context_length_exceeded",
            )


def _checked(check: Check, bound: TokenBound) -> TokenBound:
    def checked(count: int) -> None:
        check()
        bound(count)

    return checked


def _tool_characters(tool: Tool) -> int:
    return len(tool.description) + len(tool.parameters)


def _characters(message: Message) -> int:
    return len(message.content) + len(message.reasoning) + sum(len(call.arguments) for call in message.calls)
