"""Convert input items into messages and prompts. Pure. Imports `protocol`, `stream` and `tools`."""

from server.prompt.affinity import affinity_group, affinity_key
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
    "affinity_group",
    "affinity_key",
    "prepare",
]
