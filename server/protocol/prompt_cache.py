"""Fields of the prompt cache in requests and responses. Data only.

Names and values are those of openai-python 3.57: `response_create_params.py`, `response.py`, and, of Chat Completions,
`completion_create_params.py`.
"""

from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

Mode: TypeAlias = Literal["implicit", "explicit"]
Ttl: TypeAlias = Literal["30m", "12h"]
Retention: TypeAlias = Literal["in_memory", "24h"]
DEFAULT_TTL: Ttl = "30m"
TTL_SECONDS: dict[Ttl, float] = {"30m": 1800.0, "12h": 43_200.0}
DAY_SECONDS = 86_400.0


class CacheOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Field `prompt_cache_options` of Chat Completions and `POST /v1/responses/compact`."""

    mode: Mode | None = None
    ttl: Ttl | None = None


class ResponseCacheOptions(CacheOptions, frozen=True, forbid_unknown_fields=True):
    """Field `prompt_cache_options` of `POST /v1/responses`."""

    prewarm: bool | None = None
    """True to evaluate the prompt and generate nothing."""
    comparison_response_id: str | None = None
    """Response whose prompt the request's prompt is compared with."""


class Breakpoint(Struct, frozen=True, forbid_unknown_fields=True):
    """Field `prompt_cache_breakpoint` of a part: a later prompt may differ after the part."""

    mode: Literal["explicit"]
    ttl: Ttl | None = None


class AppliedCacheOptions(Struct, frozen=True):
    """Field `prompt_cache_options` of a response."""

    mode: Mode
    ttl: Ttl
    comparison_response_id: str | UnsetType = UNSET


def applied(options: ResponseCacheOptions | None) -> AppliedCacheOptions | UnsetType:
    """Return the options for the response; UNSET if the request has none.

    The mode is always implicit: every prompt is cached, since an unchanged prefix costs nothing.
    """
    if options is None:
        return UNSET
    return AppliedCacheOptions("implicit", options.ttl or DEFAULT_TTL, options.comparison_response_id or UNSET)


def unused(options: CacheOptions | None) -> list[str]:
    """Return the names of options without effect here, for the log and the response."""
    return ["prompt_cache_options.mode"] if options is not None and options.mode == "explicit" else []


def cache_seconds(options: CacheOptions | None, retention: Retention | None) -> float:
    """Return the seconds for which the request wants its prompt in the cache; 0 if it names none."""
    ttl = 0.0 if options is None or options.ttl is None else TTL_SECONDS[options.ttl]
    return max(ttl, DAY_SECONDS if retention == "24h" else 0.0)


Reason: TypeAlias = Literal[
    "model_changed",
    "prompt_cache_key_changed",
    "tools_changed",
    "text_format_changed",
    "reasoning_effort_changed",
    "verbosity_changed",
    "context_compacted",
    "input_changed",
    "service_tier_changed",
]


class CacheMiss(Struct, frozen=True, tag="cache_miss"):
    """The prompt differs from the compared one."""

    cache_missed_tokens: int
    """Tokens of the prompt after the first difference."""
    reason: Reason
    comparison_reusable_tokens: int
    """Tokens before the first difference."""


class CacheHit(Struct, frozen=True, tag="cache_hit"):
    """The prompt continues the compared one, and the cache had all of it."""


class ComparisonResponseNotFound(Struct, frozen=True, tag="comparison_response_not_found"):
    """There is no such response."""


class DiagnosticsUnavailable(Struct, frozen=True, tag="unavailable"):
    """The compared prompt is not in memory, or the cache has lost tokens of it."""


Diagnostics: TypeAlias = CacheMiss | CacheHit | ComparisonResponseNotFound | DiagnosticsUnavailable
"""Field `prompt_cache_diagnostics` of a response."""


class PromptDifference(Struct, frozen=True, omit_defaults=True):
    """Place in the request at which its prompt begins to differ from an earlier one."""

    field: str
    character: int
    """Characters of the text before the difference."""
    text: str
    """A few words of the request around the difference, which is marked by `|`."""
    item: int | None = None
    """Index in the field's list."""
    type: str = ""
    """Type of the item."""


class CacheComparison(Struct, frozen=True, omit_defaults=True):
    """Comparison of a prompt with an earlier one."""

    response_id: str
    """Response with the earlier prompt."""
    reusable_tokens: int
    """Tokens before the first difference."""
    missed_tokens: int
    """Tokens after it; 0 if the prompt continues the earlier one."""
    reason: Reason | None = None
    difference: PromptDifference | None = None
    evicted_tokens: int = 0
    """Reusable tokens that the KV cache had no longer."""
