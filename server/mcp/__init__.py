"""MCP servers: which ones requests may use, their tools, and calls. Imports `protocol`, `store` and `stream`."""

from server.mcp.access import McpAccess
from server.mcp.approved_calls import ApprovedCalls
from server.mcp.conversation_items import call_item
from server.mcp.session import McpSession, McpSessions

__all__ = ["ApprovedCalls", "McpAccess", "McpSession", "McpSessions", "call_item"]
