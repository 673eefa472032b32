"""Calls of built-in tools that the client executes, and their events. Data only.

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


BuiltinCallEvent: TypeAlias = ShellCommandAdded | ShellCommandDelta | ShellCommandDone
