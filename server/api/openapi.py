"""`GET /openapi.json`: the description of this server's API."""

from importlib import metadata

from server.api.conversations import ConversationObject
from server.api.input_tokens import InputTokens
from server.api.models import ModelList, ModelObject
from server.api.text_completions import CompletionRequest
from server.http import Exchange
from server.monitoring import Health, Status, Version
from server.openapi import EVENT, ITEM, ITEM_LIST, Operation, document
from server.prompt import compaction
from server.protocol.chat_request import ChatRequest
from server.protocol.request import Listing, Request, Retrieval
from server.protocol.response import Response
from server.protocol.stored_objects import Addition, Change, Creation, Deleted
from server.stream.completions import ChatChunk, ChatCompletion, TextCompletion
from server.work_thread import LARGE, WorkThread

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


class OpenAPIHandler:
    """`GET /openapi.json`. The document is made at the first request."""

    def __init__(self, work: WorkThread) -> None:
        self._work = work
        self._document = b""

    async def retrieve(self, exchange: Exchange) -> None:
        if not self._document:
            self._document = await self._work.run(LARGE + 1, document, OPERATIONS, metadata.version("responsed"))
        await exchange.answer(200, self._document)
