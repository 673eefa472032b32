"""Engine output to events, pure. Imports `protocol` and, of the engine, `dialects`, `job`, `notations`."""

from server.stream.chat_chunks import ChatUsage, Chunks, Failed, chat_usage, completion
from server.stream.inputs import Calling, Cancelled, Cue, Running, Unstored, failure
from server.stream.machine import State, Stream
from server.stream.output_processor import Answer
from server.stream.replay import behind, opening, perform
from server.stream.tool_call_mapper import Interpreter

__all__ = [
    "Answer",
    "Calling",
    "Cancelled",
    "ChatUsage",
    "Chunks",
    "Cue",
    "Failed",
    "Interpreter",
    "Running",
    "State",
    "Stream",
    "Unstored",
    "behind",
    "chat_usage",
    "completion",
    "failure",
    "opening",
    "perform",
]
