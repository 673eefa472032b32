"""Compaction: the prompt for the summary, the compacted response, and its use as the next input."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from openai.types.responses import CompactedResponse as ClientResponse

from engine.chat_template.message import Call, Message
from server.prompt import compaction, conversation
from server.prompt.compaction import CompactedResponse, UserMessage
from server.prompt.conversation import PromptMessages
from server.prompt.items import summary
from server.prompt.items.stored_items import InputText
from server.protocol import request as schema
from server.protocol.errors import ApiError, InvalidRequest
from server.protocol.output_items import CompactionItem, OutputMessage, OutputText
from server.protocol.response import InputTokensDetails, OutputTokensDetails, Response, Usage
from server.stream import decode_summary, encode_summary
from tests.support import wire

USAGE = Usage(100, InputTokensDetails(80, 20), 7, OutputTokensDetails(0), 107)
TALK = (
    Message("system", "Be brief."),
    Message("user", "Hi"),
    Message("assistant", "Hello.", "Politeness.", (Call("a", "wave", "{}"),)),
    Message("tool", "waved", name="wave", call_id="a"),
    Message("user", "Go on"),
)
SEALED = encode_summary("They greeted.")


def made(messages: tuple[Message, ...], text: str = "They greeted.") -> CompactedResponse:
    return compaction.compacted_response("resp_1", 1_700_000_000, messages, text, [USAGE])


def user_message(n: int, text: str) -> UserMessage:
    return UserMessage(f"msg_1{n:02}", (InputText(text),))


def response(*texts: str) -> Response:
    parts = tuple(OutputText(text) for text in texts)
    output = (OutputMessage("msg_1", "completed", parts),)
    return Response(id="resp_1", created_at=1, model="m", temperature=0, top_p=1, output=output, usage=USAGE)


def test_summary_prompt_follows_conversation() -> None:
    assert compaction.with_summary_prompt(TALK) == (*TALK, Message("user", compaction.SUMMARY_PROMPT))


def test_compacted_response_has_expected_fields() -> None:
    assert json.loads(msgspec.json.encode(made(TALK))) == {
        "id": "resp_1",
        "object": "response.compaction",
        "created_at": 1_700_000_000,
        "output": [
            {
                "type": "message",
                "id": f"msg_1{n:02}",
                "content": [{"type": "input_text", "text": text}],
                "status": "completed",
                "role": "user",
            }
            for n, text in enumerate(["Hi", "Go on"])
        ]
        + [{"type": "compaction", "id": "cmp_102", "encrypted_content": SEALED}],
        "usage": {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 20},
            "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 107,
        },
    }


def test_encoded_summary_is_readable_base64() -> None:
    form = {"form": "responsed.summary", "version": 1, "summary": "They greeted."}
    assert json.loads(base64.b64decode(SEALED)) == form


def test_compacted_response_fits_both_specifications() -> None:
    wire.check_against("CompactResource", json.loads(msgspec.json.encode(made(TALK))), "compaction")
    # The client's type has no messages of users, contrary to its documentation: check a response without them.
    body = msgspec.json.encode(made(TALK[:1]))
    read = ClientResponse.model_validate_json(body, strict=True)
    assert [item.type for item in read.output] == ["compaction"]


def users(*texts: str) -> tuple[Message, ...]:
    return tuple(Message("user", text) for text in texts)


KEPT: dict[str, tuple[tuple[Message, ...], list[str]]] = {
    "none": ((), []),
    "few and short": (users("A", "B"), ["A", "B"]),
    "the last of many": (users(*"ABCDEFGHIJ"), [*"CDEFGHIJ"]),
    "the last before a long one": (users("A", "B" * 4000, "C"), ["C"]),
    "as long as may be": (users("A", "B" * 3999, "C"), ["B" * 3999, "C"]),
    "no older summary": ((*users("A"), summary.render_summary("Before."), *users("B")), ["A", "B"]),
}


@pytest.mark.parametrize(("messages", "texts"), KEPT.values(), ids=KEPT)
def test_compacted_response_has_last_user_messages(messages: tuple[Message, ...], texts: list[str]) -> None:
    items = [user_message(n, text) for n, text in enumerate(texts)]
    assert made(messages).output == (*items, CompactionItem(f"cmp_1{len(texts):02}", SEALED))


@pytest.mark.parametrize("text", ["", " \n"])
def test_summary_text_of_empty_answer_is_an_error(text: str) -> None:
    with pytest.raises(ApiError, match="The model wrote no summary; the conversation was not compacted"):
        compaction.summary_text(response(text))


def test_summary_text_joins_all_messages() -> None:
    assert compaction.summary_text(response(" They ", "greeted.\n")) == "They greeted."


def tokens(messages: Sequence[Message]) -> list[int]:
    """Count one token a letter, and one for the request of a summary."""
    return [0 for message in messages for _ in message.content.replace(compaction.SUMMARY_PROMPT, "?")]


PARTS: dict[str, tuple[Sequence[Message], int, int]] = {
    "all of it": (users("aaa", "bb"), 8, 2),
    "the first turn": (users("aaa", "bb"), 6, 1),
    "behind the system's words": ((TALK[0], *users("aaa", "bb")), 18, 2),
    "a turn behind a summary": ((summary.render_summary("S"), *users("aaa", "bb")), 54, 2),
    "with its calls": (TALK[1:], 20, 3),
}
"""Messages, the context, and the number of messages to summarize next; the summary has a quarter of the context."""


@pytest.mark.parametrize(("left", "n_ctx", "count"), PARTS.values(), ids=PARTS)
def test_next_part_has_as_many_turns_as_fit(left: Sequence[Message], n_ctx: int, count: int) -> None:
    assert compaction.next_part(left, tokens, n_ctx, 1 << 30) == (
        count,
        tokens(compaction.with_summary_prompt(left[:count])),
    )


@pytest.mark.parametrize(
    "left", [users("aaa"), (*users("aaa"), *users("b")), (summary.render_summary("S"), *users("a"))]
)
def test_next_part_with_too_long_turn_is_rejected(left: Sequence[Message]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compaction.next_part(left, tokens, 4, 1 << 30)
    assert (caught.value.param, caught.value.code) == ("input", "context_length_exceeded")


def test_remaining_messages_begin_with_summary() -> None:
    left = compaction.remaining_messages(TALK, 4, "They greeted.")
    assert left == (TALK[0], summary.render_summary("They greeted."), TALK[4])
    assert compaction.remaining_messages(left, 3, "They went on.") == (TALK[0], summary.render_summary("They went on."))


def test_compacted_response_usage_is_the_sum_of_parts() -> None:
    assert compaction.compacted_response("resp_1", 1, TALK, "S", [USAGE, USAGE]).usage == Usage(
        200, InputTokensDetails(160, 40), 14, OutputTokensDetails(0), 214
    )


def request(input_: Any, **fields: Any) -> schema.Request:
    return schema.decode(json.dumps({"model": "m", "input": input_} | fields).encode())


def test_compacted_output_as_input_is_read() -> None:
    items = [*json.loads(msgspec.json.encode(made(TALK).output)), {"role": "user", "content": "And?"}]
    assert replace(conversation.messages_of(request(items, instructions="Be brief.")), items=()) == PromptMessages(
        (TALK[0], *users("Hi", "Go on", "What was said before, in summary:\n\nThey greeted.", "And?")), ()
    )


def test_summary_of_any_text_round_trips() -> None:
    for text in ("", "Grüße 👋🏽\n\x00", "x" * 100_000):
        assert decode_summary(encode_summary(text)) == text


LATER = base64.b64encode(b'{"form":"responsed.summary","version":2,"summary":"x"}').decode()
FOREIGN = ["gAAAAABpM0Yj-...=", "", "bm90IEpTT04=", "e30=", "WzFd", "é", LATER, SEALED[:-4], None, 5, {"a": 1}]


@pytest.mark.parametrize("content", FOREIGN)
def test_compaction_item_of_other_server_is_skipped(content: Any) -> None:
    items = [{"type": "compaction", "id": "cmp_1", "encrypted_content": content}, {"role": "user", "content": "Hi"}]
    skipped = ("item compaction, encrypted by another server",)
    assert replace(conversation.messages_of(request(items)), items=()) == PromptMessages(users("Hi"), skipped)
