"""Items of MCP servers in a conversation: lists, approval requests, the user's answers and calls. Pure."""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from server.protocol.builtin_calls import McpListedTool
from server.protocol.decoding import part
from server.protocol.errors import InvalidRequest
from server.protocol.request import TypeAndRole
from server.stream import ArgumentsAdded, McpCallFinished, StreamInput, ToolCallEnded, ToolCallStarted

DENIED = "The user did not approve this call."
"""Output of a call for the model."""
TOOL_NAME = re.compile(r"[A-Za-z0-9_.\-/]{1,128}")
"""Names that a tool may have (Model Context Protocol, "Tool Names")."""

T = TypeVar("T")


class ListItem(Struct, frozen=True):
    """Item `mcp_list_tools` of the conversation."""

    server_label: str
    tools: list[McpListedTool]
    error: str | None = None

    @property
    def usable(self) -> bool:
        """True if it is what a server may list. Clients may send anything as their history."""
        schemas = all(bytes(tool.input_schema).lstrip().startswith(b"{") for tool in self.tools)
        return self.error is None and schemas and names_fault(self.tools) is None


class ApprovalRequestItem(Struct, frozen=True):
    id: str
    server_label: str
    name: str
    arguments: str = ""


class ApprovalResponseItem(Struct, frozen=True):
    approval_request_id: str
    approve: bool
    reason: str | None = None


class MadeCallItem(Struct, frozen=True):
    """Item `mcp_call` of the conversation."""

    approval_request_id: str | None = None


def names_fault(tools: Sequence[McpListedTool]) -> str | None:
    """Return the tool that the model cannot call by its name; None if there is none."""
    names: set[str] = set()
    for tool in tools:
        if TOOL_NAME.fullmatch(tool.name) is None:
            return f"a tool with the invalid name {tool.name[:80]!r}"
        if tool.name in names:
            return f"two tools with the name {tool.name!r}"
        names.add(tool.name)
    return None


def listed_tools(earlier: Mapping[str, Sequence[Raw]]) -> dict[str, Sequence[McpListedTool]]:
    """Return the tools that the conversation has, by the label of their server."""
    lists = items_of(earlier, "mcp_list_tools", ListItem)
    return {item.server_label: item.tools for item in lists if item.usable}


def answered_calls(
    labels: Container[str], earlier: Mapping[str, Sequence[Raw]], items: Sequence[Raw]
) -> tuple[tuple[tuple[StreamInput, ...], ...], dict[str, Raw]]:
    """Return the inputs that begin each approved call, and all answered calls for the prompt, as yet without output.

    `labels`: of the servers. `earlier`: all items of the conversation, by their type. `items`: input of the request.

    A client that sends the whole conversation each time sends old approvals again: their calls are in it.
    """
    answerable = _answerable(labels, earlier)
    made = {item.approval_request_id for item in items_of(earlier, "mcp_call", MadeCallItem)}
    _check_answers(items, {*made, *answerable})
    approved: list[tuple[StreamInput, ...]] = []
    calls: dict[str, Raw] = {}
    for answer in items_of(earlier, "mcp_approval_response", ApprovalResponseItem):
        id_ = answer.approval_request_id
        request = answerable.get(id_)
        if id_ in made or id_ in calls or request is None:
            continue
        result = McpCallFinished(None if answer.approve else " ".join(filter(None, [DENIED, answer.reason])))
        if answer.approve:
            started = ToolCallStarted(request.name, request.server_label, builtin="mcp", approval_request_id=id_)
            approved.append((started, ArgumentsAdded(request.arguments), ToolCallEnded()))
        calls[id_] = call_item(id_, request.server_label, request.name, request.arguments, result)
    return tuple(approved), calls


def _answerable(labels: Container[str], earlier: Mapping[str, Sequence[Raw]]) -> dict[str, ApprovalRequestItem]:
    """Return the approval requests of the MCP servers in `tools`, by their ids."""
    asked = {item.id: item for item in items_of(earlier, "mcp_approval_request", ApprovalRequestItem)}
    return {id_: request for id_, request in asked.items() if request.server_label in labels}


def _check_answers(items: Sequence[Raw], known: Container[str | None]) -> None:
    """Raise InvalidRequest for an answer to an approval request that is not known."""
    for answer in _new_answers(items):
        if answer.approval_request_id not in known:
            message = f"No approval request {answer.approval_request_id!r} of an MCP server in `tools` was found."
            raise InvalidRequest(message, param="input")


def _new_answers(items: Sequence[Raw]) -> Iterator[ApprovalResponseItem]:
    for index, raw in enumerate(items):
        if part(raw, TypeAndRole, f"input[{index}]").type == "mcp_approval_response":
            yield part(raw, ApprovalResponseItem, f"input[{index}]")


def call_item(id_: str, label: str, name: str, arguments: str, result: McpCallFinished) -> Raw:
    """Return a call with its output, as an item for the prompt."""
    fields: dict[str, Any] = {"type": "mcp_call", "id": id_, "server_label": label, "name": name}
    fields |= {"arguments": arguments, "output": result.output, "error": result.error}
    return Raw(msgspec.json.encode(fields))


def by_type(raws: Sequence[Raw]) -> dict[str, list[Raw]]:
    """Return the items by their type."""
    found: dict[str, list[Raw]] = {}
    for raw in raws:
        found.setdefault(part(raw, TypeAndRole, "input").type or "", []).append(raw)
    return found


def items_of(items: Mapping[str, Sequence[Raw]], kind: str, struct: type[T]) -> Iterator[T]:
    """Yield the items of a type that can be read."""
    for raw in items.get(kind, ()):
        if (item := decoded(raw, struct)) is not None:
            yield item


def decoded(raw: Raw, struct: type[T]) -> T | None:
    """Return the item; None if it cannot be read."""
    try:
        return msgspec.json.decode(raw, type=struct)
    except msgspec.ValidationError:
        return None
