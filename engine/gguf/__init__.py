"""The GGUF file format: headers, metadata and what they say about a model. Imports no other folder."""

from engine.gguf.reader import read

__all__ = ["read"]
