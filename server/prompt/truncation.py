"""Fit a conversation into the context: `truncation: "auto"` drops the oldest turns to leave space for an answer. Pure.

The server drops more than necessary, in steps of a quarter of the prompt's limit. So the next turns start with the same
message and find their prefix in the KV cache; otherwise each turn would evaluate the whole prompt again.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable, Sequence, Sized
from typing import TypeAlias, TypeVar

from engine.chat_template import Message

TokenCounter: TypeAlias = Callable[[Sequence[Message]], list[int]]
"""Function that returns the prompt (tokens) of a conversation."""
P = TypeVar("P", bound=Sized)
"""Prompt whose length is its number of tokens."""

DEFAULT_ANSWER_TOKENS = 256
"""Tokens reserved for an answer without `max_output_tokens`."""
QUARTERS = 4
"""Number of steps in which a whole prompt would be dropped."""


def reserved_tokens(max_output_tokens: int | None, n_ctx: int) -> int:
    """Return the tokens reserved for an answer: at most a quarter of the context, so that the conversation fits too."""
    return min(max_output_tokens or DEFAULT_ANSWER_TOKENS, n_ctx // 4)


def fit_last_turns(messages: Sequence[Message], tokens: Callable[[Sequence[Message]], P], max_tokens: int) -> P:
    """Return the prompt of as many of the last turns as fit `max_tokens`, or of the last turn alone if it does not fit.

    System messages at the beginning stay. A binary search renders a long conversation a few times, not once a turn.
    """
    prompt = tokens(messages)
    if len(prompt) <= max_tokens:
        return prompt
    leading, starts = _turns(messages)
    prompts = {0: prompt}
    quarter = max(max_tokens // QUARTERS, 1)
    target = len(prompt) - -(-(len(prompt) - max_tokens) // quarter) * quarter

    def fits(dropped: int) -> bool:
        prompts[dropped] = tokens([*messages[:leading], *messages[starts[dropped] :]])
        return len(prompts[dropped]) <= target

    last = len(starts) - 1
    dropped = bisect_left(range(last), True, lo=min(1, last), key=fits)
    return prompts[dropped] if dropped in prompts else tokens([*messages[:leading], *messages[starts[dropped] :]])


def fit_first_turns(
    messages: Sequence[Message], tokens: Callable[[Sequence[Message]], P], max_tokens: int, done: int
) -> tuple[int, P]:
    """Return the number of messages in as many of the first turns as fit `max_tokens`, and their prompt.

    The number is larger than `done`, even if the prompt does not fit.
    """
    prompt = tokens(messages)
    if len(prompt) <= max_tokens:
        return len(messages), prompt
    _, starts = _turns(messages)
    ends = [end for end in starts[1:] if end > done]
    prompts = {len(messages): prompt}

    def exceeds(end: int) -> bool:
        prompts[end] = tokens(messages[:end])
        return len(prompts[end]) > max_tokens

    fitting = bisect_left(ends, True, key=exceeds)
    end = ends[max(fitting - 1, 0)] if ends else len(messages)
    return end, prompts[end]


def last_within(messages: Sequence[Message], max_bytes: int) -> Sequence[Message]:
    """Return as many of the last turns as have `max_bytes`, at least one, after the system messages at the beginning.

    It counts bytes and renders nothing.
    """
    leading, starts = _turns(messages)
    sizes = [message_bytes(message) for message in messages]
    left = sum(sizes)
    begin = leading
    for start in starts[1:]:
        if left <= max_bytes:
            break
        left -= sum(sizes[begin:start])
        begin = start
    return messages if begin == leading else [*messages[:leading], *messages[begin:]]


def first_within(messages: Sequence[Message], max_bytes: int, done: int) -> Sequence[Message]:
    """Return as many of the first turns as have `max_bytes`, but always more than `done` messages."""
    _, starts = _turns(messages)
    ends = [end for end in (*starts[1:], len(messages)) if end > done]
    sizes = list(itertools.accumulate(map(message_bytes, messages)))
    fitting = [end for end in ends if sizes[end - 1] <= max_bytes]
    return messages[: max(fitting, default=min(ends, default=len(messages)))]


def message_bytes(message: Message) -> int:
    """Return the bytes of a message that a template renders, without white space at the ends and earlier reasoning."""
    return len(message.content.strip().encode()) + sum(len(call.arguments) for call in message.calls)


def _turns(messages: Sequence[Message]) -> tuple[int, list[int]]:
    """Return the number of leading system messages, and the indexes of the messages that start a turn.

    A turn starts with a message of the user, so calls and their outputs stay together. Messages before the user's first
    one are a turn of their own.
    """
    leading = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    starts = [i for i, message in enumerate(messages) if message.role == "user" or i == leading]
    return leading, starts or [leading]
