"""Facts about the prompt cache that are known at the end of a response. Pure."""

from msgspec import UnsetType
from msgspec.structs import replace

from server.protocol.prompt_cache import CacheHit, DiagnosticsUnavailable
from server.protocol.response import Response, Usage, with_facts

MIN_EVICTED_TOKENS = 16
"""Tokens that count as lost: fewer are evaluated again rather than copied from another slot."""


def evicted_tokens(reusable_tokens: int, usage: Usage) -> int:
    """Return the number of tokens that an earlier prompt has, and the cache had no longer."""
    reusable = min(reusable_tokens, usage.input_tokens - 1)  # the last token is always evaluated
    evicted = reusable - usage.input_tokens_details.cached_tokens
    return evicted if evicted >= MIN_EVICTED_TOKENS else 0


def with_evictions(response: Response, usage: Usage) -> Response:
    """Return the response with the number of tokens that the compared prompt has, and the cache had no longer.

    The specification has no reason for a loss, so the diagnostics of a prompt that continues the compared one become
    unavailable.
    """
    extensions = response.responsed
    if isinstance(extensions, UnsetType) or extensions.cache is None:
        return response
    evicted = evicted_tokens(extensions.cache.reusable_tokens, usage)
    if not evicted:
        return response
    if isinstance(response.prompt_cache_diagnostics, CacheHit):
        response = replace(response, prompt_cache_diagnostics=DiagnosticsUnavailable())
    return with_facts(response, cache=replace(extensions.cache, evicted_tokens=evicted))
