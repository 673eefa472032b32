"""The GGUF file format: headers, metadata and the facts that they state about a model. Imports nothing of ours."""

from engine.gguf.file_facts import FileFacts
from engine.gguf.header import ARRAY, FLOAT32, STRING, GGUFError, Header, MetadataEntry, Tensor, Value, damaged_file
from engine.gguf.reader import read
from engine.gguf.tensor_types import TENSOR_TYPES

__all__ = [
    "ARRAY",
    "FLOAT32",
    "STRING",
    "TENSOR_TYPES",
    "FileFacts",
    "GGUFError",
    "Header",
    "MetadataEntry",
    "Tensor",
    "Value",
    "damaged_file",
    "read",
]
