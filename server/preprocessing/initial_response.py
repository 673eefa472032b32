"""Build the response of `response.created`: the effective values of all settings, and no output."""

import time
from os import urandom

from msgspec import UNSET, UnsetType

from engine.job import Lane, SamplingParams
from server.preprocessing.prompt_facts import MAX_UNENFORCED
from server.prompt import PreparedRequest, options
from server.protocol import formats, prompt_cache
from server.protocol.request import ReasoningOptions, Request
from server.protocol.response import ConversationReference, Extensions, Reasoning, Response, TextConfig
from server.served_model import OutputConstraints

MAX_SKIPPED = 100
"""Number of skipped fields and items that a response names; clients can send any number of them."""


def initial_response(
    prepared: PreparedRequest,
    constraints: OutputConstraints,
    sampling: SamplingParams,
    *,
    model: str,
    effort: str | None,
    max_output_tokens: int,
    lane: Lane,
    stored: bool,
    queued: bool,
) -> Response:
    """Return a new response to a request. `model`, `effort`: effective model name and reasoning effort.

    `max_output_tokens`: limit of the server; 0 without one.
    """
    request = prepared.request
    toolbox = prepared.toolbox.in_effect(constraints.loose)
    return Response(
        id=f"resp_{urandom(16).hex()}",
        created_at=int(time.time()),
        frequency_penalty=sampling.frequency_penalty,
        status="queued" if queued else "in_progress",
        background=bool(request.background),
        conversation=ConversationReference(name) if (name := request.conversation_id) is not None else UNSET,
        model=request.model or model,
        instructions=request.instructions,
        max_output_tokens=_effective_limit(request.max_output_tokens, max_output_tokens),
        max_tool_calls=request.max_tool_calls,
        metadata=request.metadata or {},
        parallel_tool_calls=request.parallel_tool_calls is not False,
        presence_penalty=sampling.presence_penalty,
        previous_response_id=request.previous_response_id,
        prompt_cache_key=request.prompt_cache_key,
        prompt_cache_options=prompt_cache.applied(request.prompt_cache_options),
        prompt_cache_retention=request.prompt_cache_retention or UNSET,
        reasoning=_reasoning(request, effort),
        responsed=_extensions(prepared, constraints),
        safety_identifier=request.safety_identifier,
        service_tier="flex" if lane is Lane.BATCH else "default",
        store=stored,
        temperature=sampling.temperature,
        text=_text(prepared, constraints),
        tool_choice=toolbox.choice,
        tools=toolbox.echo,
        top_logprobs=request.top_logprobs or 0,
        top_p=sampling.top_p,
        truncation=request.truncation or "disabled",
        user=request.user or UNSET,
    )


def _text(prepared: PreparedRequest, constraints: OutputConstraints) -> TextConfig:
    """Return the echo of the text options."""
    request = prepared.request
    echoed = formats.echoed(request.format, prepared.schema_field not in constraints.unenforced)
    return TextConfig(echoed, (request.text and request.text.verbosity) or UNSET)


def _reasoning(request: Request, effort: str | None) -> Reasoning:
    """Return the echo of the reasoning options; `effort` is the one in effect."""
    wanted = request.reasoning or ReasoningOptions()
    mode = UNSET if wanted.mode is None else "standard"
    return Reasoning(effort, options.summary(request), wanted.context or UNSET, mode)


def _extensions(prepared: PreparedRequest, constraints: OutputConstraints) -> Extensions | UnsetType:
    extensions = Extensions(
        prepared.skipped[:MAX_SKIPPED],
        constraints.unenforced[:MAX_UNENFORCED],
        continuation_id=options.continuation_id(prepared.request),
    )
    return UNSET if extensions == Extensions() else extensions


def _effective_limit(requested: int | None, limit: int) -> int | None:
    """Return the limit of an answer's tokens; None if the request sets none."""
    return requested if requested is None or not limit else min(requested, limit)
