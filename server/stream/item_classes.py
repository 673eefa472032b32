"""Class of the item that each input opens. Pure."""

from typing import TypeAlias

from server.stream.compaction_item import OpenCompaction
from server.stream.inputs import (
    McpListStarted,
    McpToolsListed,
    ReasoningAdded,
    SummaryAdded,
    TextAdded,
    ToolCallStarted,
)
from server.stream.open_builtin_calls import BUILTIN_CALLS, BuiltinCallClass
from server.stream.open_item import NextNumber, Opening, OpenItem
from server.stream.open_mcp_calls import OpenMcpApproval, OpenMcpCall, OpenMcpList
from server.stream.open_text_items import OpenMessage, OpenReasoning
from server.stream.open_tool_calls import OpenCustomCall, OpenFunctionCall

ItemClass: TypeAlias = (
    type[OpenMessage]
    | type[OpenReasoning]
    | type[OpenCompaction]
    | type[OpenFunctionCall]
    | type[OpenCustomCall]
    | BuiltinCallClass
    | type[OpenMcpCall]
    | type[OpenMcpApproval]
    | type[OpenMcpList]
)
ITEM_CLASSES: dict[type[Opening], ItemClass] = {
    TextAdded: OpenMessage,
    ReasoningAdded: OpenReasoning,
    SummaryAdded: OpenCompaction,
    ToolCallStarted: OpenFunctionCall,
    McpListStarted: OpenMcpList,
    McpToolsListed: OpenMcpList,
}


def open_item(input_: Opening, stem: str, output_index: int, number: NextNumber, summary: str | None) -> OpenItem:
    """Open an item. Its id derives from the response's `stem`, so that the same inputs produce the same bytes.

    `summary`: kind of the summary of reasoning.
    """
    item_class = class_of(input_)
    item = item_class(f"{item_class.prefix}_{stem}{output_index:02}", output_index, number, input_)
    if isinstance(item, OpenReasoning):
        item.summary = summary
    return item


def class_of(input_: Opening) -> ItemClass:
    match input_:
        case ToolCallStarted(builtin="mcp"):
            return OpenMcpCall
        case ToolCallStarted(builtin="mcp_approval"):
            return OpenMcpApproval
        case ToolCallStarted(builtin="shell" | "local_shell" | "apply_patch" | "tool_search" as name):
            return BUILTIN_CALLS[name]
        case ToolCallStarted(custom=True):
            return OpenCustomCall
    return ITEM_CLASSES[type(input_)]
