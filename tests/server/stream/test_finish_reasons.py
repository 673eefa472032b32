"""Reason why a chat completion or a text completion ended, streamed or not."""

import json
from typing import Any

import msgspec
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from server.protocol.events import ResponseCompleted, ResponseCreated, ResponseIncomplete
from server.protocol.output_items import FunctionCall, Item, OutputMessage, OutputText
from server.protocol.response import IncompleteDetails, InputTokensDetails, OutputTokensDetails, Response, Usage
from server.stream.completions import ChatChunkEncoder, TextChunkEncoder, completion, text_completion

TEXT: tuple[Item, ...] = (OutputMessage("msg_1", "incomplete", (OutputText("So"),)),)
CALL = FunctionCall("fc_1", "call_1", "weather", "{}", "completed")
BEGUN = Response(id="resp_1", created_at=1700000000, model="tiny", temperature=1.0, top_p=1.0)
ENDED = msgspec.structs.replace(BEGUN, usage=Usage(9, InputTokensDetails(4, 5), 3, OutputTokensDetails(1), 12))

ENDS = [
    # Reason of the incomplete response, its output, and the reasons in chat and in text completions.
    (None, TEXT, "stop", "stop"),
    (None, (*TEXT, CALL), "tool_calls", "stop"),
    ("max_output_tokens", TEXT, "length", "length"),
    ("max_output_tokens", (*TEXT, CALL), "length", "length"),
    ("content_filter", TEXT, "content_filter", "content_filter"),
    ("content_filter", (*TEXT, CALL), "content_filter", "content_filter"),
]


@pytest.mark.parametrize(("reason", "output", "chat", "text"), ENDS)
def test_finish_reason_says_why_an_answer_ended(
    reason: str | None, output: tuple[Item, ...], chat: str, text: str
) -> None:
    details = None if reason is None else IncompleteDetails(reason)
    status: Any = "completed" if reason is None else "incomplete"
    response = msgspec.structs.replace(ENDED, status=status, incomplete_details=details, output=output)
    last = ResponseCompleted(1, response) if reason is None else ResponseIncomplete(1, response)
    for encoder, whole, official, expected in (
        (ChatChunkEncoder, completion, ChatCompletion, chat),
        (TextChunkEncoder, text_completion, Completion, text),
    ):
        body = msgspec.json.encode(whole(response))
        assert official.model_validate_json(body, strict=True).choices[0].finish_reason == expected
        frames = encoder(BEGUN, include_usage=False).encode([ResponseCreated(0, BEGUN), last])
        streamed = [json.loads(frame.removeprefix(b"data: ")) for frame in frames.split(b"\n\n") if frame]
        assert streamed[-1]["choices"][0]["finish_reason"] == expected
