"""Convert a request of `POST /v1/chat/completions` into a Responses request and its messages. Pure.

The server answers it as it answers `POST /v1/responses`, and `server.stream` renders the response as a chat completion.
Both endpoints therefore share the prompt, sampling, queue, heartbeat, disconnects and the end of each stream.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from engine.chat_template import Call, Message
from server.prompt import options
from server.prompt.conversation import PromptMessages, format_note, prompt_messages
from server.prompt.items import (
    ROLES,
    InputReader,
    ItemPlace,
    Output,
    PlacedEntry,
    PromptEntry,
    ReasoningEntry,
    id_text,
)
from server.protocol.chat_request import (
    ChatChoice,
    ChatJsonFormat,
    ChatMessage,
    ChatRequest,
    ChatSchemaFormat,
    ChatTool,
    InputFormat,
)
from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.fields import is_null
from server.protocol.formats import PLAIN, Format, JsonFormat, SchemaFormat, TextOptions
from server.protocol.input_items import as_text, replayed_text
from server.protocol.prompt_cache import CacheOptions, ResponseCacheOptions
from server.protocol.request import NULL, ReasoningOptions, Request, sampling_fields
from server.tools import NO_TOOLS, Toolbox


def request(chat: ChatRequest) -> Request:
    """Return the settings of a chat request; `messages_of` reads its messages. Raises InvalidRequest."""
    if chat.top_logprobs and not chat.logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs: true`.", param="top_logprobs")
    return Request(
        model=chat.model,
        input=[],
        stream=chat.stream,
        **sampling_fields(chat),
        include=[options.LOGPROBS] if chat.logprobs else None,
        top_logprobs=chat.top_logprobs,
        max_output_tokens=chat.max_completion_tokens or chat.max_tokens,
        text=TextOptions(_format(chat)) if chat.response_format else None,
        metadata=chat.metadata,
        service_tier=chat.service_tier,
        prompt_cache_key=chat.prompt_cache_key,
        prompt_cache_options=_lifetime(chat.prompt_cache_options),
        prompt_cache_retention=chat.prompt_cache_retention,
        safety_identifier=chat.safety_identifier,
        user=chat.user,
        parallel_tool_calls=chat.parallel_tool_calls,
        tools=None if chat.tools is None else [_tool(tool) for tool in chat.tools],
        tool_choice=_choice(chat.tool_choice),
        return_progress=chat.return_progress,
        return_token_times=chat.return_token_times,
        chat_template_kwargs=chat.chat_template_kwargs,
        reasoning=ReasoningOptions(chat.reasoning_effort) if chat.reasoning_effort else None,
    )


def _lifetime(options: CacheOptions | None) -> ResponseCacheOptions | None:
    """Return the option that has an effect in chat."""
    return None if options is None or options.ttl is None else ResponseCacheOptions(ttl=options.ttl)


def _tool(tool: ChatTool) -> msgspec.Raw:
    """Return a tool as `POST /v1/responses` expects it, without the field named as its type."""
    inner = tool.custom if tool.type == "custom" else tool.function
    fields = {} if inner is None else msgspec.structs.asdict(inner)
    if tool.custom is not None and tool.custom.format is not None:
        fields["format"] = _input_format(tool.custom.format)
    return _raw({"type": tool.type, **fields})


def _input_format(input_: InputFormat) -> dict[str, Any]:
    return {"type": input_.type, **({} if input_.grammar is None else msgspec.structs.asdict(input_.grammar))}


def _choice(choice: str | ChatChoice | None) -> msgspec.Raw:
    if choice is None:
        return NULL
    if not isinstance(choice, ChatChoice):
        return _raw(choice)
    if choice.allowed_tools is not None:
        tools = [_named(part(raw, ChatChoice, "tool_choice.allowed_tools.tools")) for raw in choice.allowed_tools.tools]
        return _raw({"type": choice.type, "mode": choice.allowed_tools.mode, "tools": tools})
    return _raw(_named(choice))


def _named(choice: ChatChoice) -> dict[str, str | None]:
    named = choice.function or choice.custom
    return {"type": choice.type, "name": named.name if named else None}


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def messages_of(chat: ChatRequest, toolbox: Toolbox = NO_TOOLS) -> PromptMessages:
    """Return the conversation that the model answers.

    Raises InvalidRequest if there is no message, or one that a text model cannot read.
    """
    if chat.messages is None:
        raise InvalidRequest("`messages` is missing: send the conversation so far.", param="messages")
    reader = InputReader()
    users = [index for index, message in enumerate(chat.messages) if message.role == "user"]
    entries: list[PlacedEntry] = []
    for index, message in enumerate(chat.messages):
        found = _entries(message, f"messages[{index}]", reader, newest=index == max(users, default=-1))
        entries += [PlacedEntry(entry, ItemPlace("messages", index, "message")) for entry in found]
    return prompt_messages(entries, reader, name="messages", note=format_note(_format(chat), toolbox))


def _format(chat: ChatRequest) -> Format:
    chat_format = chat.response_format
    if isinstance(chat_format, ChatSchemaFormat):
        schema = chat_format.json_schema
        return SchemaFormat(schema.name, schema.schema, schema.description, schema.strict)
    if isinstance(chat_format, ChatJsonFormat):
        return JsonFormat() if is_null(chat_format.schema) else SchemaFormat("response", chat_format.schema)
    return chat_format or PLAIN


def _entries(message: ChatMessage, place: str, reader: InputReader, newest: bool) -> Iterator[PromptEntry]:
    text = reader.content.text(message.content, f"{place}.content", newest)
    if message.role in ("tool", "function"):
        yield Output(id_text(message.tool_call_id), text)
        return
    if message.role not in ROLES:
        raise InvalidRequest(
            f"`{place}.role` is {message.role!r}; it must be one of {', '.join(ROLES)}, tool.", param=f"{place}.role"
        )
    if reasoning := replayed_text(message.reasoning_content) or replayed_text(message.reasoning):
        yield ReasoningEntry(reasoning)
    calls = list(_calls(message))
    text = text or message.refusal or ""
    if text or not calls:
        yield Message(ROLES[message.role], text)
    yield from calls


def _calls(message: ChatMessage) -> Iterator[Call]:
    if message.function_call is not None:
        yield Call("", message.function_call.name, as_text(message.function_call.arguments))
    for call in message.tool_calls or ():
        if call.function is not None:
            yield Call(id_text(call.id), call.function.name, as_text(call.function.arguments))
        elif call.custom is not None:
            yield Call(id_text(call.id), call.custom.name, as_text(call.custom.input))
