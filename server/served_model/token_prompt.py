"""A prompt in the loaded model's own tokens, with the job that continues it and the processor of its output."""

from collections.abc import Sequence

from msgspec.structs import replace

from engine.job import Job
from server.postprocessing import OutputProcessor, ToolCallMapper
from server.prompt import ItemText, PreparedRequest, breakpoints, checkpoints, jobs
from server.prompt_comparison import Compared, PromptComparisons
from server.protocol.formats import PlainFormat
from server.served_model.interface import JobParams
from server.served_model.model import ServedModel

NEVER = -10_000.0
"""Bias of a token that is chosen only if a grammar allows no other, such as after the end of a JSON object."""


class TokenPrompt:
    def __init__(self, model: ServedModel, comparisons: PromptComparisons, tokens: list[int]) -> None:
        self._model = model
        self._comparisons = comparisons
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    async def job(self, params: JobParams) -> Job:
        """Return the job that continues the prompt.

        Raises InvalidRequest if the prompt leaves no space for an answer, or if a bias is for an unknown token.
        """
        info, tokens = self._model.loaded.info, self.tokens
        jobs.check_bias(params.sampling, info.n_vocab)
        sampling = params.sampling
        if params.request.ignore_eos:
            ends = dict.fromkeys(self._model.loaded.vocabulary.end_tokens, NEVER)
            sampling = replace(sampling, logit_bias=sampling.logit_bias | ends)
        job = jobs.job(params.request, tokens, sampling, info.n_ctx, params.limit, params.field)
        grammar = None
        if job.max_tokens:
            grammar = await self._model.grammar(params.constraints, tokens, params.effort, job.max_tokens)
        return replace(
            job,
            client=params.client,
            affinity=params.affinity,
            savable=params.savable,
            cache_seconds=params.cache_seconds,
            checkpoints=() if params.texts is None else self._checkpoints(params.texts),
            grammar=grammar,
            lane=params.lane,
            timed=params.timed,
        )

    def lacking(self, params: JobParams) -> tuple[str, ...]:
        """Return nothing: this server has all of its own fields."""
        return ()

    def processor(self, prepared: PreparedRequest, stops: Sequence[str]) -> OutputProcessor:
        return OutputProcessor(self._model.loaded.vocabulary, len(self.tokens), stops, self._tool_calls(prepared))

    async def compare(self, prepared: PreparedRequest, response_id: str, client: str, group: str) -> Compared:
        return await self._comparisons.compare(prepared, self.tokens, response_id, client, group)

    def _checkpoints(self, texts: Sequence[ItemText]) -> tuple[int, ...]:
        """Return the prompt's checkpoints; none if the model needs none."""
        info, template = self._model.loaded.info, self._model.loaded.template
        if not info.saves_state or info.cuts_state:
            return ()
        named = breakpoints.token_positions(self.tokens, texts, self._model.loaded.vocabulary.bytes_of)
        return tuple(sorted({*checkpoints.turn_ends(self.tokens, template.marks), *named}))

    def _tool_calls(self, prepared: PreparedRequest) -> ToolCallMapper | None:
        """Return the mapper of reasoning and calls in the model's output; None if all output is text."""
        if prepared.plain_text:
            return None
        template, toolbox = self._model.loaded.template, prepared.toolbox
        formatted = not (isinstance(prepared.request.format, PlainFormat) or toolbox.must_call)
        if (parser := template.parser(self.tokens, toolbox.argument_schemas, bare=not formatted)) is None:
            return None
        return ToolCallMapper(
            parser, template.marks, toolbox.calls, toolbox.parallel, allows_text=not toolbox.must_call
        )
