"""Entries of `tools` as clients write them: functions, custom tools, namespaces, MCP servers. Pure."""

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Raw, Struct

from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.fields import is_null
from server.protocol.request import NULL
from server.tools.tool_spec import GrammarInput, Input, PlainInput

NO_PARAMETERS = '{"type":"object","properties":{}}'
TEXT_INPUT = '{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}'

ToolName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]


class FunctionParam(Struct, frozen=True):
    """Tool of the type `function`."""

    name: ToolName
    description: str | None = None
    parameters: Raw = NULL
    strict: bool | None = None


class CustomParam(Struct, frozen=True):
    """Tool of the type `custom`: its input is a text."""

    name: ToolName
    description: str | None = None
    format: Raw = NULL


class NamespaceParam(Struct, frozen=True):
    """Tool of the type `namespace`: several tools under one name (Codex, MCP)."""

    name: ToolName
    description: str | None = None
    tools: list[Raw] = []


class McpFunction(Struct, frozen=True):
    """Tool of an MCP server."""

    name: ToolName
    description: str | None = None
    parameters: Raw = NULL
    approval: bool = True


class McpParam(Struct, frozen=True):
    """Tool of the type `mcp`, as `server.mcp` has completed it."""

    server_label: str
    functions: list[McpFunction] | None = None
    listed: bool = True
    """False if its tools are not known yet."""
    server_url: str | None = None
    connector_id: str | None = None
    server_description: str | None = None
    allowed_tools: Raw = NULL
    require_approval: Raw = NULL


_INPUT: Any = Input


class _Object(Struct):
    properties: dict[str, Raw] | None = None


def read_schema(raw: Raw, place: str) -> str:
    """Return the text of a function's schema; that of no parameters for null. Raises InvalidRequest."""
    if is_null(raw):
        return NO_PARAMETERS
    part(raw, _Object, place)
    part(raw, dict[str, Any], place)  # refuses numbers out of range
    return bytes(raw).decode()


def read_format(raw: Raw, place: str) -> Input:
    """Return the input format of a custom tool; that of any text for null. Raises InvalidRequest."""
    if is_null(raw):
        return PlainInput()
    input_: Input = part(raw, _INPUT, place)
    if isinstance(input_, GrammarInput) and input_.syntax not in ("lark", "regex"):
        message = f"`{place}.syntax` is {input_.syntax!r}; it must be lark or regex."
        raise InvalidRequest(message, param=f"{place}.syntax")
    return input_


def format_note(input_: Input) -> str:
    """Return the sentence that describes a grammar to the model; empty if there is none."""
    if isinstance(input_, PlainInput) or not input_.definition:
        return ""
    return f"The input must be of this form ({input_.syntax}):\n{input_.definition}"
