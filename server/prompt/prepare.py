"""Prepare a decoded request and its past for the model. Pure."""

from collections.abc import Callable, Sequence
from typing import Protocol, Self

from msgspec import Raw, Struct
from msgspec.structs import replace

from engine.chat_template import Message
from server.prompt import conversation, options
from server.prompt.compaction import is_triggered
from server.prompt.items import ItemText
from server.protocol.builtin_calls import McpCall
from server.protocol.request import NULL, Request
from server.protocol.response import Response
from server.stream import McpCallFinished, McpToolsListed, StreamInput
from server.tools import NO_TOOLS, Toolbox


class Past(Struct, frozen=True):
    """The conversation before a request."""

    items: Sequence[Raw] = ()
    """Oldest first."""
    root: str | None = None
    """Id that all turns of the conversation share; None for its first turn."""


class McpServers(Protocol):
    """MCP servers of a request (`server.mcp`)."""

    @property
    def tools(self) -> Sequence[Raw]:
        """Tools of the request, with the functions of each server in its entry."""

    @property
    def unlisted(self) -> Sequence[str]:
        """Labels of the servers whose tools are not known, in order. Until then, one tool stands for all of each."""

    @property
    def approved(self) -> tuple[tuple[StreamInput, ...], ...]:
        """Inputs that begin each call that the user has approved, up to its execution, in order."""

    def shown(self, raws: Sequence[Raw]) -> list[Raw]:
        """Return the items for the prompt."""

    async def list_tools(self) -> McpToolsListed:
        """Return the tools of the first server that is not listed. Raises ConnectorFailed."""
        ...

    def with_list(self, listed: McpToolsListed) -> Self:
        """Return the servers with a list of tools."""

    async def call(self, call: McpCall, response: Response) -> McpCallFinished:
        """Execute a call of a response; an approved one only if that has not been done."""

    def with_result(self, call: McpCall, result: McpCallFinished) -> Self:
        """Return the servers after the first approved call, which has returned."""


class PreparedRequest(Struct, frozen=True, kw_only=True):
    """Request with everything that the model and the response need."""

    request: Request
    """Request with its references replaced by the items that they name."""
    messages: Sequence[Message] = ()
    """Conversation up to the answer."""
    toolbox: Toolbox = NO_TOOLS
    root: str | None = None
    """Id that all turns of the conversation share; None for its first turn."""
    skipped: tuple[str, ...] = ()
    """Fields and items that have no effect."""
    field: str = "input"
    """Field that contains the conversation, for errors."""
    schema_field: str = "text.format.schema"
    """Field that contains the schema of the answer, for errors."""
    open_ended: bool = False
    """True if the prompt ends where any message of the user may follow."""
    items: Sequence[ItemText] = ()
    """Texts of the prompt with their places in the request."""
    plain_text: bool = False
    """True if the answer is plain text, without reasoning or tool calls."""
    compacts: bool = False
    """True if the answer is a summary of the conversation."""
    mcp: McpServers | None = None
    """MCP servers of the request."""
    continued: Callable[[McpServers, Sequence[Raw]], "PreparedRequest"] | None = None
    """Function that returns the request with its MCP servers at present, and further items after its input; None
    without MCP servers."""

    @property
    def lists_tools(self) -> bool:
        """True if the response begins with lists of MCP tools."""
        return self.mcp is not None and bool(self.mcp.unlisted)


def prepare(request: Request, past: Past, skipped: Sequence[str] = ()) -> PreparedRequest:
    """Return the prepared request. `skipped`: fields of the request that the server does not know.

    Raises InvalidRequest for items and tools that cannot be read.
    """
    compacts = is_triggered(request)
    if compacts:
        request = replace(request, text=None, tool_choice=NULL)
    toolbox = options.toolbox(request, past.items)
    prompt = conversation.messages_of(request, past.items, toolbox)
    all_skipped = (*skipped, *options.unused_options(request), *prompt.skipped, *toolbox.skipped)
    return PreparedRequest(
        request=request,
        messages=prompt.messages,
        toolbox=toolbox,
        root=past.root,
        open_ended=prompt.open_ended,
        items=prompt.items,
        skipped=tuple(dict.fromkeys(all_skipped)),
        compacts=compacts,
    )
