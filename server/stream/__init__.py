"""The stream of a response: inputs -> events, by a state machine. Pure."""

from server.stream.cache_diagnostics import evicted_tokens
from server.stream.compaction_item import decode_summary, encode_summary
from server.stream.inputs import (
    ArgumentsAdded,
    BuiltinName,
    Cancelled,
    End,
    Failure,
    InProgress,
    McpCallFinished,
    McpListStarted,
    McpName,
    McpToolsListed,
    NotStored,
    PromptMade,
    ReasoningAdded,
    ReasoningSealed,
    StreamInput,
    SummaryAdded,
    TextAdded,
    ToolCallEnded,
    ToolCallStarted,
    failure,
)
from server.stream.machine import State, Stream
from server.stream.open_mcp_calls import INTERRUPTED
from server.stream.replay import events_after, feed_all, opening_inputs, result_of_approved_call

__all__ = [
    "INTERRUPTED",
    "ArgumentsAdded",
    "BuiltinName",
    "Cancelled",
    "End",
    "Failure",
    "InProgress",
    "McpCallFinished",
    "McpListStarted",
    "McpName",
    "McpToolsListed",
    "NotStored",
    "PromptMade",
    "ReasoningAdded",
    "ReasoningSealed",
    "State",
    "Stream",
    "StreamInput",
    "SummaryAdded",
    "TextAdded",
    "ToolCallEnded",
    "ToolCallStarted",
    "decode_summary",
    "encode_summary",
    "events_after",
    "evicted_tokens",
    "failure",
    "feed_all",
    "opening_inputs",
    "result_of_approved_call",
]
