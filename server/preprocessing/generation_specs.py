"""Middle stages of a request: build the prompt, compile its constraints, and specify the generation."""

from functools import cache, partial

from msgspec.structs import replace

from engine.job import Lane, SamplingParams
from server.config import Config, LiveConfig
from server.generation import GenerationSpec, Generator, Stage
from server.postprocessing import ReasoningSealer
from server.preprocessing.answer_stages import AnswerStages
from server.preprocessing.initial_response import initial_response
from server.preprocessing.lanes import lane_of
from server.preprocessing.mcp_stages import ApprovedStages, ListStages
from server.preprocessing.prompt_facts import NOT_COMPARED, prompt_made
from server.preprocessing.reasoning_seal import ReasoningSeal
from server.preprocessing.requester import Requester, origin_of
from server.prompt import PreparedRequest, affinity_group, affinity_key, compaction, options, volatile
from server.prompt.items import stored_items
from server.protocol import prompt_cache
from server.protocol.request import Request
from server.protocol.response import Response, with_facts
from server.served_model import UNCONSTRAINED, AnsweringModel, JobParams, OutputConstraints, Prompt
from server.store import AsyncStore
from server.work_thread import WorkThread


class SpecBuilder:
    def __init__(
        self,
        config: LiveConfig,
        engine: Generator,
        model: AnsweringModel,
        store: AsyncStore | None,
        seal: ReasoningSeal,
        work: WorkThread,
    ) -> None:
        self._live = config
        self._engine = engine
        self._model = model
        self._store = store
        self._seal = seal
        self._work = work
        self._volatile = volatile.patterns(config.now.volatile)
        self.stages = AnswerStages(config, model, work)

    @property
    def _config(self) -> Config:
        return self._live.now

    async def specify(self, prepared: PreparedRequest, requester: Requester) -> GenerationSpec:
        """Return the specification of the generation that answers the request. Raises as `build` does."""
        if prepared.compacts:
            request = compaction.summary_request(self._model.card.n_ctx, prepared.request)
            prepared = replace(prepared, request=request)
            spec, _ = await self._with_summary(prepared, UNCONSTRAINED, requester)
            return spec
        constraints = await self.stages.constraints(prepared)
        count, prompt = await self.stages.summarized_or_prompt(prepared)
        if prompt is None:
            spec, params = await self._with_summary(prepared, constraints, requester, count)
        else:
            spec, params = await self._built(prepared, prompt, requester, constraints)
            spec = replace(spec, follow=self.stages.after_calls(prepared, params, spec.processor))
        return self._with_opening(spec, params, prepared)

    def _with_opening(self, spec: GenerationSpec, params: JobParams, prepared: PreparedRequest) -> GenerationSpec:
        """Return the specification with lists of MCP tools, and with the calls that the user has approved, before it.

        The prompt of `spec` has no tools of these lists, and these calls without their outputs.
        """
        if prepared.mcp is None or not (prepared.mcp.unlisted or prepared.mcp.approved):
            return spec
        lists = bool(prepared.mcp.unlisted)

        async def first_stage(prepared: PreparedRequest, made: int) -> Stage:
            constraints = await self.stages.constraints(prepared)
            count, prompt = await self.stages.summarized_or_prompt(prepared)
            if prompt is None:
                stage = await self.stages.summary(prepared, constraints, params, count, made=made)
            else:
                texts = None if made else params.texts
                stage = await self.stages.answer(prepared, constraints, params, prompt, texts=texts)
                stage = replace(stage, follow=self.stages.after_calls(prepared, params, stage.processor, made))
                if lists and not made:
                    items = replace(prepared, items=params.texts or ())
                    found = await prompt.compare(items, spec.first.id, params.client, params.affinity)
                    return replace(stage, inputs=(prompt_made(constraints, found),), earlier=found.earlier)
            return replace(stage, inputs=(prompt_made(constraints),)) if lists else stage

        if lists:
            stages = ListStages(prepared, spec, first_stage, self._work)
            return replace(spec, opening=stages.inputs, follow=stages.follow)
        follow = ApprovedStages(prepared, first_stage, self._work).follow
        return replace(spec, opening=prepared.mcp.approved[0], follow=follow)

    async def _with_summary(
        self,
        prepared: PreparedRequest,
        constraints: OutputConstraints,
        requester: Requester,
        count: int | None = None,
    ) -> tuple[GenerationSpec, JobParams]:
        """Return the specification of a generation that summarizes the first `count` messages, and then answers.

        Without `count`, the summary of all messages is the answer.
        """
        part = await self._model.summary_prompt(prepared.messages[:count], prepared)
        spec, params = await self._built(prepared, part[1], requester, constraints)
        stage = await self.stages.summary(prepared, constraints, params, count, part)
        return replace(spec, job=stage.job, processor=stage.processor, follow=stage.follow), params

    async def build(
        self,
        prepared: PreparedRequest,
        prompt: Prompt,
        requester: Requester,
        constraints: OutputConstraints = UNCONSTRAINED,
    ) -> GenerationSpec:
        """Return the specification of the generation that continues a prompt.

        Raises InvalidRequest if the prompt leaves no space for an answer, or if a bias is for an unknown token.
        """
        spec, _ = await self._built(prepared, prompt, requester, constraints)
        return spec

    async def _built(
        self,
        prepared: PreparedRequest,
        prompt: Prompt,
        requester: Requester,
        constraints: OutputConstraints,
    ) -> tuple[GenerationSpec, JobParams]:
        """Return the specification, and the parameters of its job."""
        request, client = prepared.request, requester.client
        sampling = options.sampling(request, self._model.card.sampling)
        lane = lane_of(request, requester.caller)
        first = self._first(prepared, constraints, sampling, lane)
        key = affinity_key(request.prompt_cache_key, options.continuation_id(request))
        group = affinity_group(first.id, prepared.root, key, client)
        assert group is not None, "the client is known"
        texts = volatile.stable_items(prepared.items, prepared.messages, self._volatile)
        params = JobParams(
            request=request,
            field=prepared.field,
            sampling=sampling,
            constraints=constraints,
            effort=options.effort(request),
            limit=self._config.max_output_tokens,
            toolbox=prepared.toolbox,
            client=client,
            affinity=group,
            savable=request.prompt_cache_retention != "in_memory" and (first.store or self._config.snapshot_unstored),
            cache_seconds=prompt_cache.cache_seconds(request.prompt_cache_options, request.prompt_cache_retention),
            lane=lane,
            texts=texts,
            timed=bool(request.return_token_times),
            fronts=requester.fronts,
        )
        job = await prompt.job(params)
        compared = NOT_COMPARED
        if not prepared.lists_tools:  # otherwise the model gets another prompt
            compared = await prompt.compare(replace(prepared, items=texts), first.id, client, group)
        items = partial(stored_items.encode_input_items, request.input or (), first.id)
        spec = GenerationSpec(
            first=_with_lacking(compared.added_to(first), prompt.lacking(params)),
            job=job,
            processor=prompt.processor(prepared, options.stops(request)),
            items=cache(items) if self._config.log_content else items,  # for the log and the store
            logs_content=self._config.log_content,
            origin=origin_of(requester, prepared.skipped),
            caller=requester.caller,
            streamed=bool(request.stream),
            reports_progress=bool(request.return_progress),
            earlier=compared.earlier,
            sealer=await self._sealer(request),
            timed_since=requester.began if request.return_token_times else None,
        )
        return spec, params

    def _first(
        self, prepared: PreparedRequest, constraints: OutputConstraints, sampling: SamplingParams, lane: Lane
    ) -> Response:
        """Return the response as it begins."""
        request = prepared.request
        return initial_response(
            prepared,
            constraints,
            sampling,
            model=self._model.card.name,
            effort=self._model.effort(options.effort(request)),
            max_output_tokens=self._config.max_output_tokens,
            stored=self._store is not None and request.store is not False,
            lane=lane,
            queued=bool(request.background) or self._engine.full(lane),
        )

    async def _sealer(self, request: Request) -> ReasoningSealer | None:
        if not options.includes_sealed_reasoning(request):
            return None
        await self._seal.load()
        return ReasoningSealer(self._seal.seal)


def _with_lacking(first: Response, lacking: tuple[str, ...]) -> Response:
    """Return the response with the fields that the upstream lacks."""
    return with_facts(first, upstream=lacking) if lacking else first
