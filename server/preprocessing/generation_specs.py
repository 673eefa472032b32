"""Middle stages of a request: build the prompt, compile its constraints, and specify the generation."""

from collections.abc import Sequence
from functools import partial

from msgspec.structs import replace

from engine.constraint import Grammar
from engine.job import Job
from engine.runtime import Engine
from server.config import Config
from server.generation import EarlierPrompt, GenerationSpec, NextStage, Stage
from server.http import ITEM_BYTES, WorkThread
from server.preprocessing.compaction_stages import CompactionStages, summary_prompt
from server.preprocessing.entry_limits import EntryLimits
from server.preprocessing.initial_response import initial_response
from server.preprocessing.lanes import lane_of
from server.preprocessing.mcp_stages import McpStages
from server.preprocessing.prompt_tokens import PromptTokens
from server.preprocessing.reasoning_seal import ReasoningSeal
from server.preprocessing.requester import Requester, origin_of
from server.prompt import (
    ItemText,
    PreparedRequest,
    breakpoints,
    builder,
    checkpoints,
    compaction,
    stored_items,
    volatile,
)
from server.prompt_comparison import PromptComparisons
from server.protocol import prompt_cache
from server.protocol.errors import InvalidRequest
from server.protocol.formats import PlainFormat
from server.protocol.request import Request
from server.served_model import UNCONSTRAINED, OutputConstraints, ServedModel
from server.store import AsyncStore
from server.stream import OutputProcessor, ReasoningSealer, StreamInput, ToolCallMapper


class SpecBuilder:
    def __init__(
        self,
        config: Config,
        engine: Engine,
        model: ServedModel,
        store: AsyncStore | None,
        comparisons: PromptComparisons,
        seal: ReasoningSeal,
        work: WorkThread,
    ) -> None:
        self._config = config
        self._engine = engine
        self._model = model
        self._store = store
        self._comparisons = comparisons
        self._seal = seal
        self._work = work
        self._volatile = volatile.patterns(config.volatile)
        self.limits = EntryLimits.of(config)
        self.prompts = PromptTokens(config, model)

    async def constraints(self, prepared: PreparedRequest) -> OutputConstraints:
        """Return the compiled constraints of the answer. Raises InvalidRequest for what cannot be enforced."""
        self.limits.check_schemas(prepared)
        format_ = prepared.request.format
        return await self._model.constraints(format_, prepared.schema_field, prepared.toolbox, prepared.messages)

    async def specify(self, prepared: PreparedRequest, requester: Requester, repeats: bool = False) -> GenerationSpec:
        """Return the specification of the generation that answers the request. Raises as `build` does."""
        n_ctx = self._model.served.info.n_ctx
        if prepared.compacts:
            prepared = replace(prepared, request=compaction.summarising(prepared.request, n_ctx))
            return await self._with_summary(prepared, UNCONSTRAINED, requester, repeats)
        constraints = await self.constraints(prepared)
        threshold = compaction.threshold(prepared.request, min(n_ctx, self._config.max_prompt_tokens or n_ctx))
        count = 0 if threshold is None else compaction.summarised(prepared.messages)
        tokens = await self._tokens_below(prepared, threshold if count else None)
        if tokens is None:
            return await self._with_summary(prepared, constraints, requester, repeats, count)
        spec = await self.build(prepared, tokens, requester, constraints, repeats)
        return replace(spec, opening=_opening(prepared), follow=self._mcp_stages(prepared, spec.job, spec.processor))

    def _mcp_stages(self, prepared: PreparedRequest, job: Job, processor: OutputProcessor) -> NextStage | None:
        """Return the function that executes the model's calls of MCP tools; None if the request has none."""

        async def next_job(prepared: PreparedRequest, written: int) -> Stage:
            return await self._answer(prepared, await self.constraints(prepared), job, written)

        return None if prepared.mcp is None else McpStages(prepared, processor, next_job, self._work).follow

    async def _tokens_below(self, prepared: PreparedRequest, threshold: int | None) -> list[int] | None:
        """Return the tokens of the prompt; None if there are `threshold` or more, or more than the context has."""
        try:
            tokens = await self.prompts.of(prepared)
        except InvalidRequest as error:
            if threshold is None or error.code != "context_length_exceeded":
                raise
            return None
        return None if threshold is not None and len(tokens) >= threshold else tokens

    async def _with_summary(
        self,
        prepared: PreparedRequest,
        constraints: OutputConstraints,
        requester: Requester,
        repeats: bool,
        count: int | None = None,
    ) -> GenerationSpec:
        """Return the specification of a generation that summarises the first `count` messages, and then answers.

        Without `count`, the summary of all messages is the answer.
        """

        async def answer(text: str) -> Stage:
            messages = compaction.with_summary(prepared.messages, count or 0, text)
            stage = await self._answer(replace(prepared, messages=messages), constraints, spec.job)
            return replace(stage, follow=self._mcp_stages(prepared, spec.job, stage.processor))

        messages = prepared.messages[:count]
        moved = partial(volatile.moved, patterns=self._volatile)
        prompt = partial(summary_prompt, model=self._model, prepared=prepared, moved=moved)
        part, tokens = await prompt(messages)
        spec = await self.build(prepared, tokens, requester, constraints, repeats)
        sampling = builder.sampling(compaction.summary_request(self._model.served.info.n_ctx), self._config.sampling)
        mapper = partial(self._tool_calls, prepared)
        stages = CompactionStages(self._model, prompt, spec.job, sampling, mapper, None if count is None else answer)
        stage = await stages.stage(messages, part, tokens)
        opening = () if count is None else _opening(prepared)
        return replace(spec, job=stage.job, processor=stage.processor, follow=stage.follow, opening=opening)

    async def _answer(
        self, prepared: PreparedRequest, constraints: OutputConstraints, job: Job, written: int = 0
    ) -> Stage:
        """Return the stage of the answer, like `job` with another prompt. `written`: tokens of the answer before it."""
        request, n_ctx = prepared.request, self._model.served.info.n_ctx
        tokens = await self.prompts.of(prepared)
        limit = _left(self._config.max_output_tokens, written)
        limited = replace(request, max_output_tokens=_left(request.max_output_tokens, written))
        max_tokens = builder.job(limited, tokens, job.sampling, n_ctx, limit or 0, prepared.field).max_tokens
        grammar = await self._grammar(request, constraints, tokens, max_tokens)
        job = replace(job, prompt=tuple(tokens), max_tokens=max_tokens, checkpoints=(), grammar=grammar)
        return Stage(job=job, processor=self._processor(prepared, tokens))

    def _processor(self, prepared: PreparedRequest, tokens: list[int]) -> OutputProcessor:
        stops, mapper = builder.stops(prepared.request), self._tool_calls(prepared, tokens)
        return OutputProcessor(self._model.served.vocabulary, len(tokens), stops, mapper)

    async def build(
        self,
        prepared: PreparedRequest,
        tokens: list[int],
        requester: Requester,
        constraints: OutputConstraints = UNCONSTRAINED,
        repeats: bool = False,
    ) -> GenerationSpec:
        """Return the specification of the generation that continues `tokens`. `repeats`: see GenerationSpec.

        Raises InvalidRequest if the prompt leaves no space for an answer, or if a bias is for an unknown token.
        """
        request, served = prepared.request, self._model.served
        lane = lane_of(request, requester.caller)
        sampling = builder.sampling(request, self._config.sampling)
        builder.check_bias(sampling, served.info.n_vocab)
        job = builder.job(request, tokens, sampling, served.info.n_ctx, self._config.max_output_tokens, prepared.field)
        first = initial_response(
            prepared,
            constraints,
            sampling,
            model=served.name,
            effort=self._model.effort(builder.effort(request)),
            max_output_tokens=self._config.max_output_tokens,
            stored=self._store is not None and request.store is not False,
            lane=lane,
            queued=bool(request.background) or self._engine.full(lane),
        )
        group = prepared.root or builder.affinity(request, requester.client) or first.id
        texts = volatile.stable_items(prepared.items, prepared.messages, self._volatile)
        compared = await self._comparisons.compare(
            replace(prepared, items=texts), tokens, first.id, requester.client, group
        )
        job = replace(
            job,
            client=requester.client,
            affinity=group,
            savable=request.prompt_cache_retention != "in_memory" and (first.store or self._config.snapshot_unstored),
            cache_seconds=prompt_cache.cache_seconds(request.prompt_cache_options, request.prompt_cache_retention),
            checkpoints=self._checkpoints(tokens, texts),
            grammar=await self._grammar(request, constraints, tokens, job.max_tokens),
            lane=lane,
            timed=bool(request.return_token_times),
        )
        recorded = first.store or first.conversation
        items = await self._encoded_items(request, first.id) if recorded else b"[]"
        return GenerationSpec(
            first=compared.added_to(first),
            job=job,
            processor=self._processor(prepared, tokens),
            items=items,
            origin=origin_of(requester, prepared.skipped),
            caller=requester.caller,
            streamed=bool(request.stream),
            reports_progress=bool(request.return_progress),
            earlier=EarlierPrompt(
                compared.reusable_tokens, compared.repeated_tokens, compared.reason, compared.place, compared.note
            ),
            repeats=repeats,
            sealer=await self._sealer(request),
            timed_since=requester.began if request.return_token_times else None,
        )

    async def _sealer(self, request: Request) -> ReasoningSealer | None:
        if not builder.includes_sealed_reasoning(request):
            return None
        await self._seal.load()
        return ReasoningSealer(self._seal.seal)

    async def _grammar(
        self, request: Request, constraints: OutputConstraints, tokens: list[int], max_tokens: int
    ) -> Grammar | None:
        if not max_tokens:
            return None
        return await self._model.grammar(constraints, tokens, builder.effort(request), max_tokens)

    async def _encoded_items(self, request: Request, response_id: str) -> bytes:
        input_ = request.input or ()
        size = len(input_) if isinstance(input_, str) else len(input_) * ITEM_BYTES
        return await self._work.run(size, stored_items.encode_input_items, input_, response_id)

    def _checkpoints(self, tokens: list[int], texts: Sequence[ItemText]) -> tuple[int, ...]:
        """Return the prompt's checkpoints; none if the model needs none."""
        info, template = self._model.served.info, self._model.served.template
        if not info.saves_state or info.cuts_state:
            return ()
        named = breakpoints.token_positions(tokens, texts, self._model.served.vocabulary.bytes_of)
        return tuple(sorted({*checkpoints.turn_ends(tokens, template.marks), *named}))

    def _tool_calls(self, prepared: PreparedRequest, tokens: list[int]) -> ToolCallMapper | None:
        """Return the mapper of reasoning and calls in the model's output; None if all output is text."""
        if prepared.plain_text:
            return None
        template, toolbox = self._model.served.template, prepared.toolbox
        formatted = not (isinstance(prepared.request.format, PlainFormat) or toolbox.must_call)
        if (parser := template.parser(tokens, toolbox.argument_schemas, bare=not formatted)) is None:
            return None
        return ToolCallMapper(
            parser, template.marks, toolbox.calls, toolbox.parallel, allows_text=not toolbox.must_call
        )


def _left(limit: int | None, written: int) -> int | None:
    """Return what a limit of tokens leaves, at least one, which ends the answer."""
    return max(limit - written, 1) if limit else limit


def _opening(prepared: PreparedRequest) -> tuple[StreamInput, ...]:
    """Return the inputs of the stream before the answer: the lists of tools that MCP servers have."""
    return () if prepared.mcp is None else prepared.mcp.opening
