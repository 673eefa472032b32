"""Body of `POST /v1/chat/completions`. Other fields are skipped, as in `server.protocol.request`."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from server.protocol import decoding, fields, formats
from server.protocol import request as schema
from server.protocol.formats import PlainFormat
from server.protocol.prompt_cache import CacheOptions, Retention
from server.protocol.request import Metadata


class ChatStreamOptions(Struct, frozen=True):
    """Field `stream_options` of Chat Completions and completions. For obfuscation see `StreamOptions`."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def includes_usage(options: ChatStreamOptions | None) -> bool:
    """Return True if a stream ends with a chunk that has the usage."""
    return options is not None and bool(options.include_usage)


class ToolFunction(Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = schema.NULL_DEFAULT


class ToolCustom(Struct, frozen=True):
    name: str
    input: msgspec.Raw = schema.NULL_DEFAULT


class ToolCall(Struct, frozen=True):
    """Call of a function or a custom tool."""

    id: str | int | None = None
    function: ToolFunction | None = None
    custom: ToolCustom | None = None


class ChatMessage(Struct, frozen=True):
    """Message of any role.

    OpenAI has no `reasoning_content`; servers of open models send it, and clients send it back. `function_call` and
    the role `function` are earlier names of `tool_calls` and `tool`.
    """

    role: str
    content: str | list[msgspec.Raw] | None = None
    refusal: str | None = None
    reasoning_content: msgspec.Raw = schema.NULL_DEFAULT
    reasoning: msgspec.Raw = schema.NULL_DEFAULT
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | int | None = None
    function_call: ToolFunction | None = None


class OfferedFunction(Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = schema.NULL_DEFAULT
    strict: bool | None = None


class InputGrammar(Struct, frozen=True):
    syntax: str
    definition: str


class InputFormat(Struct, frozen=True):
    """Format of a custom tool, nested one level deeper than in `POST /v1/responses`."""

    type: str | None = None
    grammar: InputGrammar | None = None


class OfferedCustom(Struct, frozen=True):
    name: str
    description: str | None = None
    format: InputFormat | None = None


class ChatTool(Struct, frozen=True):
    """Entry of `tools`."""

    type: str | None = None
    function: OfferedFunction | None = None
    custom: OfferedCustom | None = None


class Named(Struct, frozen=True):
    name: str


class ChatAllowedTools(Struct, frozen=True):
    mode: str = "auto"
    tools: list[msgspec.Raw] = []


class ChatChoice(Struct, frozen=True):
    """Field `tool_choice` in its object form."""

    type: str | None = None
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: ChatAllowedTools | None = None


class ChatJsonFormat(Struct, frozen=True, tag="json_object"):
    """JSON format; `schema`, an extension of llama.cpp's server, constrains the output."""

    schema: msgspec.Raw = schema.NULL_DEFAULT


class ChatSchema(Struct, frozen=True):
    name: formats.Name
    schema: msgspec.Raw
    description: str | None = None
    strict: bool | None = None


class ChatSchemaFormat(Struct, frozen=True, tag="json_schema"):
    json_schema: ChatSchema


class ChatRequest(schema.RequestBody, frozen=True):
    """Body of the request. Limits: OpenAI's API. `RequestBody` describes the extensions."""

    messages: list[ChatMessage] | None = None
    stream_options: ChatStreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: schema.Top | None = None
    max_tokens: schema.Limit | None = None
    max_completion_tokens: schema.Limit | None = None
    response_format: PlainFormat | ChatJsonFormat | ChatSchemaFormat | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None
    prompt_cache_retention: Retention | None = None
    safety_identifier: str | None = None
    user: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: schema.Effort | None = None
    tools: list[ChatTool] | None = None
    tool_choice: str | ChatChoice | None = None
    return_progress: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


_request = msgspec.json.Decoder(ChatRequest)
KNOWN = frozenset(ChatRequest.__struct_fields__)
MEMBERS = {"stream_options": frozenset(ChatStreamOptions.__struct_fields__)}
"""Field -> known members of its object."""


REFUSED = {
    **fields.REFUSED,
    "functions": "send `tools`",
    "function_call": "send `tool_choice`",
    "max_output_tokens": "send `max_completion_tokens`",
    "text": "send `response_format`",
}
"""Fields that are refused, since skipping them would change the output -> alternative."""


def decode(body: bytes) -> ChatRequest:
    """Decode a body. Raises InvalidRequest, which names the field."""
    request = schema.with_limits(decoding.read(body, _request), "max_tokens", "max_completion_tokens")
    fields.refuse_fields(body, REFUSED)
    return request


def unknown_fields(body: bytes) -> set[str]:
    return fields.unknown_fields(body, KNOWN, MEMBERS)
