"""Built-in tools that the client executes: to the model, functions with our descriptions. Pure.

Their parameters are the object that the call's item has: `action` of the shells, `operation` of a patch, `arguments` of
a tool search (`server.stream.open_builtin_calls`). A replayed call looks as the model wrote it (`server.prompt`).
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from engine.chat_template import Tool
from server.protocol.decoding import part
from server.protocol.fields import is_null
from server.protocol.request import NULL
from server.protocol.tools import ApplyPatchTool, LocalShellTool, ShellTool, ToolSearchTool
from server.stream import BuiltinName

BuiltinEcho: TypeAlias = ShellTool | LocalShellTool | ApplyPatchTool | ToolSearchTool


def _function(name: str, description: str, properties: dict[str, Any], required: Sequence[str]) -> Tool:
    schema = {"type": "object", "properties": properties, "required": required}
    return Tool(name, description, msgspec.json.encode(schema).decode())


_TIMEOUT = {"type": "integer", "description": "Milliseconds after which the command is stopped."}
_LINES = {"type": "array", "items": {"type": "string"}, "minItems": 1}
SHELL = _function(
    "shell",
    "Runs shell commands on the user's machine, one after another, and returns their output.",
    {
        "commands": _LINES,
        "timeout_ms": _TIMEOUT,
        "max_output_length": {"type": "integer", "description": "Characters of output that are returned at most."},
    },
    ["commands"],
)
LOCAL_SHELL = _function(
    "local_shell",
    "Runs one program on the user's machine and returns its output. `command` is the program and its arguments, for "
    'example ["ls", "-l"]; for a line of shell use ["bash", "-lc", "..."].',
    {"command": _LINES, "working_directory": {"type": "string"}, "timeout_ms": _TIMEOUT},
    ["command"],
)
APPLY_PATCH = _function(
    "apply_patch",
    "Creates, updates or deletes one file. `diff` has one line for each line of the file. In a new file, each begins "
    "with `+`. In an update, a line `@@` precedes each place that changes; then lines to add begin with `+`, lines to "
    "remove with `-`, and a few unchanged lines around them with a space. `diff` is empty if the file is deleted.",
    {
        "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
        "path": {"type": "string"},
        "diff": {"type": "string"},
    },
    ["type", "path", "diff"],
)
TOOL_SEARCH = _function(
    "tool_search",
    "Searches for further tools by what they do. The tools that it finds can be called afterwards.",
    {"query": {"type": "string"}},
    ["query"],
)


class _Environment(Struct, frozen=True):
    type: str = "local"


class _ShellParam(Struct, frozen=True):
    environment: _Environment | None = None


class _SearchParam(Struct, frozen=True):
    """Tool search. OpenAI executes it unless `execution` is `client`."""

    execution: str | None = None
    description: str | None = None
    parameters: Raw = NULL


class BuiltinTool(Struct, frozen=True):
    kind: BuiltinName
    tool: Tool
    echo: BuiltinEcho


def builtin_tool(raw: Raw, kind: str | None, place: str) -> BuiltinTool | None:
    """Return a tool that the client executes; None if it is not a built-in tool or OpenAI's servers execute it.

    Raises InvalidRequest.
    """
    match kind:
        case "shell":
            environment = part(raw, _ShellParam, place).environment
            local = environment is None or environment.type == "local"
            return BuiltinTool(kind, SHELL, ShellTool()) if local else None
        case "local_shell":
            return BuiltinTool(kind, LOCAL_SHELL, LocalShellTool())
        case "apply_patch":
            return BuiltinTool(kind, APPLY_PATCH, ApplyPatchTool())
        case "tool_search":
            search = part(raw, _SearchParam, place)
            return _tool_search(search, place) if search.execution == "client" else None
    return None


def _tool_search(search: _SearchParam, place: str) -> BuiltinTool:
    description, schema = search.description or TOOL_SEARCH.description, TOOL_SEARCH.parameters
    parameters: Raw | UnsetType = UNSET
    if not is_null(search.parameters):
        parameters = search.parameters
        part(parameters, dict[str, Any], f"{place}.parameters")
        schema = bytes(parameters).decode()
    echo = ToolSearchTool(search.description or UNSET, parameters)
    return BuiltinTool("tool_search", Tool("tool_search", description, schema), echo)
