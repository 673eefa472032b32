"""The judge of our streams: strict frames, the official client's types, the Open Responses schema, the order.

A test of a stream calls `events(body)`, a test of a plain answer calls `check_response(body)`. Both raise
AssertionError with the event and the rule that it broke.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jsonschema
import jsonschema_rs
import pydantic
from msgspec import Struct
from openai.types.conversations import Conversation, ConversationItemList
from openai.types.responses import Response, ResponseStreamEvent

from tests.data import event_fields
from tests.support.wire_order import check_order, check_outcome

OPEN_RESPONSES = Path(__file__).parents[3] / "shared" / "spec" / "open-responses-2026-04-24.json"
HAS_OPEN_RESPONSES = OPEN_RESPONSES.exists()

# Events that Open Responses calls by another name...
_RENAMED = {
    "response.reasoning_text.delta": "response.reasoning.delta",
    "response.reasoning_text.done": "response.reasoning.done",
}
# ...and those that it does not know.
_FOREIGN_EVENTS = {
    "response.custom_tool_call_input.delta",
    "response.custom_tool_call_input.done",
    "response.shell_call_command.added",
    "response.shell_call_command.delta",
    "response.shell_call_command.done",
    "response.compaction.compacting",
    "response.mcp_list_tools.in_progress",
    "response.mcp_list_tools.completed",
    "response.mcp_list_tools.failed",
    "response.mcp_call.in_progress",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
}
_FOREIGN_ITEMS = {
    *("custom_tool_call", "shell_call", "local_shell_call", "apply_patch_call", "tool_search_call"),
    *("mcp_list_tools", "mcp_call", "mcp_approval_request"),
}
_FOREIGN_CHOICES = {"custom", "shell", "apply_patch", "mcp"}


class Frame(Struct, frozen=True):
    """One SSE frame: the `event:` line's value, None if it has none, and its data lines joined."""

    event: str | None
    data: bytes


def parse_sse(body: bytes) -> list[Frame]:
    """All frames of a stream, each with an `event:` equal to its data's type; `[DONE]` may only be last.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation, except that
    what the algorithm would drop or forgive (a cut last frame, unknown fields, `id:`, no data) fails here.
    """
    *blocks, rest = re.sub(rb"\r\n?", b"\n", body).split(b"\n\n")
    assert rest == b"", f"the body ends inside a frame: {rest!r}"
    parsed = [_frame(block) for block in blocks]
    frames = [frame for frame in parsed if frame is not None]
    for position, frame in enumerate(frames):
        if frame.data == b"[DONE]":
            assert position == len(frames) - 1, f"frame {position} is [DONE], of {len(frames)} frames"
            assert frame.event is None, f"[DONE] has an event: line, {frame.event!r}"
        else:
            kind = json.loads(frame.data)["type"]
            assert frame.event == kind, f"frame {position}: event: {frame.event!r} but data.type {kind!r}"
    return frames


def _frame(block: bytes) -> Frame | None:
    """None for a block of comments only."""
    event: str | None = None
    data: list[bytes] = []
    lines = [line for line in block.split(b"\n") if not line.startswith(b":")]
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        assert name in {b"event", b"data"}, f"field {name!r} in {block!r}"
        if name == b"event":
            assert event is None, f"two event: lines in {block!r}"
            event = value.decode()
        else:
            data.append(value)
    assert data or not lines, f"no data: line in {block!r}"
    return Frame(event, b"\n".join(data)) if lines else None


def open_responses_events(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream with Open Responses' names for those of reasoning; here they come by OpenAI's."""
    for ours, theirs in _RENAMED.items():
        assert ours.encode() not in body, f"{ours} by OpenAI's name"
        body = body.replace(theirs.encode(), ours.encode())
    return events(body)


def by_openai_name(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event that has Open Responses' name, by OpenAI's."""
    kind = event["type"]
    assert kind not in _RENAMED, f"{kind} by OpenAI's name"
    return event | {"type": next((ours for ours, theirs in _RENAMED.items() if theirs == kind), kind)}


def events(body: bytes) -> list[dict[str, Any]]:
    """The events of a whole stream that ends with exactly one [DONE], after all checks."""
    frames = parse_sse(body)
    assert frames, "an empty stream"
    assert frames[-1].data == b"[DONE]", f"the last frame is {frames[-1]}, not [DONE]"
    found = [json.loads(frame.data) for frame in frames[:-1]]
    check_stream(found)
    return found


def check_stream(events: list[dict[str, Any]]) -> None:
    """Each event's shape by both authorities, then the order of all. Shapes first: order relies on them."""
    for event in events:
        check_client(event)
        check_schema(event)
    check_order(events)


def check_response(body: dict[str, Any]) -> None:
    """A Response that is no event: its shape by both authorities, and what its status promises."""
    _validate(Response, body, "response")
    assert (lacking := event_fields.missing_of_response(body)) == [], f"response, table of fields: it lacks {lacking}"
    check_against("ResponseResource", _known_response(body), "response")
    check_outcome(body)


def check_conversation(body: dict[str, Any]) -> None:
    _validate(Conversation, body, "conversation")


def check_conversation_items(body: dict[str, Any]) -> None:
    """A list of a conversation's items, as it comes when some are added, or in pages."""
    ends = [item["id"] for item in body["data"][:1] + body["data"][-1:]] or ["", ""]
    assert [body["first_id"], body["last_id"]] == [ends[0], ends[-1]], f"first_id and last_id: {body}"
    # openai-python's class of added items forbids the nulls of an empty page; its class of a page allows them.
    named = body if body["data"] else body | {"first_id": "", "last_id": ""}
    _validate(ConversationItemList, named, "conversation items")


def check_client(event: dict[str, Any]) -> None:
    """By openai-python's class of exactly this event type, strictly: no coercion, no other of the union."""
    kind = event.get("type")
    cls = _client_types().get(str(kind))
    assert cls is not None, f"openai-python knows no event of type {kind!r}: {event}"
    _validate(cls, event, _name(event))


def check_schema(event: dict[str, Any]) -> None:
    """Check an event by our own table of fields, and by the Open Responses schema if that lies beside the checkout."""
    assert (lacking := event_fields.missing(event)) == [], f"{_name(event)}, table of fields: it lacks {lacking}"
    if not HAS_OPEN_RESPONSES or event["type"] in _FOREIGN_EVENTS:
        return
    kind = _RENAMED.get(event["type"], event["type"])
    schema = _schema_names().get(kind)
    assert schema is not None, f"Open Responses knows no event of type {kind!r}"
    check_against(schema, _known(event) | {"type": kind}, _name(event))


def _name(event: dict[str, Any]) -> str:
    return f"event {event.get('sequence_number')} {event.get('type')}"


@cache
def _client_types() -> dict[str, type[pydantic.BaseModel]]:
    """Event type -> class. The library itself picks by `type`, but forgives everything: it constructs."""
    Response.model_rebuild()  # once; else each class of an event with a response builds its validator anew
    union = get_args(ResponseStreamEvent)[0]
    return {get_args(cls.model_fields["type"].annotation)[0]: cls for cls in get_args(union)}


def _validate(cls: type[pydantic.BaseModel], body: dict[str, Any], name: str) -> None:
    """Check by a class of openai-python, which builds its validators once; a TypeAdapter takes 40 ms to build them."""
    try:
        # As JSON: in strict mode pydantic takes models from JSON objects, but not from dicts.
        cls.model_validate_json(json.dumps(body), strict=True)
    except pydantic.ValidationError as error:
        raise AssertionError(f"{name}, openai-python: {error}") from error


@cache
def _open_responses() -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(OPEN_RESPONSES.read_bytes())
    return spec


@cache
def _schema_names() -> dict[str, str]:
    """Event type -> name of its schema."""
    schemas = _open_responses()["components"]["schemas"]
    streaming = [name for name in schemas if name.endswith("StreamingEvent")]
    return {schemas[name]["properties"]["type"]["enum"][0]: name for name in streaming}


def _root(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}", "components": _open_responses()["components"]}


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(_root(schema))


def check_against(schema: str, body: dict[str, Any], name: str) -> None:
    """Check by jsonschema-rs, which is 250 times as fast as jsonschema; that one only words the fault."""
    if not HAS_OPEN_RESPONSES or _validator(schema).is_valid(body):
        return
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(_root(schema)).iter_errors(body))
    fault = "a fault that jsonschema does not find" if error is None else f"{error.json_path}: {error.message}"
    raise AssertionError(f"{name}, Open Responses {schema}: {fault}")


def _known(event: dict[str, Any]) -> dict[str, Any]:
    """The event without OpenAI's item and tool kinds that Open Responses does not have."""
    if "response" in event:
        return event | {"response": _known_response(event["response"])}
    if event.get("item") and event["item"]["type"] in _FOREIGN_ITEMS:
        return event | {"item": None}
    return event


def _known_response(response: dict[str, Any]) -> dict[str, Any]:
    known = dict(response)
    if "output" in known:
        known["output"] = [item for item in known["output"] if item["type"] not in _FOREIGN_ITEMS]
    if "tools" in known:
        known["tools"] = [tool for tool in known["tools"] if tool["type"] == "function"]
    format_ = known.get("text", {}).get("format", {})
    if format_.get("type") == "json_schema":  # whose schema Open Responses wants to be null, always
        assert isinstance(format_["schema"], dict), f"no schema in {format_}"
        known["text"] = known["text"] | {"format": format_ | {"schema": None}}
    if isinstance(known.get("tool_choice"), dict):
        known["tool_choice"] = _known_choice(known["tool_choice"])
    return known


def _known_choice(choice: dict[str, Any]) -> dict[str, Any] | str:
    if choice["type"] in _FOREIGN_CHOICES:
        return "auto"
    if choice["type"] != "allowed_tools":
        return choice
    tools = [tool for tool in choice["tools"] if tool["type"] == "function"]
    return choice | {"tools": tools} if tools else "auto"
