"""The tokens of a model file's vocabulary, with their types."""

from collections.abc import Mapping, Sequence
from enum import IntEnum

from msgspec import Struct

from engine.gguf import GGUFError, Header


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`: llama.cpp's `llama_token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class TokenEntry(Struct, frozen=True):
    """One token as stored in the file."""

    text: str
    kind: TokenType


def token_entries(header: Header) -> list[TokenEntry]:
    """Return all tokens by id. Raises GGUFError if the file is damaged."""
    texts = header.texts("tokenizer.ggml.tokens")
    kinds = header.integers("tokenizer.ggml.token_type") or [TokenType.NORMAL] * len(texts)
    if len(kinds) != len(texts):
        raise GGUFError(f"the file has {len(texts)} tokens but {len(kinds)} token types; it is damaged")
    known = {int(kind): kind for kind in TokenType}
    return [TokenEntry(text, known.get(kind, TokenType.NORMAL)) for text, kind in zip(texts, kinds, strict=True)]


def control_tokens(entries: Sequence[TokenEntry]) -> Mapping[int, str]:
    """Return the texts of the control tokens by id."""
    return {id_: entry.text for id_, entry in enumerate(entries) if entry.kind is TokenType.CONTROL}
