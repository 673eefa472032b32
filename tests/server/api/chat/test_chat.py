"""Chat Completions: requests become messages as for `/v1/responses`, and events become chunks."""

import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from engine.chat_template.message import Call, Message
from engine.job import SamplingParams
from server.prompt import chat, conversation, jobs, options
from server.protocol import chat_request, sse
from server.protocol.errors import InvalidRequest
from server.protocol.events import (
    Error,
    ErrorPayload,
    Event,
    OutputTextDelta,
    PromptProgress,
    ResponseCompleted,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
)
from server.protocol.formats import SchemaFormat
from server.protocol.output_items import Logprob, OutputMessage, OutputText, TopLogprob
from server.protocol.request import Request
from server.protocol.response import (
    ErrorInfo,
    IncompleteDetails,
    InputTokensDetails,
    OutputTokensDetails,
    Response,
    Usage,
)
from server.stream.completions.chat_chunks import ChatChunkEncoder, completion

USER = {"role": "user", "content": "Hi"}
HI = Message("user", "Hi")


def read(messages: Any = (USER,), **fields: Any) -> chat_request.ChatRequest:
    return chat_request.decode(json.dumps({"model": "m", "messages": messages} | fields).encode())


def function(name: str, arguments: Any, id_: str | None = None) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


LOOK, WAVE = (
    function("look", '{"at":"sky"}', "a"),
    {"id": "b", "type": "custom", "custom": {"name": "wave", "input": "x"}},
)
TEXT = {"type": "text", "text": "i"}

MESSAGES: dict[str, tuple[list[Any], list[Message]]] = {
    "a text": ([USER], [HI]),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "H"}, TEXT]}], [HI]),
    "a file's text": (
        [{"role": "user", "content": [{"type": "file", "file": {"filename": "a", "file_data": "data:,H"}}, TEXT]}],
        [HI],
    ),
    "a name": ([USER | {"name": "Jo"}], [HI]),
    "system and developer": (
        [{"role": "system", "content": "S"}, {"role": "developer", "content": [TEXT]}, USER],
        [Message("system", "S\n\ni"), HI],
    ),
    "an answer": (
        [USER, {"role": "assistant", "content": "A"}, {"role": "assistant", "content": None, "refusal": "No."}, USER],
        [HI, Message("assistant", "A"), Message("assistant", "No."), HI],
    ),
    "reasoning": (
        [USER, {"role": "assistant", "content": "A", "reasoning_content": "R"}, USER],
        [HI, Message("assistant", "A", "R"), HI],
    ),
    "calls": (
        [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [LOOK, WAVE], "reasoning_content": None},
            {"role": "tool", "tool_call_id": "b", "content": "waved"},
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "blue"}]},
            {"role": "assistant", "content": "B", "tool_calls": [function("look", {"at": 1}, "a")]},
            {"role": "tool", "tool_call_id": "a", "content": ""},
        ],
        [
            HI,
            Message("assistant", "", calls=(Call("a", "look", '{"at":"sky"}'), Call("b", "wave", "x"))),
            Message("tool", "blue", name="look", call_id="a"),
            Message("tool", "waved", name="wave", call_id="b"),
            Message("assistant", "B", calls=(Call("a", "look", '{"at": 1}'),)),
            Message("tool", "", name="look", call_id="a"),
        ],
    ),
    "a call without its output": (
        [USER, {"role": "assistant", "tool_calls": [LOOK]}, USER],
        [HI, Message("assistant", 'look({"at":"sky"})'), HI],
    ),
    "functions of old": (
        [
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
        ],
        [Message("assistant", "", calls=(Call("", "f", "{}"),)), Message("tool", "1", name="f")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "expected"), MESSAGES.values(), ids=MESSAGES)
def test_chat_messages_become_expected_messages(messages: list[Any], expected: list[Message]) -> None:
    assert replace(chat.messages_of(read(messages)), items=()) == conversation.PromptMessages(tuple(expected), ())


def test_chat_with_unknown_parts_names_the_skipped() -> None:
    body = json.dumps({"model": "m", "messages": [USER | {"content": [TEXT, {"type": "zzz"}]}], "zzz": 1, "yyy": []})
    assert chat_request.unknown_fields(body.encode()) == {"zzz", "yyy"}
    prompt = chat.messages_of(chat_request.decode(body.encode()))
    assert replace(prompt, items=()) == conversation.PromptMessages((Message("user", "i"),), ("part zzz",))


REQUESTS: list[tuple[dict[str, Any], Request]] = [
    ({}, Request(model="m", input=[])),
    (
        {
            "stream": True,
            "temperature": 0,
            "top_p": 0.5,
            "top_k": 3,
            "min_p": 0.1,
            "seed": 7,
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "repeat_penalty": 1.1,
            "repetition_penalty": 1.2,
            "repeat_last_n": 9,
            "logit_bias": {"3": -100},
            "logprobs": True,
            "top_logprobs": 2,
            "stop": ["a"],
            "max_tokens": 5,
            "n": 1,
            "metadata": {"a": "b"},
            "prompt_cache_key": "k",
            "safety_identifier": "s",
            "user": "u",
            "parallel_tool_calls": False,
        },
        Request(
            model="m",
            input=[],
            stream=True,
            temperature=0,
            top_p=0.5,
            top_k=3,
            min_p=0.1,
            seed=7,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            repeat_penalty=1.1,
            repetition_penalty=1.2,
            repeat_last_n=9,
            logit_bias={3: -100},
            include=["message.output_text.logprobs"],
            top_logprobs=2,
            stop=["a"],
            max_output_tokens=5,
            metadata={"a": "b"},
            prompt_cache_key="k",
            safety_identifier="s",
            user="u",
            parallel_tool_calls=False,
        ),
    ),
    (
        {"max_tokens": 5, "max_completion_tokens": 6, "stop": "a"},
        Request(model="m", input=[], stop="a", max_output_tokens=6),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), REQUESTS)
def test_chat_request_becomes_responses_request(fields: dict[str, Any], expected: Request) -> None:
    converted = chat.request(read(**fields))
    assert converted == expected
    assert options.sampling(converted, SamplingParams(0.8, 0.95, 40, 0.05)).seed == fields.get("seed")


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no messages": ({"messages": None}, "messages", "`messages` is missing"),
    "none at all": ({"messages": []}, "messages", "`messages` has no text for the model to answer."),
    "messages a text": ({"messages": "Hi"}, "messages", "must be an array or null, not a string"),
    "a message without role": ({"messages": [{}]}, "messages[0]", "`role` is missing in"),
    "a message of nobody we know": (
        {"messages": [{"role": "boss"}]},
        "messages[0].role",
        "`messages[0].role` is 'boss'; it must be one of user, assistant, system, developer, tool.",
    ),
    "an image": (
        {"messages": [USER | {"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        "messages[0].content[0]",
        "is of type image_url; this model reads text only",
    ),
    "a part without its text": (
        {"messages": [USER, USER | {"content": [{"type": "text"}]}]},
        "messages[1].content[0]",
        "`text` is missing in",
    ),
    "a file by id": (
        {"messages": [USER | {"content": [{"type": "file", "file": {"file_id": "f"}}]}]},
        "messages[0].content[0].file",
        "must contain its text in `file_data`",
    ),
    "a call without name": (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
        "messages[0].tool_calls[0].function",
        "`name` is missing in",
    ),
    "two answers": ({"n": 2}, "n", "must be at most 1"),
    "temperature above": ({"temperature": 3}, "temperature", "must be at most 2.0"),
    "presence_penalty above": ({"presence_penalty": 3}, "presence_penalty", "must be at most 2.0"),
    "a bias above": ({"logit_bias": {"3": 101}}, "logit_bias.3", "must be at most 100.0"),
    "top_logprobs above": ({"top_logprobs": 21}, "top_logprobs", "must be at most 20"),
    "logprobs a number": ({"logprobs": 5}, "logprobs", "not a whole number"),
    "no tokens": ({"max_tokens": 0}, "max_tokens", "must be at least 1"),
    "no completion tokens": ({"max_completion_tokens": 0}, "max_completion_tokens", "must be at least 1"),
    "options a text": ({"stream_options": "usage"}, "stream_options", "not a string"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "param", "message"), BAD.values(), ids=BAD)
def test_invalid_chat_request_names_the_field(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat.messages_of(read(**fields))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert message in caught.value.message


def test_too_long_chat_error_names_messages() -> None:
    with pytest.raises(InvalidRequest) as caught:
        jobs.job(chat.request(read()), range(9), SamplingParams(0, 1, 0, 0), 9, name="messages")
    assert (caught.value.param, caught.value.code) == ("messages", "context_length_exceeded")


USED = Usage(9, InputTokensDetails(4, 5), 3, OutputTokensDetails(1), 12)
BEGUN = Response(id="resp_1", created_at=1700000000, model="tiny", temperature=1.0, top_p=1.0)
ITEM = OutputMessage("msg_1", "completed", (OutputText("Hello"),))
WHOLE = msgspec.structs.replace(BEGUN, status="completed", completed_at=1700000001, output=(ITEM,), usage=USED)
SHORT = msgspec.structs.replace(
    BEGUN, status="incomplete", incomplete_details=IncompleteDetails("max_output_tokens"), output=(ITEM,), usage=USED
)
EMPTY = msgspec.structs.replace(WHOLE, output=())
BROKEN = msgspec.structs.replace(BEGUN, status="failed", error=ErrorInfo("server_error", "No."))
PAYLOAD = ErrorPayload("server_error", "server_error", "No.", None)
START: list[Event] = [ResponseCreated(0, BEGUN), ResponseInProgress(1, BEGUN)]
TEXTS: list[Event] = [OutputTextDelta(4, "msg_1", 0, 0, "Hel"), OutputTextDelta(5, "msg_1", 0, 0, "lo")]

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "tiny"}


def chunk(delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return HEAD | {"choices": [{"delta": delta, "finish_reason": finish, "index": 0, "logprobs": logprobs}]}


SAID = [chunk({"role": "assistant"}), chunk({"content": "Hel"}), chunk({"content": "lo"})]

LOGPROB = Logprob("Hel", -0.5, (72, 101, 108), (TopLogprob("bytes:\\xc3", -1.5, (0xC3,)),))
TOLD = {
    "token": "Hel",
    "logprob": -0.5,
    "bytes": [72, 101, 108],
    "top_logprobs": [{"token": "bytes:\\xc3", "logprob": -1.5, "bytes": [0xC3]}],
}

STREAMS: dict[str, tuple[list[Event], bool, list[dict[str, Any] | None]]] = {
    "whole": ([*START, *TEXTS, ResponseCompleted(9, WHOLE)], False, [*SAID, chunk({}, "stop")]),
    "short": ([*START, *TEXTS, ResponseIncomplete(9, SHORT)], False, [*SAID, chunk({}, "length")]),
    "with logprobs": (
        [*START, OutputTextDelta(4, "msg_1", 0, 0, "Hel", (LOGPROB,)), TEXTS[1], ResponseCompleted(9, WHOLE)],
        False,
        [
            SAID[0],
            chunk({"content": "Hel"}, logprobs={"content": [TOLD], "refusal": None}),
            SAID[2],
            chunk({}, "stop"),
        ],
    ),
    "nothing": ([*START, ResponseCompleted(9, EMPTY)], False, [SAID[0], chunk({"content": ""}, "stop")]),
    "with usage": (
        [*START, *TEXTS, ResponseCompleted(9, WHOLE)],
        True,
        [*(each | {"usage": None} for each in [*SAID, chunk({}, "stop")]), HEAD | {"choices": [], "usage": USAGE}],
    ),
    "after a wait": (
        [*START, ResponseInProgress(2, BEGUN), *TEXTS, ResponseCompleted(9, WHOLE)],
        False,
        [*SAID, chunk({}, "stop")],
    ),
    "with progress": (
        [*START, ResponseInProgress(2, BEGUN, PromptProgress(9, 2, 5, 70)), *TEXTS, ResponseCompleted(9, WHOLE)],
        False,
        [
            SAID[0],
            HEAD | {"choices": [], "prompt_progress": {"total": 9, "cache": 2, "processed": 5, "time_ms": 70}},
            *SAID[1:],
            chunk({}, "stop"),
        ],
    ),
    "failed": (
        [*START, TEXTS[0], Error(5, "No.", "server_error", None, PAYLOAD), ResponseFailed(6, BROKEN)],
        False,
        [*SAID[:2], {"error": {"type": "server_error", "code": "server_error", "message": "No.", "param": None}}],
    ),
}
"""Events, True if usage is requested, and the frames' data; None for a comment."""


def data(frames: bytes) -> list[dict[str, Any] | None]:
    found = frames.decode().split("\n\n")
    assert found.pop() == ""
    return [None if frame.startswith(":") else json.loads(frame.removeprefix("data: ")) for frame in found]


@pytest.mark.parametrize(("events", "include_usage", "expected"), STREAMS.values(), ids=STREAMS)
def test_chunk_encoder_of_events_gives_expected_chunks(
    events: list[Event], include_usage: bool, expected: list[dict[str, Any] | None]
) -> None:
    assert data(ChatChunkEncoder(BEGUN, include_usage).encode(events)) == expected
    one_by_one = ChatChunkEncoder(BEGUN, include_usage)
    assert data(b"".join(one_by_one.encode([event]) for event in events)) == expected


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "failed"])
def test_each_chunk_fits_official_client(name: str) -> None:
    events, include_usage, _ = STREAMS[name]
    for each in filter(None, data(ChatChunkEncoder(BEGUN, include_usage).encode(events))):
        ChatCompletionChunk.model_validate_json(json.dumps(each), strict=True)


def test_chunk_frames_have_expected_bytes() -> None:
    assert ChatChunkEncoder(BEGUN, False).encode(TEXTS[:1]) + sse.DONE == (
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",'
        b'"choices":[{"delta":{"content":"Hel"},"finish_reason":null,"index":0,"logprobs":null}]}\n\n'
        b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize(("response", "finish"), [(WHOLE, "stop"), (SHORT, "length")])
def test_completion_of_response_has_expected_fields(response: Response, finish: str) -> None:
    body = msgspec.json.encode(completion(response))
    ChatCompletion.model_validate_json(body, strict=True)
    message = {"content": "Hello", "refusal": None, "role": "assistant"}
    assert json.loads(body) == HEAD | {
        "object": "chat.completion",
        "choices": [{"message": message, "finish_reason": finish, "index": 0, "logprobs": None}],
        "usage": USAGE,
    }


def test_completion_with_logprobs_has_them() -> None:
    item = msgspec.structs.replace(ITEM, content=(OutputText("Hello", logprobs=(LOGPROB, LOGPROB)),))
    body = msgspec.json.encode(completion(msgspec.structs.replace(WHOLE, output=(item,))))
    ChatCompletion.model_validate_json(body, strict=True)
    assert json.loads(body)["choices"][0]["logprobs"] == {"content": [TOLD, TOLD], "refusal": None}


WRONG_PLACES = [
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "type": "object"}}}, "response_format"),
    ({"response_format": {"type": "json_schema", "schema": {"type": "object"}}}, "response_format"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"grammar": "root ::= 'a'"}, "grammar"),
    ({"structured_outputs": {"choice": ["a"]}}, "structured_outputs"),
    ({"guided_json": {}}, "guided_json"),
    ({"continue_final_message": True}, "continue_final_message"),
    ({"max_tokens": 0}, "max_tokens"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG_PLACES)
def test_chat_request_with_unsupported_field_is_rejected(fields: dict[str, Any], param: str) -> None:
    body = {"model": "m", "messages": [USER], **fields}
    with pytest.raises(InvalidRequest) as caught:
        chat_request.decode(json.dumps(body).encode())
    assert (caught.value.param or "").startswith(param)


def test_chat_request_with_json_object_schema_is_constrained() -> None:
    body = {"model": "m", "messages": [USER], "response_format": {"type": "json_object", "schema": {"type": "array"}}}
    schema_format = chat.request(chat_request.decode(json.dumps(body).encode())).format
    assert isinstance(schema_format, SchemaFormat)
    assert json.loads(bytes(schema_format.schema)) == {"type": "array"}


@pytest.mark.parametrize("limits", [{"max_tokens": -1}, {"max_completion_tokens": -1}, {"max_tokens": -1, "top_k": -1}])
def test_chat_request_with_limit_minus_one_has_no_limit(limits: dict[str, int]) -> None:
    body = {"model": "m", "messages": [USER], **limits}
    assert chat.request(chat_request.decode(json.dumps(body).encode())).max_output_tokens is None
