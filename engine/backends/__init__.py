"""Models that decode: the choice of a backend for a file, and a scripted model.

Imports `gguf`, `tokenizer`, `wording` and the root.
"""

from engine.backends.selection import (
    QUANTIZING_ENGINE,
    BackendChoice,
    choices,
    native_tokenizer,
    open_model,
    option_sets,
    tokenizer_of,
)

__all__ = [
    "QUANTIZING_ENGINE",
    "BackendChoice",
    "choices",
    "native_tokenizer",
    "open_model",
    "option_sets",
    "tokenizer_of",
]
