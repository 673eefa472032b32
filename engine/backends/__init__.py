"""Models that decode: the choice of a backend for a file, and a scripted one.

Imports `gguf`, `tokenizer` and the engine's root.
"""

from engine.backends.selection import REQUANTISES, Choice, choices, native_tokenizer, open_model, ways

__all__ = [
    "REQUANTISES",
    "Choice",
    "choices",
    "native_tokenizer",
    "open_model",
    "ways",
]
