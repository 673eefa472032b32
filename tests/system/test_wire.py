"""The judge itself: right transcripts pass, each wrong in one point fails, and for the reason it should."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pydantic
import pytest

from tests.data import event_fields
from tests.support import wire
from tests.support.wire import Frame, check_client, check_response, check_stream, events, parse_sse

Event = dict[str, Any]

BODY: Event = {
    "id": "resp_1", "object": "response", "created_at": 1700000000, "completed_at": None,
    "status": "in_progress", "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
    "model": "tiny", "output": [], "parallel_tool_calls": True, "previous_response_id": None,
    "temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "top_logprobs": 0,
    "tool_choice": "auto", "tools": [], "text": {"format": {"type": "text"}}, "truncation": "disabled",
    "reasoning": {"effort": None, "summary": None}, "usage": None, "max_output_tokens": None,
    "max_tool_calls": None, "store": True, "background": False, "service_tier": "default",
    "safety_identifier": None, "prompt_cache_key": None,
}  # fmt: skip

USAGE: Event = {
    "input_tokens": 9, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 14,
}  # fmt: skip


def part(kind: str, field: str, text: str) -> Event:
    return {"type": kind, field: text} | ({"annotations": []} if kind == "output_text" else {})


def part_events(kind: str, field: str, pieces: list[str], at: Event) -> Iterator[Event]:
    """One content part, whole."""
    logprobs: Event = {"logprobs": []} if kind == "output_text" else {}
    whole = "".join(pieces)
    yield {"type": "response.content_part.added", "part": part(kind, field, ""), **at}
    for piece in pieces:
        yield {"type": f"response.{kind}.delta", "delta": piece, **logprobs, **at}
    yield {"type": f"response.{kind}.done", field: whole, **logprobs, **at}
    yield {"type": "response.content_part.done", "part": part(kind, field, whole), **at}


def summary_events(pieces: list[str], at: Event) -> Iterator[Event]:
    whole, name = "".join(pieces), "response.reasoning_summary"
    yield {"type": f"{name}_part.added", "part": part("summary_text", "text", ""), **at}
    for piece in pieces:
        yield {"type": f"{name}_text.delta", "delta": piece, **at}
    yield {"type": f"{name}_text.done", "text": whole, **at}
    yield {"type": f"{name}_part.done", "part": part("summary_text", "text", whole), **at}


def item_events(empty: Event, whole: Event, inner: list[Event], index: int) -> list[Event]:
    added = {"type": "response.output_item.added", "output_index": index, "item": empty}
    done = {"type": "response.output_item.done", "output_index": index, "item": whole}
    return [added, *inner, done]


def message(index: int = 0, status: str = "completed") -> list[Event]:
    """A text part and a refusal part."""
    item: Event = {"type": "message", "id": "msg_1", "role": "assistant"}
    at = {"item_id": "msg_1", "output_index": index}
    inner = [
        *part_events("output_text", "text", ["Hel", "lo"], at | {"content_index": 0}),
        *part_events("refusal", "refusal", ["No"], at | {"content_index": 1}),
    ]
    content = [part("output_text", "text", "Hello"), part("refusal", "refusal", "No")]
    return item_events(
        item | {"status": "in_progress", "content": []},
        item | {"status": status, "content": content},
        inner,
        index,
    )


def reasoning(index: int = 0) -> list[Event]:
    item: Event = {"type": "reasoning", "id": "rs_1"}
    at = {"item_id": "rs_1", "output_index": index}
    inner = [
        *part_events("reasoning_text", "text", ["Hm", "m"], at | {"content_index": 0}),
        *summary_events(["short"], at | {"summary_index": 0}),
    ]
    whole = {
        "status": "completed",
        "content": [part("reasoning_text", "text", "Hmm")],
        "summary": [part("summary_text", "text", "short")],
    }
    return item_events(item | {"status": "in_progress", "summary": []}, item | whole, inner, index)


def call(kind: str, prefix: str, field: str, streamed: str, index: int = 0) -> list[Event]:
    item: Event = {"type": kind, "id": f"{prefix}1", "call_id": "call_1", "name": "look"}
    at = {"item_id": f"{prefix}1", "output_index": index}
    named = {"name": "look"} if kind == "function_call" else {}
    inner = [
        {"type": f"response.{streamed}.delta", "delta": "{", **at},
        {"type": f"response.{streamed}.delta", "delta": "}", **at},
        {"type": f"response.{streamed}.done", field: "{}", **named, **at},
    ]
    return item_events(
        item | {"status": "in_progress", field: ""}, item | {"status": "completed", field: "{}"}, inner, index
    )


def function_call(index: int = 0) -> list[Event]:
    return call("function_call", "fc_", "arguments", "function_call_arguments", index)


def custom_tool_call(index: int = 0) -> list[Event]:
    return call("custom_tool_call", "ctc_", "input", "custom_tool_call_input", index)


TERMINAL: dict[str, Event] = {
    "completed": {"status": "completed", "completed_at": 1700000001, "usage": USAGE},
    "incomplete": {
        "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "usage": USAGE
    },
    "failed": {"status": "failed", "error": {"code": "server_error", "message": "no"}},
}  # fmt: skip

START: list[Event] = [
    {"type": "response.created", "response": BODY},
    {"type": "response.queued", "response": BODY | {"status": "queued"}},
    {"type": "response.in_progress", "response": BODY},
    {"type": "response.in_progress", "response": BODY},
]

ERROR: Event = {
    "type": "error", "code": "server_error", "message": "no", "param": None,
    "error": {"type": "server_error", "code": "server_error", "message": "no", "param": None},
}  # fmt: skip


def stream(inner: list[Event], end: str, start: list[Event] = START) -> list[Event]:
    """A whole stream, numbered, sharing nothing with any other, so that a mutation stays its own."""
    output = [event["item"] for event in inner if event["type"] == "response.output_item.done"]
    last = {"type": f"response.{end}", "response": BODY | TERMINAL[end] | {"output": output}}
    numbered = [event | {"sequence_number": n} for n, event in enumerate([*start, *inner, last])]
    return json.loads(json.dumps(numbered))  # type: ignore[no-any-return]  # json says Any


RIGHT: dict[str, list[Event]] = {
    "message": stream(message(), "completed"),
    "plain start": stream(message(), "completed", [START[0], START[2]]),
    "reasoning, message": stream(reasoning() + message(1), "completed"),
    "function call": stream(function_call(), "completed"),
    "custom tool call": stream(custom_tool_call() + function_call(1), "completed"),
    "nothing": stream([], "completed"),
    "incomplete": stream(reasoning() + message(1, "incomplete"), "incomplete"),
    "failed": stream([*message(), ERROR], "failed"),
    "failed inside an item": stream([*reasoning(), *message(1)[:3], ERROR], "failed"),
}


def sse(stream: list[Event]) -> bytes:
    frames = (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in stream)
    return "".join(frames).encode() + b"data: [DONE]\n\n"


@pytest.mark.parametrize("name", RIGHT)
def test_check_of_valid_stream_passes(name: str) -> None:
    assert events(sse(RIGHT[name])) == RIGHT[name]


def find(stream: list[Event], kind: str, nth: int = 0) -> Event:
    return [event for event in stream if event["type"] == f"response.{kind}"][nth]


def put(kind: str, *path: str | int, value: object, nth: int = 0) -> Callable[[list[Event]], None]:
    """A mutation: in the nth event of that kind, the value at the path is another one."""

    def mutate(stream: list[Event]) -> None:
        target: Any = find(stream, kind, nth)
        for step in path[:-1]:
            target = target[step]
        assert target.get(path[-1]) != value
        target[path[-1]] = value

    return mutate


def drop(kind: str, nth: int = 0) -> Callable[[list[Event]], None]:
    return lambda stream: stream.remove(find(stream, kind, nth))


def again(kind: str, after: int = 0) -> Callable[[list[Event]], None]:
    """The first event of that kind comes a second time, `after` events later."""

    def mutate(stream: list[Event]) -> None:
        event = find(stream, kind)
        stream.insert(stream.index(event) + 1 + after, deepcopy(event))

    return mutate


def swap(kind: str, other: str) -> Callable[[list[Event]], None]:
    def mutate(stream: list[Event]) -> None:
        one, two = stream.index(find(stream, kind)), stream.index(find(stream, other))
        stream[one], stream[two] = stream[two], stream[one]

    return mutate


def both(*mutations: Callable[[list[Event]], None]) -> Callable[[list[Event]], None]:
    def mutate(stream: list[Event]) -> None:
        for mutation in mutations:
            mutation(stream)

    return mutate


def item_status(status: str, nth: int, terminal: str) -> Callable[[list[Event]], None]:
    """The nth item ends so, in its own event and in the final output."""
    return both(
        put("output_item.done", "item", "status", value=status, nth=nth),
        put(terminal, "response", "output", nth, "status", value=status),
    )


# Each is wrong in one point; sequence numbers are made right again after, but where they are the point.
WRONG: list[tuple[str, Callable[[list[Event]], None], str]] = [
    ("message", drop("created"), "which allows only"),
    ("message", again("created"), "which allows only"),
    ("message", swap("created", "in_progress"), "which allows only"),
    ("message", swap("queued", "in_progress"), "which allows only"),
    ("message", both(drop("in_progress"), drop("in_progress")), "which allows only"),
    ("message", again("queued"), "which allows only"),
    ("message", again("in_progress", after=3), "which allows only"),
    ("message", drop("completed"), "without a terminal event"),
    ("message", again("completed"), "which allows only"),
    ("message", lambda stream: stream.append(deepcopy(ERROR)), "which allows only"),
    ("failed", drop("failed"), "without a terminal event"),
    ("failed", swap("failed", "output_item.done"), "output against the finished items"),
    ("message", put("created", "response", "id", value="resp_2"), "the response's id"),
    ("message", put("completed", "response", "id", value="resp_2"), "the response's id"),
    ("message", put("completed", "response", "created_at", value=1), "the response's created_at"),
    ("message", put("created", "response", "usage", value=USAGE), "usage"),
    ("message", put("created", "response", "output", value=[RIGHT["message"][-2]["item"]]), "output against"),
    ("message", put("in_progress", "response", "completed_at", value=1), "completed_at"),
    ("message", put("created", "response", "status", value="completed"), "status"),
    ("message", put("completed", "response", "status", value="incomplete"), "status"),
    ("message", put("completed", "response", "completed_at", value=None), "completed_at"),
    ("message", put("completed", "response", "usage", value=None), "usage"),
    ("message", put("completed", "response", "error", value=TERMINAL["failed"]["error"]), "error"),
    ("message", put("completed", "response", "output", value=[]), "output against the finished items"),
    ("message", put("completed", "response", "output", 0, "id", value="msg_2"), "output against"),
    (
        "message",
        put("completed", "response", "output", 0, "content", 0, "text", value="Hi"),
        "output against",
    ),
    ("message", item_status("incomplete", 0, "completed"), "incomplete item"),
    ("message", item_status("in_progress", 0, "completed"), "status"),
    ("incomplete", item_status("incomplete", 0, "incomplete"), "not the last"),
    ("incomplete", put("incomplete", "response", "usage", value=None), "usage"),
    ("incomplete", put("incomplete", "response", "incomplete_details", value=None), "incomplete_details"),
    ("incomplete", put("incomplete", "response", "completed_at", value=1), "completed_at"),
    ("failed", put("failed", "response", "error", value=None), "error"),
    ("failed inside an item", drop("output_item.done"), "which allows only"),
    ("message", put("completed", "response", "usage", "total_tokens", value=15), "total"),
    (
        "message",
        put("completed", "response", "usage", "input_tokens_details", "cached_tokens", value=10),
        "cached",
    ),
    (
        "message",
        put("completed", "response", "usage", "output_tokens_details", "reasoning_tokens", value=6),
        "reasoning",
    ),
    ("message", put("output_item.added", "output_index", value=1), "output_index"),
    ("reasoning, message", put("output_item.added", "output_index", value=0, nth=1), "output_index"),
    ("reasoning, message", put("output_text.delta", "output_index", value=0), "output_index"),
    ("reasoning, message", put("content_part.added", "output_index", value=0, nth=1), "output_index"),
    ("reasoning, message", swap("content_part.done", "output_text.delta"), "which allows only"),
    ("message", put("output_item.added", "item", "status", value="completed"), "status"),
    ("message", put("output_item.added", "item", "id", value="fc_1"), "msg_"),
    ("message", put("output_item.done", "item", "id", value="msg_2"), "the item's id"),
    ("function call", put("output_item.done", "item", "call_id", value="call_2"), "call_id"),
    ("function call", put("output_item.added", "item", "call_id", value="fc_1"), "call_id"),
    ("function call", put("output_item.done", "item", "name", value="see"), "name"),
    ("function call", put("function_call_arguments.done", "name", value="see"), "name"),
    ("function call", put("function_call_arguments.done", "arguments", value="{ }"), "arguments"),
    ("function call", put("output_item.done", "item", "arguments", value="{ }"), "arguments"),
    ("function call", put("output_item.added", "item", "arguments", value="{"), "arguments"),
    ("function call", drop("function_call_arguments.done"), "which allows only"),
    ("function call", drop("function_call_arguments.delta"), "arguments"),
    ("custom tool call", put("custom_tool_call_input.done", "input", value=""), "input"),
    ("custom tool call", put("output_item.done", "item", "input", value=""), "input"),
    ("message", put("output_text.delta", "item_id", value="msg_2"), "item_id"),
    ("message", put("output_text.delta", "content_index", value=1), "content_index"),
    ("message", put("content_part.added", "content_index", value=0, nth=1), "content_index"),
    ("message", put("content_part.done", "content_index", value=1), "content_index"),
    ("message", put("content_part.added", "part", "text", value="Hel"), "the new part's text"),
    ("message", put("output_text.delta", "delta", value="hel"), "text"),
    ("message", put("output_text.done", "text", value="Hell"), "text"),
    ("message", put("content_part.done", "part", "text", value="Hell"), "text"),
    ("message", put("output_item.done", "item", "content", 0, "text", value="Hell"), "content"),
    ("message", put("refusal.done", "refusal", value="Yes"), "refusal"),
    ("message", drop("content_part.added"), "which allows only"),
    ("message", drop("content_part.added", nth=1), "which allows only"),
    ("message", drop("output_text.done"), "which allows only"),
    ("message", drop("content_part.done"), "which allows only"),
    ("message", drop("output_item.added"), "which allows only"),
    ("message", drop("output_item.done"), "which allows only"),
    ("message", again("output_item.added"), "which allows only"),
    ("message", swap("content_part.added", "output_text.delta"), "which allows only"),
    ("message", swap("output_text.done", "content_part.done"), "which allows only"),
    ("reasoning, message", put("reasoning_text.done", "text", value="H"), "text"),
    ("reasoning, message", put("reasoning_summary_text.done", "text", value="s"), "text"),
    ("reasoning, message", put("reasoning_summary_part.added", "summary_index", value=1), "summary_index"),
    ("reasoning, message", put("output_item.done", "item", "summary", value=[]), "summary"),
    ("reasoning, message", put("output_item.done", "item", "content", value=[]), "content"),
    ("message", put("output_text.delta", "type", value="response.output_text.piece"), "knows no event"),
    ("message", put("output_text.delta", "delta", value=3), "openai-python"),
    ("message", put("output_text.delta", "content_index", value="0"), "openai-python"),
]


@pytest.mark.parametrize(("name", "mutate", "reason"), WRONG)
def test_check_of_stream_with_one_fault_fails(name: str, mutate: Callable[[list[Event]], None], reason: str) -> None:
    wrong = deepcopy(RIGHT[name])
    mutate(wrong)
    for number, event in enumerate(wrong):
        event["sequence_number"] = number
    with pytest.raises(AssertionError, match=reason):
        check_stream(wrong)


@pytest.mark.parametrize("numbers", [[1, 2], [0, 2], [0, 0], [0, -1]])
def test_sequence_numbers_count_from_zero(numbers: list[int]) -> None:
    wrong = deepcopy(RIGHT["nothing"])
    for event, number in zip(wrong, numbers, strict=False):
        event["sequence_number"] = number
    with pytest.raises(AssertionError, match="sequence_number"):
        check_stream(wrong)


def required(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every field, however deep, that openai-python's own classes require."""
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from required(inner, (*path, index))
    elif isinstance(value, pydantic.BaseModel):
        for name, field in type(value).model_fields.items():
            if field.is_required():
                yield (*path, name)
            yield from required(getattr(value, name), (*path, name))


def without(event: Event, path: tuple[str | int, ...]) -> Event:
    copy: Any = deepcopy(event)
    target = copy
    for step in path[:-1]:
        target = target[step]
    del target[path[-1]]
    return copy  # type: ignore[no-any-return]  # a JSON tree is Any on the way down


EVERY_KIND = {event["type"]: event for stream in RIGHT.values() for event in stream}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_each_missing_required_field_fails_by_the_official_client(kind: str) -> None:
    event = EVERY_KIND[kind]
    model = wire._client_types()[kind].model_validate_json(json.dumps(event))
    paths = list(required(model))
    assert ("sequence_number",) in paths
    for path in paths:
        with pytest.raises(AssertionError, match="openai-python"):
            check_client(without(event, path))


needs_schema = pytest.mark.skipif(
    not wire.HAS_OPEN_RESPONSES,
    reason=f"no {wire.OPEN_RESPONSES.name}: Open Responses is not checked here",
)


@pytest.mark.parametrize("field", sorted(event_fields.RESPONSE))
def test_response_without_a_field_fails_by_the_table(field: str) -> None:
    event = RIGHT["message"][-1]
    with pytest.raises(AssertionError, match=rf"table of fields: it lacks \['response\.{field}'\]"):
        wire.check_schema(without(event, ("response", field)))


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_event_without_a_field_fails_by_the_table(kind: str) -> None:
    for field in event_fields.EVENTS[kind]:
        with pytest.raises(AssertionError, match="table of fields"):
            wire.check_schema(without(EVERY_KIND[kind], (field,)))


@needs_schema
@pytest.mark.parametrize("field", BODY)
def test_each_missing_response_field_fails_by_open_responses(field: str) -> None:
    event = RIGHT["message"][-1]
    with pytest.raises(AssertionError, match=r"Open Responses|table of fields"):
        wire.check_schema(without(event, ("response", field)))


@needs_schema
def test_open_responses_finds_what_openai_python_lets_pass() -> None:
    wrong = deepcopy(RIGHT["reasoning, message"])
    find(wrong, "output_item.done")["item"]["encrypted_content"] = None
    with pytest.raises(AssertionError, match="Open Responses"):
        check_stream(wrong)


@needs_schema
def test_reasoning_events_are_checked_under_both_names() -> None:
    event = find(RIGHT["reasoning, message"], "reasoning_text.delta")
    with pytest.raises(AssertionError, match=r"ResponseReasoningDeltaStreamingEvent|table of fields"):
        wire.check_schema(without(event, ("content_index",)))


@pytest.mark.parametrize("name", ["message", "custom tool call", "incomplete", "failed"])
def test_check_of_valid_response_passes(name: str) -> None:
    check_response(RIGHT[name][-1]["response"])


@pytest.mark.parametrize("field", ["id", "object", "created_at", "model", "output", "tools", "usage", "error"])
def test_check_of_response_without_a_field_fails(field: str) -> None:
    with pytest.raises(AssertionError):
        check_response(without(RIGHT["message"][-1]["response"], (field,)))


def test_foreign_tools_are_no_fault() -> None:
    grammar = {"type": "custom", "name": "patch"}
    check_response(RIGHT["message"][-1]["response"] | {"tools": [grammar], "tool_choice": grammar})


@pytest.mark.parametrize(
    ("body", "frames"),
    [
        (b"", []),
        (b'event: a\ndata: {"type":"a"}\n\n', [Frame("a", b'{"type":"a"}')]),
        (b'data:{"type":\r\ndata: "a"}\r\nevent:a\r\n\r\n', [Frame("a", b'{"type":\n"a"}')]),
        (b": ping\n\ndata: [DONE]\n\n", [Frame(None, b"[DONE]")]),
    ],
)
def test_sse_is_parsed(body: bytes, frames: list[Frame]) -> None:
    assert parse_sse(body) == frames


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'data: {"type":"a"}\n\n', "event: None"),
        (b'event: b\ndata: {"type":"a"}\n\n', "event: 'b'"),
        (b'event: a\ndata: {"type":"a"}\n', "ends inside a frame"),
        (b'event: a\nid: 1\ndata: {"type":"a"}\n\n', "field b'id'"),
        (b"event: a\n\n", "no data"),
        (b"data: [DONE]\n\ndata: [DONE]\n\n", r"is \[DONE\]"),
        (b'data: [DONE]\n\nevent: a\ndata: {"type":"a"}\n\n', r"is \[DONE\]"),
        (b"event: done\ndata: [DONE]\n\n", "has an event: line"),
    ],
)
def test_loose_sse_fails(body: bytes, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        parse_sse(body)


@pytest.mark.parametrize("body", [b"", sse(RIGHT["message"]).removesuffix(b"data: [DONE]\n\n")])
def test_check_of_stream_without_done_fails(body: bytes) -> None:
    with pytest.raises(AssertionError):
        events(body)
