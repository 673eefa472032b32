"""MCP servers that requests may use: the operator lists them, so that no request reaches another address. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from server.mcp.client import McpClient
from server.protocol.builtin_calls import McpListedTool
from server.protocol.errors import InvalidRequest

RESERVED_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "content-type", "accept", "accept-encoding"}
)
"""Headers that the connection sets itself."""


class ToolFilter(Struct, frozen=True):
    """Tools of a server, by name or by their hint that they only read."""

    tool_names: list[str] | None = None
    read_only: bool | None = None

    def matches(self, tool: McpListedTool) -> bool:
        named = self.tool_names is None or tool.name in self.tool_names
        return named and (self.read_only is None or self.read_only == _only_reads(tool))


class ApprovalFilter(Struct, frozen=True):
    always: ToolFilter | None = None
    never: ToolFilter | None = None


class McpTool(Struct, frozen=True):
    """Tool of the type `mcp` in a request (openai-python 3.57, `types/responses/tool_param.py`)."""

    server_label: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    server_url: str | None = None
    connector_id: str | None = None
    server_description: str | None = None
    authorization: str | None = None
    headers: dict[str, str] | None = None
    allowed_tools: list[str] | ToolFilter | None = None
    require_approval: Literal["always", "never"] | ApprovalFilter | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None

    def allows(self, tool: McpListedTool) -> bool:
        match self.allowed_tools:
            case ToolFilter() as filter_:
                return filter_.matches(tool)
            case list(names):
                return tool.name in names
        return True

    def needs_approval(self, tool: McpListedTool) -> bool:
        """Return whether the user must approve a call. Without `require_approval` all calls need it, as at OpenAI."""
        match self.require_approval:
            case "never":
                return False
            case ApprovalFilter(always, never):
                return not (never and never.matches(tool)) and (always is None or always.matches(tool))
        return True


def _only_reads(tool: McpListedTool) -> bool:
    hints = {} if tool.annotations is None else msgspec.json.decode(tool.annotations)
    return isinstance(hints, dict) and hints.get("readOnlyHint") is True


class McpAccess:
    """The servers that the operator allows."""

    def __init__(self, urls: Sequence[str], connectors: Mapping[str, str], call_seconds: float) -> None:
        """`urls`: servers that requests name by their URL. `connectors`: name -> URL. `call_seconds`: for one call."""
        self.reload(urls, connectors, call_seconds)

    def reload(self, urls: Sequence[str], connectors: Mapping[str, str], call_seconds: float) -> None:
        """Allow other servers from now on."""
        self._urls = {_normal(url) for url in urls}
        self._connectors = dict(connectors)
        self._call_seconds = call_seconds

    def client(self, tool: McpTool, place: str) -> McpClient:
        """Return the connection of a request's tool. Raises InvalidRequest for a server that is not allowed."""
        return McpClient(self._url(tool, place), _headers(tool, place), self._call_seconds)

    def _url(self, tool: McpTool, place: str) -> str:
        if tool.connector_id is not None:
            if tool.connector_id not in self._connectors:
                message = (
                    f"There is no connector {tool.connector_id!r} here; the operator can add it with --mcp-connector."
                )
                raise InvalidRequest(message, param=f"{place}.connector_id")
            return self._connectors[tool.connector_id]
        if tool.server_url is None:
            message = f"`{place}` needs `server_url` or `connector_id`."
            raise InvalidRequest(message, param=f"{place}.server_url")
        if not self._allows(tool.server_url):
            message = (
                f"This server may not call {tool.server_url[:200]!r}; the operator can allow it with --allow-mcp URL."
            )
            raise InvalidRequest(message, param=f"{place}.server_url")
        return tool.server_url

    def _allows(self, url: str) -> bool:
        try:
            return _normal(url) in self._urls
        except ValueError:  # no URL at all
            return False


def _normal(url: str) -> tuple[str, str, str, str]:
    """Return the parts of a URL that choose the server. Two spellings of another address are different."""
    parts = urlsplit(url.strip())
    return parts.scheme.lower(), parts.netloc.lower(), parts.path.rstrip("/"), parts.query


def _headers(tool: McpTool, place: str) -> dict[str, str]:
    headers = dict(tool.headers or {})
    for name, value in headers.items():
        if name.lower() in RESERVED_HEADERS or not _is_field(name, value):
            message = f"`{place}.headers` has the header {name[:100]!r}, which cannot be set."
            raise InvalidRequest(message, param=f"{place}.headers")
    if tool.authorization:
        headers["Authorization"] = f"Bearer {tool.authorization}"
    return headers


def _is_field(name: str, value: str) -> bool:
    """Return whether these can be a header: ASCII in one line (RFC 9110, 5.5)."""
    return f"{name}{value}".isascii() and f"{name}{value}".isprintable()
