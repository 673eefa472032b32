"""Stages of a generation that begins with a summary of the conversation, in parts if that is too long."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from engine.chat_template import Message
from engine.job import Job, SamplingParams
from server.generation import NextStage, Stage
from server.prompt import PreparedRequest, TokenCounter, builder, compaction
from server.served_model import RENDERINGS, UNCONSTRAINED, ServedModel
from server.stream import SummaryProcessor, ToolCallMapper

EFFORT = "minimal"
"""Reasoning effort whose budget applies to a summary, so that the summary has room."""
Answer: TypeAlias = Callable[[str], Awaitable[Stage]]
"""Function that returns the stage of the answer after a summary."""


SummaryPrompt: TypeAlias = Callable[[Sequence[Message]], Awaitable[tuple[int, list[int]]]]
"""Function that returns the number of messages to summarise next, and the prompt that asks for it."""


async def summary_prompt(
    messages: Sequence[Message],
    model: ServedModel,
    prepared: PreparedRequest,
    moved: Callable[[Sequence[Message]], Sequence[Message]],
) -> tuple[int, list[int]]:
    """Return the number of messages to summarise next, and the prompt. Raises InvalidRequest.

    The prompt has the tools of the request and its volatile lines in their place (`moved`), so that the KV cache has
    most of it.
    """

    def part(messages: Sequence[Message], tokens: TokenCounter) -> tuple[int, list[int]]:
        n_ctx, max_bytes = model.served.info.n_ctx, model.most_bytes
        return compaction.next_part(messages, lambda some: tokens(moved(some)), n_ctx, max_bytes)

    effort, variables = builder.effort(prepared.request), builder.template_variables(prepared.request)
    return await model.render(messages, part, RENDERINGS, effort, prepared.toolbox.tools, variables=variables)


class CompactionStages:
    def __init__(
        self,
        model: ServedModel,
        prompt: SummaryPrompt,
        job: Job,
        sampling: SamplingParams,
        mapper: Callable[[list[int]], ToolCallMapper | None],
        answer: Answer | None,
    ) -> None:
        """`job`: any job of the request. `sampling`: of a summary. `answer`: None if the summary is the answer."""
        self._model = model
        self._prompt = prompt
        self._job = job
        self._sampling = sampling
        self._mapper = mapper
        self._answer = answer

    async def stage(self, messages: Sequence[Message], count: int, tokens: list[int]) -> Stage:
        """Return the stage that summarises the first `count` messages by the prompt `tokens`."""
        last = count == len(messages)
        processor = SummaryProcessor(self._model.served.vocabulary, len(tokens), self._mapper(tokens), visible=last)

        async def next_part(*_: object) -> Stage:
            left = compaction.remaining_messages(messages, count, processor.text)
            return await self.stage(left, *await self._prompt(left))

        follow: NextStage | None = next_part
        if last:
            follow = None if self._answer is None else lambda *_: self._answer_stage(processor)
        return Stage(job=await self._summary_job(tokens), processor=processor, follow=follow)

    async def _answer_stage(self, processor: SummaryProcessor) -> Stage:
        assert self._answer is not None, "a stage follows the summary only if there is an answer"
        return await self._answer(processor.text)

    async def _summary_job(self, tokens: list[int]) -> Job:
        limit = compaction.summary_tokens(self._model.served.info.n_ctx)
        return replace(
            self._job,
            prompt=tuple(tokens),
            max_tokens=limit,
            sampling=self._sampling,
            checkpoints=(),
            grammar=await self._model.grammar(UNCONSTRAINED, tokens, EFFORT, limit),
            top_logprobs=None,
        )
