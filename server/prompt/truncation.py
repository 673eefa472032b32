"""What of a conversation fits: `truncation: "auto"` drops the oldest turns, until an answer has room. Pure.

More goes than must: whole quarters of the room. So the next turns begin where this one does, and find their beginning
in the KV cache, instead of evaluating all that is left once more for every turn.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypeAlias

from engine.chat_template import Message

TokenCounter: TypeAlias = Callable[[Sequence[Message]], list[int]]
"""A conversation -> its prompt."""

DEFAULT_ANSWER_TOKENS = 256
"""Tokens for an answer whose length nobody has said."""
QUARTERS = 4


def reserved_tokens(max_output_tokens: int | None, n_ctx: int) -> int:
    """Tokens that an answer should have at least; a quarter of the context at most, so that something is left of the
    conversation."""
    return min(max_output_tokens or DEFAULT_ANSWER_TOKENS, n_ctx // 4)


def fit_last_turns(messages: Sequence[Message], tokens: TokenCounter, most: int) -> list[int]:
    """The prompt of as many of the last turns as have `most` tokens, or of the last one alone, however long it is.

    System messages at the beginning stay. By halving: a long conversation is rendered a few times, not once a turn.
    """
    prompt = tokens(messages)
    if len(prompt) <= most:
        return prompt
    leading, starts = _turns(messages)
    prompts = {0: prompt}
    quarter = max(most // QUARTERS, 1)
    most = len(prompt) - -(-(len(prompt) - most) // quarter) * quarter

    def fits(dropped: int) -> bool:
        prompts[dropped] = tokens([*messages[:leading], *messages[starts[dropped] :]])
        return len(prompts[dropped]) <= most

    last = len(starts) - 1
    dropped = bisect_left(range(last), True, lo=min(1, last), key=fits)
    return prompts[dropped] if dropped in prompts else tokens([*messages[:leading], *messages[starts[dropped] :]])


def fit_first_turns(messages: Sequence[Message], tokens: TokenCounter, most: int, least: int) -> tuple[int, list[int]]:
    """How many messages there are in as many of the first turns as have `most` tokens, and the prompt of those.

    They are more than `least`, whatever that takes: another turn at least.
    """
    prompt = tokens(messages)
    if len(prompt) <= most:
        return len(messages), prompt
    _, starts = _turns(messages)
    ends = [end for end in starts[1:] if end > least]
    prompts = {len(messages): prompt}

    def exceeds(end: int) -> bool:
        prompts[end] = tokens(messages[:end])
        return len(prompts[end]) > most

    fitting = bisect_left(ends, True, key=exceeds)
    end = ends[max(fitting - 1, 0)] if ends else len(messages)
    return end, prompts[end]


def last_within(messages: Sequence[Message], most: int) -> Sequence[Message]:
    """Without the oldest turns, until the rest has `most` bytes or is the last turn. System messages at the beginning
    stay. Bytes are counted without rendering or tokenizing anything."""
    leading, starts = _turns(messages)
    sizes = [message_bytes(message) for message in messages]
    left = sum(sizes)
    begin = leading
    for start in starts[1:]:
        if left <= most:
            break
        left -= sum(sizes[begin:start])
        begin = start
    return messages if begin == leading else [*messages[:leading], *messages[begin:]]


def first_within(messages: Sequence[Message], most: int, least: int) -> Sequence[Message]:
    """The first turns that have `most` bytes together; they are more than `least` messages, whatever that takes."""
    _, starts = _turns(messages)
    ends = [end for end in (*starts[1:], len(messages)) if end > least]
    sizes = list(itertools.accumulate(map(message_bytes, messages)))
    fitting = [end for end in ends if sizes[end - 1] <= most]
    return messages[: max(fitting, default=min(ends, default=len(messages)))]


def message_bytes(message: Message) -> int:
    """Bytes that a template puts into the prompt, white space at the ends and earlier thoughts aside."""
    return len(message.content.strip().encode()) + sum(len(call.arguments) for call in message.calls)


def _turns(messages: Sequence[Message]) -> tuple[int, list[int]]:
    """How many system messages lead, and where the turns behind them begin: with what the user says.

    So calls and their outputs stay together. What comes before the user's first word is a turn too.
    """
    leading = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    starts = [i for i, message in enumerate(messages) if message.role == "user" or i == leading]
    return leading, starts or [leading]
