"""From a name to a checked, loaded model.

Imports `backends`, `chat_template`, `gguf`, `platform`, `tokenizer`, `wording` and the root.
"""

from engine.loader.loader import Loaded, inspect, load
from engine.loader.options import Options, context, thread_counts
from engine.loader.tokenizer_file import read as read_tokenizer

__all__ = [
    "Loaded",
    "Options",
    "context",
    "inspect",
    "load",
    "read_tokenizer",
    "thread_counts",
]
