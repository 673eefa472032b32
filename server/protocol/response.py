"""The Response object and its parts. Data only.

Fields and their order follow openai-python's types and Open Responses' schema (2026-04-24), and both accept every
object: a field that either requires is always present, and a field that either forbids to be null is never null.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from server.protocol.formats import PLAIN, Format
from server.protocol.output_items import Item
from server.protocol.prompt_cache import AppliedCacheOptions, CacheComparison, Diagnostics, Retention
from server.protocol.tools import ToolChoice, ToolEcho

Status: TypeAlias = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
Times: TypeAlias = tuple[float | None, ...]
"""Seconds since the request was received, one of each token."""


class InputTokensDetails(Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Struct, frozen=True):
    reasoning_tokens: int
    forced_tokens: int | UnsetType = UNSET
    """Extension: tokens that a schema or a call format made certain; unset without any."""


class Usage(Struct, frozen=True):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


def counted_usage(prompt: int, cached: int, output: int, reasoned: int, forced: int = 0) -> Usage:
    """Return the usage of one job, from its numbers of tokens."""
    return Usage(
        input_tokens=prompt,
        input_tokens_details=InputTokensDetails(cached, prompt - cached),
        output_tokens=output,
        output_tokens_details=OutputTokensDetails(reasoned, forced or UNSET),
        total_tokens=prompt + output,
    )


def total_usage(usages: Iterable[Usage | None]) -> Usage:
    """Return the sum of usages."""
    return reduce(_sum, filter(None, usages), counted_usage(0, 0, 0, 0))


def _sum(one: Usage, other: Usage) -> Usage:
    inputs, more_inputs = one.input_tokens_details, other.input_tokens_details
    outputs, more_outputs = one.output_tokens_details, other.output_tokens_details
    return Usage(
        one.input_tokens + other.input_tokens,
        InputTokensDetails(
            inputs.cached_tokens + more_inputs.cached_tokens,
            inputs.cache_write_tokens + more_inputs.cache_write_tokens,
        ),
        one.output_tokens + other.output_tokens,
        OutputTokensDetails(
            outputs.reasoning_tokens + more_outputs.reasoning_tokens,
            (outputs.forced_tokens or 0) + (more_outputs.forced_tokens or 0) or UNSET,
        ),
        one.total_tokens + other.total_tokens,
    )


class ErrorInfo(Struct, frozen=True):
    code: str
    message: str


class IncompleteDetails(Struct, frozen=True):
    reason: str


class TextConfig(Struct, frozen=True):
    format: Format = PLAIN
    verbosity: str | UnsetType = UNSET
    """Echo of the request; it has no effect on local models."""


class Reasoning(Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None
    context: str | UnsetType = UNSET
    """Echo of the request."""
    mode: str | UnsetType = UNSET
    """`standard` if the request names a mode."""


class ConversationReference(Struct, frozen=True):
    id: str


class TokenColumns(Struct, frozen=True):
    """One entry for each token of the output but the end token. Tokens of one step have times in common."""

    decoding: Times
    """The model began to decode the token's step."""
    decoded: Times
    """The model had decoded the step."""
    sampled: Times
    """The token was picked."""
    handed_over: Times
    """The event loop had the token."""
    encoded: Times
    """The frame of its event was made. Null: not streamed, or sent together with the terminal event."""
    written: Times
    """The kernel had the bytes of the frame. Null as before."""
    event: tuple[int | None, ...]
    """Sequence number of the last event that left with the token; null if that is a closing event."""


class TokenTimes(Struct, frozen=True):
    """Times in seconds since the request was received."""

    received: float
    """Time at which the head of the request was read, in seconds of the server's monotonic clock (CLOCK_MONOTONIC)."""
    admitted: float
    """The response was admitted, with its prompt tokenized and its grammar compiled."""
    prefill_begun: float | None
    """The model began to evaluate the prompt; null if it never did."""
    prefill_done: float | None
    """The model had evaluated the prompt; null if there is no token."""
    tokens: TokenColumns


class Extensions(Struct, frozen=True, omit_defaults=True):
    """Facts about a response for which the specifications have no field."""

    skipped: tuple[str, ...] = ()
    """Fields, items, parts and tools of the request that had no effect."""
    unenforced: tuple[str, ...] = ()
    """Parts of schemas that were not enforced."""
    stop: str | None = None
    """Stop string that ended the output."""
    cache: CacheComparison | None = None
    """Comparison with an earlier prompt, if the request has `prompt_cache_options`."""
    upstream: tuple[str, ...] = ()
    """Fields of the upstream's API that the request needs and the upstream lacks."""
    fault: str | None = None
    """Cause of a failed response, where `error.code` has none of its own: openai-python's types name a few only."""
    token_times: TokenTimes | None = None
    """Times of each token, if the request has `return_token_times`."""
    continuation_id: str | None = None
    """`background_options.continuation_id` of the request: DELETE reads from the stored response whose cached prompts
    it removes."""


class Response(Struct, frozen=True, kw_only=True):
    """Response object. It echoes the effective settings."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status = "in_progress"
    background: bool = False
    completed_at: int | None = None
    conversation: ConversationReference | UnsetType = UNSET
    """Conversation that gets the input and output items at the end, unless the response fails."""
    error: ErrorInfo | None = None
    frequency_penalty: float = 0.0
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] = {}
    model: str
    output: tuple[Item, ...] = ()
    parallel_tool_calls: bool = True
    presence_penalty: float = 0.0
    previous_response_id: str | None = None
    prompt_cache_diagnostics: Diagnostics | UnsetType = UNSET
    prompt_cache_key: str | None = None
    prompt_cache_options: AppliedCacheOptions | UnsetType = UNSET
    prompt_cache_retention: Retention | UnsetType = UNSET
    reasoning: Reasoning = Reasoning()
    safety_identifier: str | None = None
    service_tier: Literal["default", "flex"] = "default"
    """Lane that the response had: `flex` is the batch lane."""
    store: bool = False
    temperature: float
    text: TextConfig = TextConfig()
    tool_choice: ToolChoice = "auto"
    tools: tuple[ToolEcho, ...] = ()
    top_logprobs: int = 0
    top_p: float
    truncation: Literal["auto", "disabled"] = "disabled"
    usage: Usage | None = None
    user: str | UnsetType = UNSET
    responsed: Extensions | UnsetType = UNSET


def with_facts(response: Response, **facts: Any) -> Response:
    """Return the response with more facts in its `Extensions`."""
    extensions = response.responsed if isinstance(response.responsed, Extensions) else Extensions()
    return replace(response, responsed=replace(extensions, **facts))
