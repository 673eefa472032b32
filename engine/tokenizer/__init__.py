"""Text to tokens and back, by the model file's own vocabulary. Imports `gguf`."""

from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE, UNICODE_TO_BYTE
from engine.tokenizer.detokenizer import StopStrings, TextDecoder
from engine.tokenizer.vocabulary import Kind, Vocabulary

__all__ = [
    "BYTE_TO_UNICODE",
    "UNICODE_TO_BYTE",
    "Kind",
    "StopStrings",
    "TextDecoder",
    "Vocabulary",
]
