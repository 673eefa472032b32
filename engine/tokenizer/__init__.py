"""Text to tokens and back, by the model file's own vocabulary. Imports `gguf`."""

from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE, UNICODE_TO_BYTE
from engine.tokenizer.detokenizer import Detokenizer, StopStrings
from engine.tokenizer.encoders import Encode
from engine.tokenizer.entries import TokenType
from engine.tokenizer.tokenizer_json import read as read_tokenizer_json
from engine.tokenizer.vocabulary import TokenBound, Vocabulary, no_bound

__all__ = [
    "BYTE_TO_UNICODE",
    "UNICODE_TO_BYTE",
    "Detokenizer",
    "Encode",
    "StopStrings",
    "TokenBound",
    "TokenType",
    "Vocabulary",
    "no_bound",
    "read_tokenizer_json",
]
