"""Tools and tool choice in the echo of a response. Data only."""

from typing import ClassVar, Literal, TypeAlias

from msgspec import UNSET, Raw, Struct, UnsetType

from server.protocol.builtin_calls import LocalEnvironment
from server.protocol.request import NULL_DEFAULT


class FunctionTool(Struct, frozen=True, tag="function"):
    name: str
    description: str | None = None
    parameters: Raw = NULL_DEFAULT
    strict: bool | None = None


class CustomTool(Struct, frozen=True, tag="custom", omit_defaults=True):
    name: str
    description: str | None = None
    format: Raw | UnsetType = UNSET


class NamespaceTool(Struct, frozen=True, tag="namespace"):
    name: str
    description: str
    tools: tuple[FunctionTool | CustomTool, ...]


class ShellTool(Struct, frozen=True, tag="shell"):
    """Shell that the client executes, on its own machine."""

    environment: LocalEnvironment = LocalEnvironment()
    name: ClassVar[str] = "shell"


class LocalShellTool(Struct, frozen=True, tag="local_shell"):
    name: ClassVar[str] = "local_shell"


class ApplyPatchTool(Struct, frozen=True, tag="apply_patch"):
    name: ClassVar[str] = "apply_patch"


class McpServerTool(Struct, frozen=True, tag="mcp", omit_defaults=True):
    """Tools of an MCP server, which this server calls. Its headers are secrets, so there is no echo of them."""

    server_label: str
    server_url: str | None = None
    connector_id: str | None = None
    server_description: str | None = None
    allowed_tools: Raw | UnsetType = UNSET
    require_approval: Raw | UnsetType = UNSET
    name: ClassVar[str] = ""


class ToolSearchTool(Struct, frozen=True, tag="tool_search"):
    """Search for further tools that the client executes."""

    description: str | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET
    execution: Literal["client"] = "client"
    name: ClassVar[str] = "tool_search"


ToolEcho: TypeAlias = (
    FunctionTool
    | CustomTool
    | NamespaceTool
    | ShellTool
    | LocalShellTool
    | ApplyPatchTool
    | ToolSearchTool
    | McpServerTool
)


class NamedChoice(Struct, frozen=True, tag="function"):
    name: str
    namespace: str | UnsetType = UNSET
    """Namespace if the request names one."""


class CustomChoice(Struct, frozen=True, tag="custom"):
    name: str
    namespace: str | UnsetType = UNSET


class McpChoice(Struct, frozen=True, tag="mcp"):
    """Choice of an MCP server's tools, or of one of them."""

    server_label: str
    name: str | None = None


class AllowedTools(Struct, frozen=True, tag="allowed_tools"):
    mode: Literal["auto", "required"]
    tools: tuple[Raw, ...]


class ShellChoice(Struct, frozen=True, tag="shell"):
    """Choice of this built-in tool by its type."""


class ApplyPatchChoice(Struct, frozen=True, tag="apply_patch"):
    """Choice of this built-in tool by its type."""


ToolChoice: TypeAlias = (
    Literal["auto", "none", "required"]
    | NamedChoice
    | CustomChoice
    | ShellChoice
    | ApplyPatchChoice
    | McpChoice
    | AllowedTools
)
BUILTIN_CHOICES: dict[str | None, ToolChoice] = {
    "shell": ShellChoice(),
    "apply_patch": ApplyPatchChoice(),
    "local_shell": AllowedTools("required", (Raw(b'{"type":"local_shell"}'),)),
    "tool_search": AllowedTools("required", (Raw(b'{"type":"tool_search"}'),)),
}
"""Type of a built-in tool -> the choice of it. The specification has no choice of the last two by their types alone."""
