"""Description of the API by OpenAPI 3.1, generated from the Structs that decode and encode its bodies."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, TypeAlias, get_args

import msgspec
from msgspec import Struct

from server.api.conversations import ConversationObject
from server.api.input_tokens import InputTokens
from server.api.models import ModelList, ModelObject
from server.api.text_completions import CompletionRequest
from server.http import LARGE, Exchange, WorkThread
from server.monitoring import Health, Status, Version
from server.prompt import compaction
from server.protocol import input_items, sse
from server.protocol.chat_request import ChatRequest
from server.protocol.request import Listing, Request, Retrieval
from server.protocol.response import Response
from server.protocol.stored_objects import Addition, Change, Creation, Deleted
from server.protocol.tools import ToolEcho
from server.session import STREAM_ID, SessionEvent
from server.stream.completions import ChatChunk, ChatCompletion, Failed, TextCompletion

JSON: TypeAlias = dict[str, Any]

REF = "#/components/schemas/{name}"
EVENT, ITEM, TOOL, ITEM_LIST = "ResponseStreamEvent", "InputItem", "InputTool", "ItemList"
CLIENT_MESSAGE, SERVER_MESSAGE = "WebSocketClientEvent", "WebSocketServerEvent"


class Operation(Struct, frozen=True):
    """One method of a path."""

    method: str
    path: str
    id: str
    summary: str
    answer: Any = None
    """Struct or name of a component; None for plain text."""
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    events: Any = None
    """Struct or name of a component for the data of SSE events, if the answer may be a stream."""
    switches: bool = False
    """True if the connection switches to another protocol."""


OPERATIONS = (
    Operation("get", "/", "page", "The status page, in HTML"),
    Operation("get", "/health", "health", "True while the process works", Health),
    Operation("get", "/ready", "ready", "True while new requests are welcome", Health),
    Operation("get", "/version", "version", "Versions of the server and its engine", Version),
    Operation("get", "/metrics", "metrics", "Metrics in Prometheus's text format (--metrics true)"),
    Operation("get", "/status", "status", "Slots, streams, latencies, cache and memory at this moment", Status),
    Operation("get", "/openapi.json", "openapi", "This description"),
    Operation("get", "/v1/models", "listModels", "The model under its name and its aliases", ModelList),
    Operation("get", "/v1/models/{name}", "retrieveModel", "One name of the model", ModelObject),
    Operation(
        "post", "/v1/responses", "createResponse", "Answer a request, as a stream or whole", Response, Request,
        events=EVENT,
    ),
    Operation("get", "/v1/responses", "connect", "Open a WebSocket; `x-websocket` has its messages", switches=True),
    Operation("post", "/v1/responses/input_tokens", "countInputTokens", "Tokens of the prompt", InputTokens, Request),
    Operation(
        "post", "/v1/responses/compact", "compact", "Summarize a conversation", compaction.CompactedResponse, Request
    ),
    Operation(
        "get", "/v1/responses/{id}", "retrieveResponse", "A stored response, or its stream", Response,
        query=Retrieval, events=EVENT,
    ),
    Operation("delete", "/v1/responses/{id}", "deleteResponse", "Delete a stored response", Deleted),
    Operation("post", "/v1/responses/{id}/cancel", "cancelResponse", "Cancel a background response", Response),
    Operation(
        "get", "/v1/responses/{id}/input_items", "listInputItems", "Input items of a stored response", ITEM_LIST,
        query=Listing,
    ),
    Operation(
        "post", "/v1/chat/completions", "createChatCompletion", "Answer a chat", ChatCompletion, ChatRequest,
        events=ChatChunk,
    ),
    Operation(
        "post", "/v1/completions", "createCompletion", "Continue a text", TextCompletion, CompletionRequest,
        events=TextCompletion,
    ),
    Operation("post", "/v1/conversations", "createConversation", "Create a conversation", ConversationObject, Creation),
    Operation("get", "/v1/conversations/{id}", "retrieveConversation", "A conversation", ConversationObject),
    Operation(
        "post", "/v1/conversations/{id}", "updateConversation", "Replace its metadata", ConversationObject, Change
    ),
    Operation("delete", "/v1/conversations/{id}", "deleteConversation", "Delete a conversation", Deleted),
    Operation(
        "get", "/v1/conversations/{id}/items", "listConversationItems", "Items of a conversation", ITEM_LIST,
        query=Listing,
    ),
    Operation(
        "post", "/v1/conversations/{id}/items", "addConversationItems", "Append items", ITEM_LIST, Addition
    ),
    Operation(
        "get", "/v1/conversations/{id}/items/{item}", "retrieveConversationItem", "One item of a conversation", ITEM
    ),
    Operation(
        "delete", "/v1/conversations/{id}/items/{item}", "deleteConversationItem", "Delete an item",
        ConversationObject,
    ),
)  # fmt: skip

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
TEXT_TYPES = {"/": "text/html", "/openapi.json": "application/json"}
"""Path of an answer without a component -> its media type, other than plain text."""
OTHER_TYPE = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
"""Objects that the server decodes by their type, or skips and names in the response."""


class OpenAPIHandler:
    """`GET /openapi.json`. The document is made at the first request."""

    def __init__(self, work: WorkThread) -> None:
        self._work = work
        self._document = b""

    async def retrieve(self, exchange: Exchange) -> None:
        if not self._document:
            self._document = await self._work.run(LARGE + 1, document, metadata.version("responsed"))
        await exchange.answer(200, self._document)


def document(version: str) -> bytes:
    """Return the description as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.1",
            "info": {"title": "responsed", "version": version, "description": "OpenAI Responses API of a GGUF model."},
            "servers": [{"url": "/"}],
            "security": [{}, {"key": []}],
            "paths": _paths(),
            "components": {
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
                "schemas": _schemas(),
            },
        }
    )


def _schemas() -> JSON:
    named = [kind for each in OPERATIONS for kind in (each.body, each.answer, each.events) if isinstance(kind, type)]
    kinds = [sse.SentEvent, Failed, *get_args(SessionEvent), *INPUT_ITEMS, *get_args(ToolEcho), *dict.fromkeys(named)]
    (event, *_), schemas = msgspec.json.schema_components(kinds, ref_template=REF)
    for struct, types in INPUT_ITEMS.items():
        _add_type(schemas[struct.__name__], types)
    schemas[EVENT] = event
    lane = {"type": "object", "properties": {"stream_id": {"type": "string"}}}
    schemas[SERVER_MESSAGE] = {"allOf": [{"anyOf": [_ref(EVENT), *_refs(get_args(SessionEvent))]}, lane]}
    schemas[CLIENT_MESSAGE] = {"anyOf": _client_messages()}
    schemas[ITEM] = {"anyOf": [*_refs(INPUT_ITEMS), OTHER_TYPE]}
    schemas[TOOL] = {"anyOf": [*_refs(get_args(ToolEcho)), OTHER_TYPE]}
    schemas[ITEM_LIST] = _item_list()
    request = schemas["Request"]["properties"]
    request["input"] = {"anyOf": [{"type": "string"}, {"type": "array", "items": _ref(ITEM)}, {"type": "null"}]}
    request["tools"] = {"anyOf": [{"type": "array", "items": _ref(TOOL)}, {"type": "null"}]}
    return schemas


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
    text_or_items = {"anyOf": [{"type": "string"}, {"type": "array", "items": _ref(ITEM)}]}
    steer = {
        "type": {"const": "response.steer"},
        "previous_response_id": {"type": "string"},
        "input": text_or_items,
    }
    return [
        {"allOf": [_ref(Request), {"type": "object", "properties": create, "required": ["type"]}]},
        {"type": "object", "properties": steer, "required": list(steer), "additionalProperties": False},
    ]


def _item_list() -> JSON:
    text = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    properties = {
        "object": {"const": "list"},
        "data": {"type": "array", "items": _ref(ITEM)},
        "first_id": text,
        "last_id": text,
        "has_more": {"type": "boolean"},
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _paths() -> JSON:
    paths: dict[str, JSON] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return paths


def _operation(operation: Operation) -> JSON:
    described: JSON = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": list(_parameters(operation)),
        "responses": {
            "101" if operation.switches else "200": _answer(operation),
            "default": {"description": "Error", "content": {"application/json": {"schema": _ref(Failed)}}},
        },
    }
    if operation.switches:
        described["x-websocket"] = {"client": _ref(CLIENT_MESSAGE), "server": _ref(SERVER_MESSAGE)}
    if operation.body is not None:
        content = {"application/json": {"schema": _ref(operation.body)}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _answer(operation: Operation) -> JSON:
    described: JSON = {"description": operation.summary}
    return described if operation.switches else {**described, "content": _content(operation)}


def _content(operation: Operation) -> JSON:
    if operation.answer is None:
        kind = TEXT_TYPES.get(operation.path, "text/plain")
        return {kind: {"schema": {"type": "object" if kind == "application/json" else "string"}}}
    content = {"application/json": {"schema": _ref(operation.answer)}}
    if operation.events is not None:
        content["text/event-stream"] = {"schema": _ref(operation.events)}
    return content


def _parameters(operation: Operation) -> Iterator[JSON]:
    for name in re.findall(r"\{(\w+)\}", operation.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if operation.query is not None:
        schema = msgspec.json.schema(operation.query)["$defs"][operation.query.__name__]
        for name, kind in schema["properties"].items():
            yield {"name": name, "in": "query", "required": False, "schema": kind}


def _ref(kind: Any) -> JSON:
    return {"$ref": REF.format(name=kind if isinstance(kind, str) else kind.__name__)}


def _refs(kinds: Iterable[Any]) -> list[JSON]:
    return list(map(_ref, kinds))
