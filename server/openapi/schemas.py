"""Components of the description: schemas of the Structs, and of what Structs do not show."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, get_args

import msgspec
from msgspec import Struct

from server.openapi.operation import Operation
from server.protocol import input_items, sse
from server.protocol.request import Request
from server.protocol.tools import ToolEcho
from server.session import STREAM_ID, SessionEvent
from server.stream.completions import Failed

JSON: TypeAlias = dict[str, Any]

REF = "#/components/schemas/{name}"
EVENT, ITEM, TOOL, ITEM_LIST = "ResponseStreamEvent", "InputItem", "InputTool", "ItemList"
CLIENT_MESSAGE, SERVER_MESSAGE = "WebSocketClientEvent", "WebSocketServerEvent"

INPUT_ITEMS: Mapping[type[Struct], Sequence[str]] = {
    input_items.MessageItem: ("message",),
    input_items.InputFunctionCall: ("function_call",),
    input_items.InputCustomToolCall: ("custom_tool_call",),
    input_items.ToolOutput: ("function_call_output", "custom_tool_call_output"),
    input_items.InputReasoningItem: ("reasoning",),
    input_items.InputCompactionItem: ("compaction",),
    input_items.ItemReference: ("item_reference",),
}
"""Structs of input items, which are decoded one by one -> their types."""
OTHER_TYPE = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
"""Objects that the server decodes by their type, or skips and names in the response."""


def schemas(operations: Sequence[Operation]) -> JSON:
    """Return the schemas of all bodies, and of their parts that are decoded one by one."""
    named = [kind for each in operations for kind in (each.body, each.answer, each.events) if isinstance(kind, type)]
    kinds = [sse.SentEvent, Failed, *get_args(SessionEvent), *INPUT_ITEMS, *get_args(ToolEcho), *dict.fromkeys(named)]
    (event, *_), found = msgspec.json.schema_components(kinds, ref_template=REF)
    for struct, types in INPUT_ITEMS.items():
        _add_type(found[struct.__name__], types)
    found[EVENT] = event
    lane = {"type": "object", "properties": {"stream_id": {"type": "string"}}}
    found[SERVER_MESSAGE] = {"allOf": [{"anyOf": [ref(EVENT), *_refs(get_args(SessionEvent))]}, lane]}
    found[CLIENT_MESSAGE] = {"anyOf": _client_messages()}
    found[ITEM] = {"anyOf": [*_refs(INPUT_ITEMS), OTHER_TYPE]}
    found[TOOL] = {"anyOf": [*_refs(get_args(ToolEcho)), OTHER_TYPE]}
    found[ITEM_LIST] = _item_list()
    request = found["Request"]["properties"]
    request["input"] = {"anyOf": [{"type": "string"}, {"type": "array", "items": ref(ITEM)}, {"type": "null"}]}
    request["tools"] = {"anyOf": [{"type": "array", "items": ref(TOOL)}, {"type": "null"}]}
    return found


def _add_type(schema: JSON, types: Sequence[str]) -> None:
    """Add the field `type`, by which the reader of items chooses the Struct; messages and references may lack it."""
    schema["properties"]["type"] = {"enum": list(types)}
    if "item_reference" in types:
        schema["required"] = ["id"]
    elif "message" not in types:
        schema["required"] = ["type", *schema.get("required", ())]


def _client_messages() -> list[JSON]:
    """Return the schemas of the messages that a WebSocket client sends."""
    lane = {"type": ["string", "null"], "pattern": f"^(?:{STREAM_ID.pattern})$"}
    create = {"type": {"const": "response.create"}, "stream_id": lane, "generate": {"type": ["boolean", "null"]}}
    text_or_items = {"anyOf": [{"type": "string"}, {"type": "array", "items": ref(ITEM)}]}
    steer = {
        "type": {"const": "response.steer"},
        "previous_response_id": {"type": "string"},
        "input": text_or_items,
    }
    return [
        {"allOf": [ref(Request), {"type": "object", "properties": create, "required": ["type"]}]},
        {"type": "object", "properties": steer, "required": list(steer), "additionalProperties": False},
    ]


def _item_list() -> JSON:
    text = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    properties = {
        "object": {"const": "list"},
        "data": {"type": "array", "items": ref(ITEM)},
        "first_id": text,
        "last_id": text,
        "has_more": {"type": "boolean"},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def ref(kind: Any) -> JSON:
    """Return a reference to the component of a Struct, or of a name."""
    return {"$ref": REF.format(name=kind if isinstance(kind, str) else kind.__name__)}


def _refs(kinds: Iterable[Any]) -> list[JSON]:
    return list(map(ref, kinds))
