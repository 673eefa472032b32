"""Write functions, calls and values for templates. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from engine.chat_template.message import Call, Message, Tool

Turn: TypeAlias = dict[str, Any]
"""A message as templates see it, with JSON values."""
Clean: TypeAlias = Callable[[str], str]
"""Applied to each text of people or models before the template sees it."""
WriteCalls: TypeAlias = Callable[[Sequence[Call], Clean], str]
"""Writes calls with the family's markers; names and values are cleaned."""

MAX_NESTING = 32
"""Maximum nesting of arguments that are passed as objects; deeper arguments are passed as text."""


def clean_variables(variables: Mapping[str, Any], clean: Clean = str) -> dict[str, Any]:
    """Return a client's own variables, cleaned. Raises RecursionError if one is nested too deeply."""
    return {name: _cleaned(value, clean, MAX_SCHEMA_NESTING) for name, value in variables.items()}


def render_tools(tools: Sequence[Tool], clean: Clean = str) -> list[Turn]:
    """Return functions in the format of templates, cleaned. Raises RecursionError if a schema is nested too deeply."""
    return [
        {
            "type": "function",
            "function": {
                "name": clean(tool.name),
                "description": clean(tool.description),
                "parameters": _cleaned(msgspec.json.decode(tool.parameters), clean, MAX_SCHEMA_NESTING),
            },
        }
        for tool in tools
    ]


def tool_variables(tools: Sequence[Tool], clean: Clean = str) -> dict[str, Any]:
    """Return the template variables of functions: the usual one, and their JSON for Firefunction."""
    rendered = render_tools(tools, clean)
    return {"tools": rendered, "functions": json.dumps([each["function"] for each in rendered], indent=4)}


def with_tools(
    messages: Sequence[Message], tools: Sequence[Tool], write_calls: WriteCalls | None = None
) -> list[Message]:
    """Add the functions to the first system message, for templates that do not list them.

    `write_calls` writes the family's calls; without it, the message asks for calls in the generic format.
    """
    example = _GENERIC_EXAMPLE if write_calls is None else write_calls(_EXAMPLE, str)
    prompt = TOOLS_PROMPT.replace(_GENERIC_EXAMPLE, example)
    listed = prompt + "\n".join(msgspec.json.encode(tool).decode() for tool in render_tools(tools))
    if messages and messages[0].role == "system":
        return [replace(messages[0], content=joined(messages[0].content, listed), example=example), *messages[1:]]
    return [Message("system", listed, example=example), *messages]


def cleaned_content(message: Message, clean: Clean) -> str:
    """Return the content, cleaned but for the example of a call. The functions after it have no such text, since JSON
    escapes its quotation marks."""
    if not message.example:
        return clean(message.content)
    before, example, after = message.content.rpartition(message.example)
    return f"{clean(before)}{example}{clean(after)}"


_GENERIC_EXAMPLE = (
    '<tool_call>\n{"name": "the function\'s name", "arguments": {"its parameter": "value"}}\n</tool_call>'
)
_EXAMPLE = (Call("0", "name_of_the_function", '{"name_of_its_parameter": "value"}'),)
"""Call whose spelling shows the format of a family."""
TOOLS_PROMPT = (
    f"You can call functions. To call one, write nothing but this:\n{_GENERIC_EXAMPLE}\n"
    "What it gives is told to you in the next message. Call one only if it helps; otherwise answer in plain words.\n"
    "These are the functions, each with the JSON schema of its parameters:\n"
)
MAX_SCHEMA_NESTING = 64
"""Maximum nesting of a function's parameters."""


def generic_call(call: Call) -> str:
    """Return a call in the format of `TOOLS_PROMPT`, since a model imitates earlier calls."""
    arguments = call.arguments or "{}"
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        arguments = msgspec.json.encode({"input": arguments}).decode()
    return f'<tool_call>\n{{"name": {msgspec.json.encode(call.name).decode()}, "arguments": {arguments}}}\n</tool_call>'


def as_object(arguments: str, clean: Clean) -> dict[str, Any]:
    """Return a call's arguments. Anything but an object becomes the argument `input`, as for text tools."""
    try:
        decoded = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        return {clean(key): _cleaned(value, clean, MAX_NESTING - 1) for key, value in decoded.items()}
    except (msgspec.DecodeError, RecursionError):
        return {"input": clean(arguments)}


def _cleaned(value: Any, clean: Clean, depth: int) -> Any:
    """Return a value with all its texts and keys cleaned. Raises RecursionError."""
    if depth == 0:
        raise RecursionError
    match value:
        case str():
            return clean(value)
        case list():
            return [_cleaned(inner, clean, depth - 1) for inner in value]
        case dict():
            return {clean(key): _cleaned(inner, clean, depth - 1) for key, inner in value.items()}
    return value


def joined(*texts: str) -> str:
    """Return the texts that are not empty, with a blank line between them."""
    return "\n\n".join(filter(None, texts))
