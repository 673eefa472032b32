"""From a name to a checked, loaded model. Imports `backends`, `chat_template`, `gguf`, `tokenizer` and the root."""

from engine.loader.loader import context, n_threads

__all__ = ["context", "n_threads"]
