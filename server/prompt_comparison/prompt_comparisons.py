"""Compare the prompt of a request with an earlier one: for its response, and for the log."""

import time
from array import array
from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from engine.prefix_cache import common_length
from engine.tokenizer import Vocabulary
from engine.wording import counted
from server.generation import EarlierPrompt
from server.prompt import PreparedRequest, options
from server.prompt_comparison.comparison import NewPrompt, compare, repeated_tokens
from server.prompt_comparison.recent_prompts import PromptSettings, RecentPrompt, RecentPrompts, recent_prompt
from server.protocol.prompt_cache import (
    CacheComparison,
    CacheHit,
    CacheMiss,
    ComparisonResponseNotFound,
    Diagnostics,
    DiagnosticsUnavailable,
)
from server.protocol.response import Response, with_facts
from server.store import AsyncStore, StoreError
from server.work_thread import WorkThread

COSTLY_TOKENS = 256
"""Tokens that an earlier prompt has too, from which on the log explains why they were evaluated again."""

TOKEN_BYTES = 8
"""Bytes for which a token counts as work: 8,192 tokens take 15 ms."""


class Compared(Struct, frozen=True):
    """Comparison of a request's prompt with an earlier one."""

    diagnostics: Diagnostics | UnsetType = UNSET
    """For the response, if the request names a response to compare with."""
    cache: CacheComparison | None = None
    """For the response, if the request has `prompt_cache_options`."""
    earlier: EarlierPrompt = EarlierPrompt()
    """For the log and the metrics."""

    def added_to(self, response: Response) -> Response:
        """Return the response with the comparison."""
        if self.diagnostics is not UNSET:
            response = replace(response, prompt_cache_diagnostics=self.diagnostics)
        if self.cache is not None:
            response = with_facts(response, cache=self.cache)
        return response


class PromptComparisons:
    def __init__(
        self,
        vocabulary: Vocabulary,
        effort: Callable[[str | None], str | None],
        store: AsyncStore | None,
        work: WorkThread,
    ) -> None:
        """`effort`: returns the reasoning effort in effect."""
        self._bytes_of = vocabulary.bytes_of
        self._effort = effort
        self._store = store
        self._work = work
        self._recent = RecentPrompts()

    async def compare(
        self, prepared: PreparedRequest, tokens: Sequence[int], response_id: str, client: str, group: str
    ) -> Compared:
        """Return the comparison of a new prompt, and remember the prompt. Prompts without items are ignored."""
        if not prepared.items:
            return Compared()
        request = prepared.request
        asked = request.prompt_cache_options
        named = None if asked is None else asked.comparison_response_id
        old = self._earlier(named or request.previous_response_id, client, group)
        new = NewPrompt(array("i", tokens), prepared.items, self._settings(prepared))
        self._recent.add(recent_prompt(response_id, client, group, new.tokens, prepared.items[-1].text, new.settings))
        if old is None:
            diagnostics = UNSET if named is None else await self._without_prompt(named)
            return Compared(diagnostics, earlier=EarlierPrompt(reason="first_prompt"))
        repeated = _repeated(old.tokens, new.tokens)
        reusable = common_length(old.tokens, new.tokens)
        if asked is None and repeated < COSTLY_TOKENS:
            return Compared(earlier=EarlierPrompt(reusable))
        found = await self._work.run(TOKEN_BYTES * len(new.tokens), compare, old, new, self._bytes_of)
        earlier = _earlier_prompt(found, reusable, repeated)
        if asked is None:
            return Compared(earlier=earlier)
        return Compared(UNSET if named is None else _diagnostics(found), found, earlier)

    def _earlier(self, response_id: str | None, client: str, group: str) -> RecentPrompt | None:
        """Return the prompt of a response, or without an id the latest one of the client's group."""
        return self._recent.find(response_id, client) if response_id else self._recent.latest(client, group)

    def forget(self, deleted_id: str, affinity: str | None) -> None:
        """Forget the prompts of an affinity group; None: of the deleted response's, or all if that is not known."""
        self._recent.forget(deleted_id, affinity)

    def _settings(self, prepared: PreparedRequest) -> PromptSettings:
        tools = [(tool.name, tool.description, tool.parameters) for tool in prepared.toolbox.rendered]
        return PromptSettings(
            hash(tuple(tools)),
            hash(msgspec.json.encode(prepared.request.format)),
            self._effort(options.effort(prepared.request)),
            sum(item.place.type == "compaction" for item in prepared.items),
        )

    async def _without_prompt(self, response_id: str) -> Diagnostics:
        if self._store is None:
            return ComparisonResponseNotFound()
        try:
            stored = await self._store.run(self._store.responses.get, response_id, time.monotonic())
        except StoreError:
            return DiagnosticsUnavailable()
        return ComparisonResponseNotFound() if stored is None else DiagnosticsUnavailable()


def _earlier_prompt(found: CacheComparison, reusable: int, repeated: int) -> EarlierPrompt:
    """Return the comparison for the log, with the reason for which tokens are evaluated again, if they are many."""
    if repeated < COSTLY_TOKENS:
        return EarlierPrompt(reusable, repeated)
    return EarlierPrompt(reusable, repeated, found.reason or "input_changed", _place(found), _note(found, repeated))


def _repeated(old: "array[int]", new: "array[int]") -> int:
    """Return the number of tokens after the difference that both prompts have, if the difference is costly."""
    return repeated_tokens(old, new) if _is_costly(old, new) else 0


def _is_costly(old: "array[int]", new: "array[int]") -> bool:
    """True if the prompts differ so early that many tokens may have to be evaluated again."""
    end = min(len(old), len(new)) - COSTLY_TOKENS
    return end > 0 and old[:end] != new[:end]


def _diagnostics(found: CacheComparison) -> Diagnostics:
    if not found.missed_tokens:
        return CacheHit()
    return CacheMiss(found.missed_tokens, found.reason or "input_changed", found.reusable_tokens)


def _note(found: CacheComparison, repeated: int) -> str:
    """Return the log's sentence. It has places and numbers only, and no content."""
    return (
        f"the prompt differs from that of {found.response_id} {_place(found)}; about {repeated} equal tokens after "
        "the difference were evaluated again (--volatile moves a changing line to the end)"
    )


def _place(found: CacheComparison) -> str:
    place = found.difference
    if place is None:
        return f"after {counted(found.reusable_tokens, 'token')}"
    item = "" if place.item is None else f", item {place.item} ({place.type})"
    return f"in `{place.field}`{item}, {counted(place.character, 'character')} in"
