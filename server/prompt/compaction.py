"""Compact a conversation into a few messages of its user and a summary (`POST /v1/responses/compact`). Pure.

The served model writes the summary. The server reads `model`, `input`, `instructions` and `previous_response_id` of the
request (Open Responses: `CompactResponseMethodPublicBody`). A conversation that is too long for the context is
summarized in parts from its beginning: each prompt starts with the summary of the earlier parts.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from engine.chat_template import Message
from server.prompt import truncation
from server.prompt.compacted_history import MAX_USER_CHARACTERS, MAX_USER_MESSAGES
from server.prompt.items import stored_items, summary
from server.prompt.truncation import P
from server.protocol.decoding import part
from server.protocol.errors import ApiError, InvalidRequest
from server.protocol.output_items import CompactionItem, OutputMessage
from server.protocol.request import Request, SamplingFields, TypeAndRole
from server.protocol.response import Response, Usage, total_usage
from server.stream import encode_summary

MAX_SUMMARY_TOKENS = 1024
"""Tokens of a summary. A quarter of the context is the limit if that is less, so that the conversation fits too."""
REPETITION_PENALTY = 1.1
"""Penalty without which small models repeat a sentence until the limit of 1,024 tokens, for half a minute."""

SUMMARY_PROMPT = (
    "Write a summary of our conversation up to here. It will stand in its place, so whoever goes on has nothing else: "
    "keep what I asked for and what I want, what was decided and why, what was found out (names, numbers, paths and "
    "commands to the letter), what was done, and what is still open. Say only what was said here; where something is "
    "not known, say that. Write the summary alone, without a word before or after it."
)

UNSTORED = Request(store=False)


class UserMessage(Struct, frozen=True, tag="message"):
    id: str
    content: tuple[stored_items.InputText, ...]
    status: Literal["completed"] = "completed"
    role: Literal["user"] = "user"


Compacted: TypeAlias = UserMessage | CompactionItem


class CompactedResponse(Struct, frozen=True, kw_only=True):
    """Body of the answer (Open Responses: `CompactResource`). Clients send its output as their next input."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: tuple[Compacted, ...]
    usage: Usage


def compact_request(request: Request, n_ctx: int) -> Request:
    """Return the request for the summary that the endpoint answers with: the lane and the cache are the client's.

    OpenAI has these fields (openai-python 3.57, `types/responses/response_compact_params.py`).
    """
    kept = ("service_tier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
    return summary_request(n_ctx, replace(UNSTORED, **{name: getattr(request, name) for name in kept}))


def summary_request(n_ctx: int, request: Request = UNSTORED) -> Request:
    """Return the request as one for a summary: greedy, whatever sampling the client uses, so the model invents less."""
    none = dict.fromkeys(SamplingFields.__struct_fields__)
    fields = none | {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": REPETITION_PENALTY}
    return replace(request, max_output_tokens=summary_tokens(n_ctx), top_logprobs=None, text=None, **fields)


def summary_tokens(n_ctx: int) -> int:
    """Return the tokens that a summary may have."""
    return truncation.reserved_tokens(MAX_SUMMARY_TOKENS, n_ctx)


def is_triggered(request: Request) -> bool:
    """True if the request asks for a summary instead of an answer: its last item is a `compaction_trigger`."""
    if not isinstance(request.input, list) or not request.input:
        return False
    last = len(request.input) - 1
    return part(request.input[last], TypeAndRole, f"input[{last}]").type == "compaction_trigger"


def threshold(request: Request, n_ctx: int) -> int | None:
    """Return the tokens from which on the conversation is compacted before the answer; None without such a request.

    Three quarters of the context are the highest threshold, so that summary and answer fit.
    """
    wanted = [each.compact_threshold for each in request.context_management or () if each.type == "compaction"]
    most = n_ctx * 3 // 4
    return min((each or most for each in wanted), default=most) if wanted and not request.prewarms else None


def count_to_summarize(messages: Sequence[Message]) -> int:
    """Return the number of messages, from the first, that a summary before the answer stands for; 0 for none.

    The user's message at the end is not summarized. A summary is not worth it if all messages before it are the user's
    too.
    """
    count = len(messages) - (messages[-1].role == "user")
    worth = any(message.role in ("assistant", "tool") for message in messages[:count])
    return count if worth else 0


def with_summary(messages: Sequence[Message], count: int, text: str) -> tuple[Message, ...]:
    """Return the conversation with the user's last messages and `text` in place of the first `count` messages.

    The next turn's prompt begins with the same messages (`compacted_history`).
    """
    users = reversed(list(_recent_user_messages(messages[:count])))
    return (*_leading(messages), *users, summary.render_summary(text), *messages[count:])


def next_part(
    messages: Sequence[Message], tokens: Callable[[Sequence[Message]], P], n_ctx: int, max_bytes: int
) -> tuple[int, P]:
    """Return the number of messages, from the first, to summarize next, and the prompt that requests the summary.

    The part has at least one turn after the summary of the earlier ones. Raises InvalidRequest if that is too long.
    """
    max_tokens = n_ctx - summary_tokens(n_ctx)
    leading = len(_leading(messages))
    done = leading + any(map(summary.is_summary, messages[leading : leading + 1]))
    messages = truncation.first_within(messages, max_bytes, done)

    def prompt_of(part: Sequence[Message]) -> P:
        return tokens(with_summary_prompt(part))

    count, prompt = truncation.fit_first_turns(messages, prompt_of, max_tokens, done)
    if len(prompt) > max_tokens:
        raise InvalidRequest(
            f"A turn is too long to be summarized: its prompt has {len(prompt)} tokens; the limit is {max_tokens}. "
            "Shorten it, or start the server with a larger --context.",
            param="input",
            code="context_length_exceeded",
        )
    return count, prompt


def with_summary_prompt(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the conversation with a last message that requests its summary: the KV cache has most of that prompt."""
    return (*messages, Message("user", SUMMARY_PROMPT))


def summary_text(response: Response) -> str:
    """Return the summary that the model wrote. Raises ApiError if it wrote none."""
    written = (item for item in response.output if isinstance(item, OutputMessage))
    text = "".join(part.text for item in written for part in item.content).strip()
    if not text:
        raise ApiError("The model wrote no summary; the conversation was not compacted.")
    return text


def remaining_messages(messages: Sequence[Message], count: int, text: str) -> tuple[Message, ...]:
    """Return the conversation with `text`, the summary of the first `count` messages, in their place."""
    return (*_leading(messages), summary.render_summary(text), *messages[count:])


def compacted_response(
    id_: str, now: int, messages: Sequence[Message], text: str, usages: Sequence[Usage]
) -> CompactedResponse:
    """Return the answer of the endpoint.

    `now`: seconds. `text`: summary of all `messages`. `usages`: usage of each part's summary.
    """
    stem = id_.removeprefix("resp_")
    recent = reversed(list(_recent_user_messages(messages)))
    users = [
        UserMessage(f"msg_{stem}{n:02}", (stored_items.InputText(message.content),)) for n, message in enumerate(recent)
    ]
    item = CompactionItem(f"cmp_{stem}{len(users):02}", encode_summary(text))
    return CompactedResponse(id=id_, created_at=now, output=(*users, item), usage=total_usage(usages))


def _leading(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the system messages at the beginning."""
    return tuple(itertools.takewhile(lambda message: message.role == "system", messages))


def _recent_user_messages(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield the user's last messages, newest first, up to the limits. It skips an earlier summary."""
    users = [message for message in messages if message.role == "user" and not summary.is_summary(message)]
    left = MAX_USER_CHARACTERS
    for message in users[: -MAX_USER_MESSAGES - 1 : -1]:
        left -= len(message.content)
        if left < 0:
            return
        yield message
