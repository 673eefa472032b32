"""`POST /v1/responses/compact`: a conversation becomes a few of its user's messages and a summary. Pure.

The model that is served writes the summary, so it is as good as that model is. The request is a `schema.Request`, of
which model, input, instructions and previous_response_id count (Open Responses: `CompactResponseMethodPublicBody`).
"""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from engine import Message, Sampling
from server import summary
from server.errors import ApiError
from server.events import Usage

MOST_TOKENS = 1024
"""Of a summary."""
SAMPLING = Sampling(temperature=0, top_p=1, top_k=0, min_p=0)
"""Nothing is to be made up."""
MOST_KEPT, MOST_KEPT_CHARACTERS = 8, 4000
"""Messages of the user that stay as they are, the last ones: these many at most, and as long all together."""

REQUEST = (
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


def asking(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation, and a last message that asks for its summary: so the KV cache already holds most of it."""
    return (*messages, Message("user", REQUEST))


def compacted(id_: str, now: int, messages: Sequence[Message], text: str, usage: Usage) -> CompactedResponse:
    """`text` is what the model has answered to `asking(messages)`; `now` in seconds. Raises ApiError."""
    if not text.strip():
        raise ApiError("The model wrote no summary; nothing was compacted.")
    stem = id_.removeprefix("resp_")
    kept = reversed(list(_kept(messages)))
    said = [UserMessage(f"msg_{stem}{n:02}", (InputText(message.content),)) for n, message in enumerate(kept)]
    item = CompactionItem(f"cmp_{stem}{len(said):02}", summary.seal(text.strip()))
    return CompactedResponse(id=id_, created_at=now, output=(*said, item), usage=usage)


def _kept(messages: Sequence[Message]) -> Iterator[Message]:
    """What the user said, last first, while it is few and short. An older summary has gone into the new one."""
    said = [message for message in messages if message.role == "user" and not summary.is_summary(message)]
    left = MOST_KEPT_CHARACTERS
    for message in said[: -MOST_KEPT - 1 : -1]:
        left -= len(message.content)
        if left < 0:
            return
        yield message
