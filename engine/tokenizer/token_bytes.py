"""The bytes that each token adds to the answer, by the kind of the model file's vocabulary."""

import re
from collections.abc import Sequence

from engine.gguf import damaged_file
from engine.tokenizer.byte_alphabet import UNICODE_TO_BYTE
from engine.tokenizer.entries import TokenEntries, TokenType

SHOWN = (TokenType.NORMAL, TokenType.USER_DEFINED)
"""Types whose text is part of the answer."""
BYTE_NAME = re.compile(r"<0x([0-9A-F]{2})>", re.IGNORECASE)
"""Pattern of the name of a SentencePiece byte token."""


def bpe_bytes(entries: TokenEntries) -> list[bytes]:
    """Return the bytes of the tokens of a byte-level vocabulary, which writes bytes as GPT-2's letters."""
    return [_letters_to_bytes(text, type_) for text, type_ in zip(entries.texts, entries.types, strict=True)]


def _letters_to_bytes(text: str, type_: int) -> bytes:
    if type_ == TokenType.NORMAL:
        # Most tokens are ASCII, maybe after a space, whose letter is Ġ: five times faster than letter by letter.
        spaced = text.replace("Ġ", " ")
        if spaced.isascii() and spaced.isprintable() and " " not in text:
            return spaced.encode()
    if type_ in (TokenType.NORMAL, TokenType.BYTE) and all(char in UNICODE_TO_BYTE for char in text):
        return bytes(UNICODE_TO_BYTE[char] for char in text)
    return literal_bytes(text) if type_ in SHOWN else b""


def sentencepiece_bytes(entries: TokenEntries) -> list[bytes]:
    """Return the bytes of the tokens of a SentencePiece vocabulary, which writes a space as U+2581."""
    found = _all_plain(entries.texts)
    for id_, type_ in enumerate(entries.types):
        if type_ == TokenType.BYTE:
            if not (byte := BYTE_NAME.fullmatch(entries.texts[id_])):
                raise damaged_file(f"its byte token {entries.texts[id_]!r:.40} does not name a byte")
            found[id_] = bytes.fromhex(byte[1])
        elif type_ != TokenType.NORMAL:
            found[id_] = literal_bytes(entries.texts[id_]) if type_ in SHOWN else b""
    return found


def _all_plain(texts: Sequence[str]) -> list[bytes]:
    """Return all texts with spaces, as bytes; in one go if none contains the separator."""
    found = literal_bytes("\0".join(texts).replace("▁", " ")).split(b"\0")
    return found if len(found) == len(texts) else [literal_bytes(text.replace("▁", " ")) for text in texts]


def literal_bytes(text: str) -> bytes:
    """Return a text as the file's own bytes."""
    return text.encode(errors="surrogateescape")
