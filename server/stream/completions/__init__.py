"""Responses and their events as chat completions and text completions. Imports `protocol`. Pure."""

from server.stream.completions.chat_chunks import ChatChunkEncoder, completion
from server.stream.completions.chat_objects import ChatChunk, ChatCompletion, Failed
from server.stream.completions.text_chunks import TextChunkEncoder, TextCompletion, text_completion

__all__ = [
    "ChatChunk",
    "ChatChunkEncoder",
    "ChatCompletion",
    "Failed",
    "TextChunkEncoder",
    "TextCompletion",
    "completion",
    "text_completion",
]
