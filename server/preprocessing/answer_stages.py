"""Stages of a generation: the answer to a prompt, a summary before it, and answers after calls of MCP tools."""

from collections.abc import Sequence

from msgspec.structs import replace

from server.config import LiveConfig
from server.generation import NextStage, Stage
from server.postprocessing import Processor
from server.preprocessing.compaction_stages import CompactionStages
from server.preprocessing.entry_limits import EntryLimits
from server.preprocessing.mcp_stages import McpStages
from server.prompt import ItemText, PreparedRequest, compaction, options
from server.protocol.errors import InvalidRequest
from server.served_model import AnsweringModel, JobParams, OutputConstraints, Prompt
from server.work_thread import WorkThread


class AnswerStages:
    def __init__(self, config: LiveConfig, model: AnsweringModel, work: WorkThread) -> None:
        self._config = config
        self._model = model
        self._work = work

    async def constraints(self, prepared: PreparedRequest) -> OutputConstraints:
        """Return the compiled constraints of the answer. Raises InvalidRequest for what cannot be enforced."""
        EntryLimits.of(self._config.now).check_schemas(prepared)
        return await self._model.constraints(prepared)

    async def summarized_or_prompt(self, prepared: PreparedRequest) -> tuple[int, Prompt | None]:
        """Return the number of messages to summarize before the answer, and the prompt if that needs no summary."""
        n_ctx = self._model.card.n_ctx
        threshold = compaction.threshold(prepared.request, min(n_ctx, self._config.now.max_prompt_tokens or n_ctx))
        count = 0 if threshold is None else compaction.count_to_summarize(prepared.messages)
        return count, await self._prompt_below(prepared, threshold if count else None)

    async def _prompt_below(self, prepared: PreparedRequest, threshold: int | None) -> Prompt | None:
        """Return the prompt; None if it has `threshold` tokens or more, or more than the context has."""
        try:
            prompt = await self._model.prompt(prepared)
        except InvalidRequest as error:
            if threshold is None or error.code != "context_length_exceeded":
                raise
            return None
        return None if threshold is not None and len(prompt) >= threshold else prompt

    async def answer(
        self,
        prepared: PreparedRequest,
        constraints: OutputConstraints,
        params: JobParams,
        prompt: Prompt,
        written: int = 0,
        texts: Sequence[ItemText] | None = None,
    ) -> Stage:
        """Return the stage of the answer, like `params` with this prompt. `written`: tokens of the answer before."""
        request = prepared.request
        limited = replace(request, max_output_tokens=_left(request.max_output_tokens, written))
        limit = _left(params.limit, written) or 0
        params = replace(
            params, request=limited, limit=limit, constraints=constraints, toolbox=prepared.toolbox, texts=texts
        )
        job = await prompt.job(params)
        return Stage(job=job, processor=prompt.processor(prepared, options.stops(request)))

    async def summary(
        self,
        prepared: PreparedRequest,
        constraints: OutputConstraints,
        params: JobParams,
        count: int | None,
        part: tuple[int, Prompt] | None = None,
        made: int = 0,
    ) -> Stage:
        """Return the first stage of a summary, like `params` with another prompt. `part`: that prompt, if it is known.

        `made`: calls of MCP tools that the response has made.
        """

        async def answer(text: str) -> Stage:
            messages = compaction.with_summary(prepared.messages, count or 0, text)
            shorter = replace(prepared, messages=messages)
            stage = await self.answer(shorter, constraints, params, await self._model.prompt(shorter))
            return replace(stage, follow=self.after_calls(prepared, params, stage.processor, made))

        messages = prepared.messages[:count]
        part = part or await self._model.summary_prompt(messages, prepared)
        stages = CompactionStages(self._model, prepared, params, None if count is None else answer)
        return await stages.stage(messages, *part)

    def after_calls(
        self, prepared: PreparedRequest, params: JobParams, processor: Processor, made: int = 0
    ) -> NextStage | None:
        """Return the function that executes the model's calls of MCP tools; None if the request has none."""

        async def next_job(prepared: PreparedRequest, written: int) -> Stage:
            prompt = await self._model.prompt(prepared)
            return await self.answer(prepared, await self.constraints(prepared), params, prompt, written)

        return None if prepared.mcp is None else McpStages(prepared, processor, next_job, self._work, made).follow


def _left(limit: int | None, written: int) -> int | None:
    """Return the tokens left of a limit; at least one, which then ends the answer."""
    return max(limit - written, 1) if limit else limit
