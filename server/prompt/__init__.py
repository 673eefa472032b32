"""Convert input items into messages and prompts. Pure. Imports `protocol`, `stream` and `tools`."""

from server.prompt.items import InputReader, ItemText
from server.prompt.prepare import McpServers, Past, PreparedRequest, prepare
from server.prompt.truncation import TokenCounter

__all__ = [
    "InputReader",
    "ItemText",
    "McpServers",
    "Past",
    "PreparedRequest",
    "TokenCounter",
    "prepare",
]
