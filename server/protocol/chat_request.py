"""What clients may send to `POST /v1/chat/completions`. Fields not named here are skipped, as in `schema`."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from server.protocol import fields, formats
from server.protocol import request as schema
from server.protocol.formats import PlainFormat
from server.protocol.request import Metadata


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class ToolFunction(Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = schema.NULL


class CustomTool(Struct, frozen=True):
    name: str
    input: msgspec.Raw = schema.NULL


class ToolCall(Struct, frozen=True):
    """One of both kinds."""

    id: str | int | None = None
    function: ToolFunction | None = None
    custom: CustomTool | None = None


class ChatMessage(Struct, frozen=True):
    """Of any role. `reasoning_content` is no field of OpenAI's; servers of open models send it, and clients replay it.

    `function_call` and the role `function` are what `tool_calls` and `tool` were before.
    """

    role: str
    content: str | list[msgspec.Raw] | None = None
    refusal: str | None = None
    reasoning_content: msgspec.Raw = schema.NULL
    reasoning: msgspec.Raw = schema.NULL
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | int | None = None
    function_call: ToolFunction | None = None


class OfferedFunction(Struct, frozen=True):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = schema.NULL
    strict: bool | None = None


class InputGrammar(Struct, frozen=True):
    syntax: str
    definition: str


class InputFormat(Struct, frozen=True):
    """Of a custom tool, with a level more than `POST /v1/responses` has."""

    type: str | None = None
    grammar: InputGrammar | None = None


class OfferedCustom(Struct, frozen=True):
    name: str
    description: str | None = None
    format: InputFormat | None = None


class ChatTool(Struct, frozen=True):
    """One of `tools`."""

    type: str | None = None
    function: OfferedFunction | None = None
    custom: OfferedCustom | None = None


class Named(Struct, frozen=True):
    name: str


class AllowedTools(Struct, frozen=True):
    mode: str = "auto"
    tools: list[msgspec.Raw] = []


class ChatChoice(Struct, frozen=True):
    """`tool_choice`, where it is an object."""

    type: str | None = None
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: AllowedTools | None = None


class ChatJsonFormat(Struct, frozen=True, tag="json_object"):
    """With `schema`, as llama.cpp's server has it, the answer is constrained by it."""

    schema: msgspec.Raw = schema.NULL


class ChatSchema(Struct, frozen=True):
    name: formats.Name
    schema: msgspec.Raw
    description: str | None = None
    strict: bool | None = None


class ChatSchemaFormat(Struct, frozen=True, tag="json_schema"):
    json_schema: ChatSchema


class ChatRequest(schema.SamplingFields, frozen=True):
    """The body. Bounds: OpenAI's API. `top_k`, `min_p` and what has `repe` in its name are ours, see `schema`."""

    model: str | None = None
    messages: list[ChatMessage] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: schema.Top | None = None
    max_tokens: schema.Limit | None = None
    max_completion_tokens: schema.Limit | None = None
    response_format: PlainFormat | ChatJsonFormat | ChatSchemaFormat | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: schema.Effort | None = None
    tools: list[ChatTool] | None = None
    tool_choice: str | ChatChoice | None = None
    return_progress: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


_request = msgspec.json.Decoder(ChatRequest)
KNOWN = frozenset(ChatRequest.__struct_fields__)


REFUSED = {
    **fields.REFUSED,
    "functions": "send `tools`",
    "function_call": "send `tool_choice`",
    "max_output_tokens": "send `max_completion_tokens`",
    "text": "send `response_format`",
}
"""Fields that would change the answer and have no effect here -> what to do instead."""


def decode(body: bytes) -> ChatRequest:
    """Raises InvalidRequest, naming the field."""
    request = schema.limited(schema.read(body, _request), "max_tokens", "max_completion_tokens")
    fields.refuse_fields(body, REFUSED)
    return request


def unknown_fields(body: bytes) -> set[str]:
    return fields.unknown_fields(body, KNOWN)
