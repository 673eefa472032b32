"""MCP servers: which ones requests may use, their tools, and calls. Imports `protocol` and `stream`."""

from server.mcp.access import McpAccess
from server.mcp.session import McpSession, call_item, open_session

__all__ = ["McpAccess", "McpSession", "call_item", "open_session"]
