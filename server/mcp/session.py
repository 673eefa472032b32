"""MCP servers of one request: lists of their tools, the user's answers to approval requests, and calls."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from server.mcp.access import McpAccess, McpTool
from server.mcp.approved_calls import ApprovedCalls
from server.mcp.client import McpClient, McpFailure
from server.mcp.conversation_items import (
    ApprovalResponseItem,
    ListItem,
    MadeCallItem,
    answered_calls,
    by_type,
    call_item,
    decoded,
    listed_tools,
)
from server.protocol.builtin_calls import McpCall, McpListedTool
from server.protocol.decoding import part
from server.protocol.errors import ConnectorFailed, InvalidRequest
from server.protocol.request import TypeAndRole
from server.protocol.response import Response
from server.stream import McpCallFinished, McpToolsListed, StreamInput


class McpSession(Struct, frozen=True):
    """MCP servers of a request, with their tools and the calls that the user has answered for."""

    approvals: ApprovedCalls
    clients: Mapping[str, McpClient]
    """By the label of the server."""
    raw_tools: Sequence[Raw]
    """Tools of the request."""
    servers: Mapping[int, McpTool]
    """Tools of the type `mcp`, by their index."""
    listed: Mapping[str, Sequence[McpListedTool]]
    """Tools of each server that has a list, by its label."""
    approved: tuple[tuple[StreamInput, ...], ...] = ()
    """Inputs that begin each approved call, up to its execution, in order."""
    answered: Mapping[str, Raw] = {}
    """Calls that were approved or denied, as items for the prompt, by the id of the approval request."""

    @property
    def tools(self) -> list[Raw]:
        """Tools of the request, with the functions of each server in its entry (`server.tools`)."""
        tools = list(self.raw_tools)
        for index, tool in self.servers.items():
            tools[index] = _with_functions(tool, self.listed.get(tool.server_label))
        return tools

    @property
    def unlisted(self) -> list[str]:
        """Labels of the servers without a list, in order."""
        return [tool.server_label for tool in self.servers.values() if tool.server_label not in self.listed]

    async def list_tools(self) -> McpToolsListed:
        """Return the tools of the first server without a list. Raises ConnectorFailed."""
        index, label = next(
            (index, tool.server_label) for index, tool in self.servers.items() if tool.server_label not in self.listed
        )
        try:
            return McpToolsListed(label, await self.clients[label].tools())
        except McpFailure as failure:
            message = f"Error retrieving tool list from MCP server: {label!r}. {failure}"
            raise ConnectorFailed(message, param=f"tools[{index}]") from failure

    def with_list(self, listed: McpToolsListed) -> "McpSession":
        return replace(self, listed={**self.listed, listed.server_label: listed.tools})

    async def with_all_lists(self) -> "McpSession":
        """Return the session with all lists. Raises ConnectorFailed."""
        session = self
        while session.unlisted:
            session = session.with_list(await session.list_tools())
        return session

    def without_lists(self) -> "McpSession":
        """Return the session of a request whose answer calls no tool: servers without a list have no tools."""
        return replace(self, listed={**dict.fromkeys(self.unlisted, ()), **self.listed}, approved=())

    def shown(self, raws: Sequence[Raw]) -> list[Raw]:
        """Return the items for the prompt: a call in the place of its approval, no list of functions that it has."""
        return [shown for raw in raws if (shown := self._shown(raw)) is not None]

    def _shown(self, raw: Raw) -> Raw | None:
        kind = part(raw, TypeAndRole, "input").type
        if kind == "mcp_list_tools":
            item = decoded(raw, ListItem)
            return None if item is not None and item.server_label in self.clients else raw
        if kind == "mcp_approval_response":
            answer = decoded(raw, ApprovalResponseItem)
            return None if answer is None else self.answered.get(answer.approval_request_id)
        if kind == "mcp_call":
            made = decoded(raw, MadeCallItem)
            return None if made is not None and made.approval_request_id in self.answered else raw
        return None if kind == "mcp_approval_request" else raw

    async def call(self, call: McpCall, response: Response) -> McpCallFinished:
        """Execute a call of a response; an approved one only if that has not been done."""
        execute = partial(self.clients[call.server_label].call, call.name, call.arguments)
        return await (execute() if call.approval_request_id is None else self.approvals.make(call, response, execute))

    def with_result(self, call: McpCall, result: McpCallFinished) -> "McpSession":
        """Return the session after the first approved call, which has returned."""
        id_ = call.approval_request_id
        assert id_ is not None, "only approved calls are answered for"
        item = call_item(id_, call.server_label, call.name, call.arguments, result)
        return replace(self, approved=self.approved[1:], answered={**self.answered, id_: item})


class McpSessions:
    """Maker of the sessions of requests."""

    def __init__(self, access: McpAccess, approvals: ApprovedCalls) -> None:
        self._access = access
        self._approvals = approvals

    def open(self, tools: Sequence[Raw], past: Sequence[Raw], items: Sequence[Raw]) -> McpSession | None:
        """Return the session of a request; None if it has no MCP tool. Raises InvalidRequest.

        `past`: items of earlier turns. `items`: input of the request.
        """
        servers = dict(_mcp_tools(tools))
        if not servers:
            return None
        clients = _clients(self._access, servers)
        earlier = by_type([*past, *items])
        approved, answered = answered_calls(clients, earlier, items)
        return McpSession(self._approvals, clients, tools, servers, listed_tools(earlier), approved, answered)


def _clients(access: McpAccess, tools: Mapping[int, McpTool]) -> dict[str, McpClient]:
    clients: dict[str, McpClient] = {}
    for index, tool in tools.items():
        place = f"tools[{index}]"
        if tool.server_label in clients:
            message = f"`{place}.server_label`: an earlier tool has the label {tool.server_label!r} too; rename one."
            raise InvalidRequest(message, param=f"{place}.server_label")
        clients[tool.server_label] = access.client(tool, place)
    return clients


def _mcp_tools(tools: Sequence[Raw]) -> Iterator[tuple[int, McpTool]]:
    for index, raw in enumerate(tools):
        place = f"tools[{index}]"
        if part(raw, TypeAndRole, place).type == "mcp":
            yield index, part(raw, McpTool, place)


def _with_functions(tool: McpTool, listed: Sequence[McpListedTool] | None) -> Raw:
    """Return the tool as `server.tools` reads it: without secrets, with the functions that the model may call."""
    functions = [
        {
            "name": each.name,
            "description": each.description,
            "parameters": each.input_schema,
            "approval": tool.needs_approval(each),
        }
        for each in listed or ()
        if tool.allows(each)
    ]
    fields = {
        "type": "mcp",
        "server_label": tool.server_label,
        "server_url": tool.server_url,
        "connector_id": tool.connector_id,
        "server_description": tool.server_description,
        "allowed_tools": tool.allowed_tools,
        "require_approval": tool.require_approval,
        "defer_loading": tool.defer_loading,
        "allowed_callers": tool.allowed_callers,
        "functions": functions,
        "listed": listed is not None,
    }
    return Raw(msgspec.json.encode(fields))
