"""The GGUF file format: headers, metadata and what they say about a model. Imports no other folder."""

from engine.gguf.file_facts import FileFacts
from engine.gguf.header import ARRAY, FLOAT32, STRING, Entry, GGUFError, Header, Tensor, Value, damaged
from engine.gguf.reader import read

__all__ = [
    "ARRAY",
    "FLOAT32",
    "STRING",
    "Entry",
    "FileFacts",
    "GGUFError",
    "Header",
    "Tensor",
    "Value",
    "damaged",
    "read",
]
