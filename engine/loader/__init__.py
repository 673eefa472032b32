"""From a name to a checked, loaded model. Imports `backends`, `chat_template`, `gguf`, `tokenizer` and the root."""

from engine.loader.loader import Loaded, Options, context, inspect, load, thread_counts

__all__ = [
    "Loaded",
    "Options",
    "context",
    "inspect",
    "load",
    "thread_counts",
]
