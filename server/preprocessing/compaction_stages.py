"""Stages of a generation that begins with a summary of the conversation, in parts if that is too long."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from engine.chat_template import Message
from server.generation import NextStage, Stage
from server.postprocessing import SummaryProcessor
from server.prompt import PreparedRequest, compaction, options
from server.served_model import UNCONSTRAINED, AnsweringModel, JobParams, Prompt

EFFORT = "minimal"
"""Reasoning effort whose budget applies to a summary, so that the summary has room."""
Answer: TypeAlias = Callable[[str], Awaitable[Stage]]
"""Function that returns the stage of the answer after a summary."""


class CompactionStages:
    def __init__(
        self, model: AnsweringModel, prepared: PreparedRequest, params: JobParams, answer: Answer | None
    ) -> None:
        """`params`: of any job of the request. `answer`: None if the summary is the answer."""
        self._model = model
        self._prepared = prepared
        request = compaction.summary_request(model.card.n_ctx)
        self._params = replace(
            params,
            request=request,
            sampling=options.sampling(request, model.card.sampling),
            constraints=UNCONSTRAINED,
            toolbox=replace(params.toolbox, choice="auto"),
            effort=EFFORT,
            limit=0,
            texts=None,
        )
        self._answer = answer

    async def stage(self, messages: Sequence[Message], count: int, prompt: Prompt) -> Stage:
        """Return the stage that summarizes the first `count` messages by the prompt."""
        last = count == len(messages)
        processor = SummaryProcessor(prompt.processor(self._prepared, ()), visible=last)

        async def next_part(*_: object) -> Stage:
            left = compaction.remaining_messages(messages, count, processor.text)
            return await self.stage(left, *await self._model.summary_prompt(left, self._prepared))

        follow: NextStage | None = next_part
        if last:
            follow = None if self._answer is None else lambda *_: self._answer_stage(processor)
        return Stage(job=await prompt.job(self._params), processor=processor, follow=follow)

    async def _answer_stage(self, processor: SummaryProcessor) -> Stage:
        assert self._answer is not None, "a stage follows the summary only if there is an answer"
        return await self._answer(processor.text)
