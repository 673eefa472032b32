"""Calls of built-in tools that the client executes, calls of MCP tools, and the events of both. Data only.

Source: openai-python 3.57, `types/responses/response_function_shell_tool_call.py` and its neighbours.
"""

from typing import Literal, TypeAlias

from msgspec import Raw, Struct

CallStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class ShellAction(Struct, frozen=True, omit_defaults=True):
    commands: tuple[str, ...]
    max_output_length: int | None = None
    timeout_ms: int | None = None


class LocalEnvironment(Struct, frozen=True, tag="local"):
    """The client's own machine."""


class ShellCall(Struct, frozen=True, tag="shell_call"):
    id: str
    call_id: str
    action: ShellAction
    status: CallStatus
    environment: LocalEnvironment = LocalEnvironment()


class LocalShellAction(Struct, frozen=True, tag="exec"):
    command: tuple[str, ...]
    env: dict[str, str] = {}
    timeout_ms: int | None = None
    user: str | None = None
    working_directory: str | None = None


class LocalShellCall(Struct, frozen=True, tag="local_shell_call"):
    id: str
    call_id: str
    action: LocalShellAction
    status: CallStatus


class PatchOperation(Struct, frozen=True, omit_defaults=True):
    type: Literal["create_file", "update_file", "delete_file"]
    path: str
    diff: str | None = None
    """None if the file is deleted."""


class ApplyPatchCall(Struct, frozen=True, tag="apply_patch_call"):
    id: str
    call_id: str
    operation: PatchOperation
    status: Literal["in_progress", "completed"]
    """A call that the token limit cut stays in progress: the specification has no status for it."""


class ToolSearchCall(Struct, frozen=True, tag="tool_search_call"):
    id: str
    call_id: str
    arguments: Raw
    """A JSON object."""
    status: CallStatus
    execution: Literal["client"] = "client"


class McpListedTool(Struct, frozen=True):
    name: str
    input_schema: Raw
    description: str | None = None
    annotations: Raw | None = None


class McpListTools(Struct, frozen=True, tag="mcp_list_tools"):
    id: str
    server_label: str
    tools: tuple[McpListedTool, ...]
    error: str | None = None
    """Why the server has no list."""


class McpProtocolError(Struct, frozen=True, tag="mcp_protocol_error"):
    code: int
    message: str


class McpExecutionError(Struct, frozen=True, tag="mcp_tool_execution_error"):
    content: tuple[Raw, ...]


class McpHTTPError(Struct, frozen=True, tag="http_error"):
    code: int
    message: str


McpError: TypeAlias = McpProtocolError | McpExecutionError | McpHTTPError


class McpCall(Struct, frozen=True, tag="mcp_call"):
    """Call of a tool of an MCP server, which this server executes."""

    id: str
    server_label: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    output: str | None = None
    error: McpError | None = None
    approval_request_id: str | None = None


class McpApprovalRequest(Struct, frozen=True, tag="mcp_approval_request"):
    """Call that waits for the user's approval, in the next request."""

    id: str
    server_label: str
    name: str
    arguments: str


McpItem: TypeAlias = McpListTools | McpCall | McpApprovalRequest
BuiltinCall: TypeAlias = ShellCall | LocalShellCall | ApplyPatchCall | ToolSearchCall


class ShellCommandAdded(Struct, frozen=True, tag="response.shell_call_command.added"):
    sequence_number: int
    output_index: int
    command_index: int
    command: str


class ShellCommandDelta(Struct, frozen=True, tag="response.shell_call_command.delta"):
    sequence_number: int
    output_index: int
    command_index: int
    delta: str


class ShellCommandDone(Struct, frozen=True, tag="response.shell_call_command.done"):
    sequence_number: int
    output_index: int
    command_index: int
    command: str


class _McpItemEvent(Struct, frozen=True):
    sequence_number: int
    output_index: int
    item_id: str


class McpListToolsInProgress(_McpItemEvent, frozen=True, tag="response.mcp_list_tools.in_progress"):
    pass


class McpListToolsCompleted(_McpItemEvent, frozen=True, tag="response.mcp_list_tools.completed"):
    pass


class McpListToolsFailed(_McpItemEvent, frozen=True, tag="response.mcp_list_tools.failed"):
    pass


class McpCallInProgress(_McpItemEvent, frozen=True, tag="response.mcp_call.in_progress"):
    pass


class McpCallArgumentsDelta(_McpItemEvent, frozen=True, tag="response.mcp_call_arguments.delta"):
    delta: str


class McpCallArgumentsDone(_McpItemEvent, frozen=True, tag="response.mcp_call_arguments.done"):
    arguments: str


class McpCallCompleted(_McpItemEvent, frozen=True, tag="response.mcp_call.completed"):
    pass


class McpCallFailed(_McpItemEvent, frozen=True, tag="response.mcp_call.failed"):
    pass


McpEvent: TypeAlias = (
    McpListToolsInProgress
    | McpListToolsCompleted
    | McpListToolsFailed
    | McpCallInProgress
    | McpCallArgumentsDelta
    | McpCallArgumentsDone
    | McpCallCompleted
    | McpCallFailed
)
BuiltinCallEvent: TypeAlias = ShellCommandAdded | ShellCommandDelta | ShellCommandDone
