"""`POST /v1/responses/compact`: a conversation becomes a few of its user's messages and a summary. Pure.

The model that is served writes the summary, so it is as good as that model is. Of the request count its model, input,
instructions and previous_response_id (Open Responses: `CompactResponseMethodPublicBody`). A conversation that is too
long for the context is summarised from its beginning: the next part stands behind the summary of those before it.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from engine.chat_template import Message
from server.prompt import summary, truncation
from server.prompt.truncation import TokenCounter
from server.protocol import events
from server.protocol.errors import ApiError, InvalidRequest
from server.protocol.events import InputTokensDetails, OutputTokensDetails, Response, Usage
from server.protocol.request import Request

MAX_SUMMARY_TOKENS = 1024
"""Of a summary, and a quarter of the context at most: something has to stand beside it."""
MAX_USER_MESSAGES, MAX_USER_CHARACTERS = 8, 4000
"""Messages of the user that stay as they are, the last ones: these many at most, and as long all together."""

REPETITION_PENALTY = 1.1
"""Without, small models say the same sentence until there is no room: 1,024 tokens, in half a minute."""

SUMMARY_PROMPT = (
    "Write a summary of our conversation up to here. It will stand in its place, so whoever goes on has nothing else: "
    "keep what I asked for and what I want, what was decided and why, what was found out (names, numbers, paths and "
    "commands to the letter), what was done, and what is still open. Say only what was said here; where something is "
    "not known, say that. Write the summary alone, without a word before or after it."
)


class InputText(Struct, frozen=True, tag="input_text"):
    text: str


class UserMessage(Struct, frozen=True, tag="message"):
    id: str
    content: tuple[InputText, ...]
    status: Literal["completed"] = "completed"
    role: Literal["user"] = "user"


class CompactionItem(Struct, frozen=True, tag="compaction"):
    id: str
    encrypted_content: str


Compacted: TypeAlias = UserMessage | CompactionItem


class CompactedResponse(Struct, frozen=True, kw_only=True):
    """What comes back (Open Responses: `CompactResource`). Its output is the next request's input."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: tuple[Compacted, ...]
    usage: Usage


def summary_request(n_ctx: int) -> Request:
    """For a summary, however the conversation is sampled else: nothing is to be made up."""
    most = truncation.reserved_tokens(MAX_SUMMARY_TOKENS, n_ctx)
    return Request(
        max_output_tokens=most,
        temperature=0,
        top_p=1,
        top_k=0,
        min_p=0,
        repetition_penalty=REPETITION_PENALTY,
        store=False,
    )


def next_part(messages: Sequence[Message], tokens: TokenCounter, n_ctx: int, most_bytes: int) -> tuple[int, list[int]]:
    """How many of the messages, from the first, are summarised next, and the prompt that asks for it.

    At least a turn, behind the summary of what came before. Raises InvalidRequest where that is too long.
    """
    most = n_ctx - truncation.reserved_tokens(MAX_SUMMARY_TOKENS, n_ctx)
    leading = len(_leading(messages))
    least = leading + any(map(summary.is_summary, messages[leading : leading + 1]))
    messages = truncation.first_within(messages, most_bytes, least)
    count, prompt = truncation.fit_first_turns(messages, lambda said: tokens(with_summary_prompt(said)), most, least)
    if len(prompt) > most:
        raise InvalidRequest(
            f"A turn is too long to be summarised: it takes a prompt of {len(prompt)} tokens, and there is room for "
            f"{most}. Shorten it, or start the server with a larger --context.",
            param="input",
            code="context_length_exceeded",
        )
    return count, prompt


def with_summary_prompt(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation, and a last message that asks for its summary: so the KV cache already holds most of it."""
    return (*messages, Message("user", SUMMARY_PROMPT))


def summary_text(response: Response) -> str:
    """The summary. Raises ApiError where there is none."""
    said = (item for item in response.output if isinstance(item, events.Message))
    text = "".join(part.text for item in said for part in item.content).strip()
    if not text:
        raise ApiError("The model wrote no summary; nothing was compacted.")
    return text


def remaining_messages(messages: Sequence[Message], count: int, text: str) -> tuple[Message, ...]:
    """What is left to be summarised, when `text` is the summary of the first `count` messages."""
    return (*_leading(messages), summary.render_summary(text), *messages[count:])


def compacted_response(
    id_: str, now: int, messages: Sequence[Message], text: str, usages: Sequence[Usage]
) -> CompactedResponse:
    """`text` is the summary of all `messages`; `now` in seconds; `usages` are those of its parts."""
    stem = id_.removeprefix("resp_")
    kept = reversed(list(_recent_user_messages(messages)))
    said = [UserMessage(f"msg_{stem}{n:02}", (InputText(message.content),)) for n, message in enumerate(kept)]
    item = CompactionItem(f"cmp_{stem}{len(said):02}", summary.encode_summary(text))
    return CompactedResponse(id=id_, created_at=now, output=(*said, item), usage=_total_usage(usages))


def _total_usage(usages: Sequence[Usage]) -> Usage:
    inputs = [usage.input_tokens_details for usage in usages]
    cached, written = sum(each.cached_tokens for each in inputs), sum(each.cache_write_tokens for each in inputs)
    reasoned = sum(usage.output_tokens_details.reasoning_tokens for usage in usages)
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in usages),
        input_tokens_details=InputTokensDetails(cached, written),
        output_tokens=sum(usage.output_tokens for usage in usages),
        output_tokens_details=OutputTokensDetails(reasoned),
        total_tokens=sum(usage.total_tokens for usage in usages),
    )


def _leading(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The system messages at the beginning."""
    return tuple(itertools.takewhile(lambda message: message.role == "system", messages))


def _recent_user_messages(messages: Sequence[Message]) -> Iterator[Message]:
    """What the user said, last first, while it is few and short. An older summary has gone into the new one."""
    said = [message for message in messages if message.role == "user" and not summary.is_summary(message)]
    left = MAX_USER_CHARACTERS
    for message in said[: -MAX_USER_MESSAGES - 1 : -1]:
        left -= len(message.content)
        if left < 0:
            return
        yield message
