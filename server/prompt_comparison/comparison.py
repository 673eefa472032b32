"""Compare a prompt with an earlier one: the first difference, its place in the request, and its price. Pure."""

from array import array
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from engine.prefix_cache import common_length
from server.prompt import ItemText
from server.prompt_comparison.recent_prompts import PromptSettings, RecentPrompt
from server.protocol.prompt_cache import CacheComparison, PromptDifference, Reason

BytesOf: TypeAlias = Callable[[int], bytes]
AROUND = 24
"""Characters before and after the difference in `PromptDifference.text`."""
NGRAM_SIZE = 8
"""Tokens in a row that count as repeated."""
LONGEST_TOKENS = 16
"""Tokens after the difference whose bytes are compared, since a token may begin alike."""


class NewPrompt(Struct, frozen=True):
    """Prompt of a request."""

    tokens: "array[int]"
    items: Sequence[ItemText]
    settings: PromptSettings


def compare(old: RecentPrompt, new: NewPrompt, bytes_of: BytesOf) -> CacheComparison:
    """Return the comparison. A prompt that continues the old one, or only its messages, has no difference."""
    shared = common_length(old.tokens, new.tokens)
    if shared == min(len(old.tokens), len(new.tokens)):
        return CacheComparison(old.response_id, shared, 0)
    rendered = _rendered(new.tokens, bytes_of)
    offset = _offset(old.tokens, new.tokens, shared, bytes_of)
    if offset >= _messages_end(old, bytes_of):
        return CacheComparison(old.response_id, shared, 0)
    return CacheComparison(
        old.response_id,
        shared,
        len(new.tokens) - shared,
        _reason(old.settings, new.settings),
        _locate(rendered, offset, new.items, old.settings.tools != new.settings.tools),
    )


def repeated_tokens(old: "array[int]", new: "array[int]") -> int:
    """Return about how many tokens after the first difference both prompts have, perhaps at other positions."""
    shared = common_length(old, new)
    ngrams = {old[at : at + NGRAM_SIZE].tobytes() for at in range(shared, len(old) - NGRAM_SIZE + 1)}
    count, at = 0, shared
    while at + NGRAM_SIZE <= len(new):
        found = new[at : at + NGRAM_SIZE].tobytes() in ngrams
        count += NGRAM_SIZE * found
        at += NGRAM_SIZE if found else 1
    return count


def _offset(old: "array[int]", new: "array[int]", shared: int, bytes_of: BytesOf) -> int:
    """Return the number of bytes before the first difference."""
    one, other = (_rendered(each[shared : shared + LONGEST_TOKENS], bytes_of) for each in (old, new))
    alike = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return len(_rendered(new[:shared], bytes_of)) + alike


def _rendered(tokens: "array[int]", bytes_of: BytesOf) -> bytes:
    """Return the bytes of a prompt, with the number of each control token between NULs."""
    return b"".join(bytes_of(token) or b"\0%d\0" % token for token in tokens)


def _messages_end(old: RecentPrompt, bytes_of: BytesOf) -> int:
    """Return the number of bytes up to the end of the old prompt's last item."""
    rendered = _rendered(old.tokens, bytes_of)
    tail = old.tail.encode()
    at = rendered.rfind(tail) if tail else -1
    return len(rendered) if at < 0 else at + len(tail)


def _reason(old: PromptSettings, new: PromptSettings) -> Reason:
    """Return the first setting that differs, in OpenAI's order."""
    if old.tools != new.tools:
        return "tools_changed"
    if old.text_format != new.text_format:
        return "text_format_changed"
    if old.effort != new.effort:
        return "reasoning_effort_changed"
    return "context_compacted" if old.compactions != new.compactions else "input_changed"


def _locate(rendered: bytes, offset: int, items: Sequence[ItemText], tools_changed: bool) -> PromptDifference | None:
    """Return the item at `offset`: the one around it, or else the next one, whose role or marker differs.

    Items that the template writes in another form are not found, and skipped.
    """
    end = 0
    for item in items:
        text = item.text.strip().encode()
        at = rendered.find(text, end) if text else -1
        if at < 0:
            continue
        if offset < at and tools_changed:
            break
        end = at + len(text)
        if offset <= end:
            return _difference(item, text, max(offset - at, 0))
    return PromptDifference("tools", character=0, text="") if tools_changed else None


def _difference(item: ItemText, text: bytes, at: int) -> PromptDifference:
    before = text[:at].decode(errors="ignore")
    after = text.decode()[len(before) :]
    lead = len(item.text) - len(item.text.lstrip())
    around = f"{before[-AROUND:]}|{after[:AROUND]}"
    return PromptDifference(item.place.field, lead + len(before), around, item.place.index, item.place.type)
