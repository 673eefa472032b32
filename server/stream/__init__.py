"""The stream of a response: engine outputs -> stream inputs -> events. Pure."""

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
    StreamInput,
    TextAdded,
    ToolCallEnded,
    ToolCallStarted,
    failure,
)
from server.stream.machine import State, Stream
from server.stream.open_mcp_calls import INTERRUPTED
from server.stream.output_processor import OutputProcessor
from server.stream.processor import Processor, UpstreamTrace
from server.stream.reasoning_sealer import ReasoningSealer
from server.stream.replay import events_after, feed_all, opening_inputs, result_of_approved_call
from server.stream.summary_processor import SummaryProcessor
from server.stream.tool_call_mapper import ToolCallMapper

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
    "OutputProcessor",
    "Processor",
    "PromptMade",
    "ReasoningAdded",
    "ReasoningSealer",
    "State",
    "Stream",
    "StreamInput",
    "SummaryProcessor",
    "TextAdded",
    "ToolCallEnded",
    "ToolCallMapper",
    "ToolCallStarted",
    "UpstreamTrace",
    "decode_summary",
    "encode_summary",
    "events_after",
    "evicted_tokens",
    "failure",
    "feed_all",
    "opening_inputs",
    "result_of_approved_call",
]
