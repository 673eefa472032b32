"""Encode plain text and decode tokens, by the kind of the model file's vocabulary.

Two kinds are supported: byte-level BPE (`gpt2`) and SentencePiece (`llama`). The `tokenizers` library tokenizes; this
module configures it by the rules of llama.cpp's `llama-vocab.cpp`.
"""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TypeAlias

from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from engine.gguf import GGUFError, Header, damaged_file
from engine.tokenizer.byte_alphabet import UNICODE_TO_BYTE
from engine.tokenizer.entries import TokenEntry, TokenType

Encode: TypeAlias = Callable[[str], list[int]]
"""Plain text -> ids."""
Native: TypeAlias = Callable[[], Encode] | None
"""Makes the engine's own encoder."""
MakeEncode: TypeAlias = Callable[[Header, Sequence[TokenEntry], Native], Encode]
"""Makes an encoder from a model file. Raises GGUFError."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# `tokenizer.ggml.pre` -> the patterns that split text into words, applied in order.
PRE_TOKENIZERS = {
    "default": (_GPT2,),
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),),
}
# Pre-tokenizers that look up the whole word before any merge (llama.cpp: `ignore_merges`).
_IGNORES_MERGES = frozenset({"llama-bpe"})

_BYTE_NAME = re.compile(r"<0x([0-9A-F]{2})>", re.IGNORECASE)


def _encoder(tokenizer: Tokenizer) -> Encode:
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _bpe(header: Header, entries: Sequence[TokenEntry], native: Native) -> Encode:
    name = header.text("tokenizer.ggml.pre", "default")
    if name not in PRE_TOKENIZERS and native is not None:
        return native()
    if name not in PRE_TOKENIZERS:
        raise GGUFError(f"the file's pre-tokenizer {name!r} is unknown; known are {', '.join(PRE_TOKENIZERS)}")
    vocabulary = _reachable(entries)
    merges = [_pair(merge, vocabulary) for merge in header.texts("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE(vocabulary, merges, ignore_merges=name in _IGNORES_MERGES))
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[name]]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, to_bytes])
    return _encoder(_with_user_defined(tokenizer, entries))


def _sentencepiece(header: Header, entries: Sequence[TokenEntry], _native: Native) -> Encode:
    scores = header.floats("tokenizer.ggml.scores")
    if len(scores) != len(entries):
        raise GGUFError(f"the file has {len(entries)} tokens but {len(scores)} token scores; it is damaged")
    vocabulary = _reachable(entries)
    unknown = next((entry.text for entry in entries if entry.kind is TokenType.UNKNOWN), None)
    tokenizer = Tokenizer(
        BPE(vocabulary, _merges(vocabulary, scores), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    # SentencePiece words begin with a space; each text between special and user-defined tokens gets one
    # (llama.cpp: `is_prev_special`).
    prefix = [normalizers.Prepend("▁")] if header.flag("tokenizer.ggml.add_space_prefix", True) else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    return _encoder(_with_user_defined(tokenizer, entries))


def _merges(vocabulary: dict[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return every way to join two tokens to another one, best token first: SentencePiece's order as BPE ranks."""
    found = [
        (scores[id_], left, right)
        for token, id_ in vocabulary.items()
        for cut in range(1, len(token))
        if (left := token[:cut]) in vocabulary and (right := token[cut:]) in vocabulary
    ]
    found.sort(key=lambda merge: (-merge[0], vocabulary[merge[1]], vocabulary[merge[2]]))
    return [(left, right) for _, left, right in found]


def _reachable(entries: Sequence[TokenEntry]) -> dict[str, int]:
    """Return the tokens that plain text can become. Control tokens are excluded."""
    hidden = (TokenType.CONTROL, TokenType.UNUSED)
    vocabulary = {entry.text: id_ for id_, entry in enumerate(entries) if entry.kind not in hidden}
    try:
        "".join(vocabulary).encode()
    except UnicodeEncodeError as error:  # raw bytes, as in conversions of 2023
        raise GGUFError("its tokens are not all UTF-8 text, so download a newer conversion") from error
    return vocabulary


def _with_user_defined(tokenizer: Tokenizer, entries: Sequence[TokenEntry]) -> Tokenizer:
    """Make the tokenizer match user-defined tokens before it splits text into words, as in training."""
    texts = [entry.text for entry in entries if entry.kind is TokenType.USER_DEFINED]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in texts])
    return tokenizer


def _pair(merge: str, vocabulary: Container[str]) -> tuple[str, str]:
    left, _, right = merge[1:].partition(" ")  # the first character may be a space
    left = merge[:1] + left
    if not (left in vocabulary and right in vocabulary and left + right in vocabulary):
        raise damaged_file(f"its merge {merge!r:.40} joins unknown tokens")
    return left, right


def _bpe_bytes(entry: TokenEntry) -> bytes:
    if entry.kind in (TokenType.NORMAL, TokenType.BYTE) and all(char in UNICODE_TO_BYTE for char in entry.text):
        return bytes(UNICODE_TO_BYTE[char] for char in entry.text)
    return _literal_bytes(entry)


def _sentencepiece_bytes(entry: TokenEntry) -> bytes:
    if entry.kind is TokenType.BYTE:
        if not (byte := _BYTE_NAME.fullmatch(entry.text)):
            raise damaged_file(f"its byte token {entry.text!r:.40} does not name a byte")
        return bytes.fromhex(byte[1])
    if entry.kind is TokenType.NORMAL:
        return entry.text.replace("▁", " ").encode(errors="surrogateescape")
    return _literal_bytes(entry)


def _literal_bytes(entry: TokenEntry) -> bytes:
    shown = entry.kind in (TokenType.NORMAL, TokenType.USER_DEFINED)
    return entry.text.encode(errors="surrogateescape") if shown else b""


KINDS: Mapping[str | None, tuple[Callable[[TokenEntry], bytes], MakeEncode, bool]] = {
    "gpt2": (_bpe_bytes, _bpe, False),
    "llama": (_sentencepiece_bytes, _sentencepiece, True),
}
"""`tokenizer.ggml.model` -> a token's bytes, the encoder, and the default of `add_bos_token`."""
