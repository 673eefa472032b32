"""Inputs of the stream's state machine. Equal responses and inputs produce equal bytes.

The store saves the inputs of a stream, so tags are permanent; a new field goes to the end and has a default.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

from server.protocol.builtin_calls import McpError, McpListedTool
from server.protocol.errors import ApiError
from server.protocol.events import ErrorPayload, PromptProgress
from server.protocol.output_items import Logprob
from server.protocol.prompt_cache import CacheComparison, Diagnostics
from server.protocol.response import Usage

BuiltinName: TypeAlias = Literal["shell", "local_shell", "apply_patch", "tool_search"]
"""Types of built-in tools that the client executes."""
McpName: TypeAlias = Literal["mcp", "mcp_approval"]
"""Kinds of calls of MCP tools: executed by this server, at once or after the user's approval."""


class Created(Struct, frozen=True, array_like=True, tag="c"):
    """First input of every stream."""


class Queued(Struct, frozen=True, array_like=True, tag="q"):
    """The response waits for a slot."""


class InProgress(Struct, frozen=True, array_like=True, tag="r"):
    """The response is in progress. Repeated before the first item as a heartbeat."""

    progress: PromptProgress | None = None


class NotStored(Struct, frozen=True, array_like=True, tag="u"):
    """The store failed: neither the response nor its items in its conversation are stored."""


class TextAdded(Struct, frozen=True, array_like=True, tag="t"):
    text: str
    logprobs: tuple[Logprob, ...] = ()
    """Logprobs of the tokens whose text begins here, if the request asks for them."""


class ReasoningAdded(Struct, frozen=True, array_like=True, tag="n"):
    text: str


class ReasoningSealed(Struct, frozen=True, array_like=True, tag="s"):
    """The open reasoning item's text is complete; `content` is its `encrypted_content`."""

    content: str


class SummaryAdded(Struct, frozen=True, array_like=True, tag="m"):
    """Further text of a summary, which a `compaction` item gets."""

    text: str


class ToolCallStarted(Struct, frozen=True, array_like=True, tag="b"):
    """A tool call begins."""

    name: str
    namespace: str | None = None
    custom: bool = False
    """True if the tool takes one text, which its arguments contain as `input`."""
    streams: bool = False
    """True if the text streams. Streams that older versions stored, without this field, send it at the end."""
    builtin: BuiltinName | McpName | None = None
    """Type of the tool if it is a built-in one. The namespace of an MCP tool is the label of its server."""
    approval_request_id: str | None = None
    """Request that the user approved before this call of an MCP tool."""


class ArgumentsAdded(Struct, frozen=True, array_like=True, tag="a"):
    """Further arguments of the open call."""

    text: str


class ToolCallEnded(Struct, frozen=True, array_like=True, tag="d"):
    """The call is complete."""


class McpListStarted(Struct, frozen=True, array_like=True, tag="k"):
    """An MCP server is asked for its tools."""

    server_label: str


class McpToolsListed(Struct, frozen=True, array_like=True, tag="l"):
    """An MCP server has listed its tools. Streams that older versions stored have no `McpListStarted` before it."""

    server_label: str
    tools: tuple[McpListedTool, ...]


class McpCallFinished(Struct, frozen=True, array_like=True, tag="o"):
    """The call of an MCP tool, whose arguments are complete, has returned."""

    output: str | None
    error: McpError | None = None


class PromptMade(Struct, frozen=True, array_like=True, tag="p"):
    """The prompt, which waited for lists of tools, is known: these are the facts that `response.created` lacked."""

    unenforced: tuple[str, ...] = ()
    """Parts of schemas that are not enforced."""
    cache: CacheComparison | None = None
    diagnostics: Diagnostics | None = None


class End(Struct, frozen=True, array_like=True, tag="e"):
    """The response ends: completed, incomplete for the reason `incomplete`, or at a stop string."""

    now: int
    """Unix time in seconds."""
    usage: Usage
    incomplete: str | None = None
    stop: str | None = None
    """Stop string that ended the output."""


class Cancelled(Struct, frozen=True, array_like=True, tag="x"):
    """The client or the server cancelled the response."""

    usage: Usage | None = None
    """None if the engine had not started."""


class Failure(Struct, frozen=True, array_like=True, tag="f"):
    """The response ends with an error."""

    error: ErrorPayload
    usage: Usage | None = None
    """None if the engine had not started, and in streams that older versions stored."""
    fault: str | None = None
    """Code of this server that is more precise than the error's."""


ResponseInput: TypeAlias = Created | Queued | InProgress | NotStored | PromptMade | End | Cancelled | Failure
"""Inputs that concern the whole response."""
ItemInput: TypeAlias = (
    TextAdded
    | ReasoningAdded
    | ReasoningSealed
    | SummaryAdded
    | ToolCallStarted
    | ArgumentsAdded
    | ToolCallEnded
    | McpListStarted
    | McpToolsListed
    | McpCallFinished
)
"""Inputs that open, extend or close an item."""
StreamInput: TypeAlias = ResponseInput | ItemInput


def failure(error: ApiError, usage: Usage | None = None) -> Failure:
    return Failure(ErrorPayload(error.type, error.event_code, error.message, error.param), usage, error.fault)
