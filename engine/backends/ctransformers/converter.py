"""Rewrite a GGUF file for ctransformers 0.2.27, whose llama.cpp is of September 2023.

This version reads today's container, but not today's byte-level BPE models. It needs token scores (which BPE does not
use), tokens as raw bytes instead of GPT-2's letters, and a separate output matrix even if a model shares the
embedding's. The copy adds these; all else equals the source.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from engine.gguf import ARRAY, FLOAT32, STRING, TENSOR_TYPES, GGUFError, Header, Tensor, damaged_file
from engine.tokenizer import BYTE_TO_UNICODE, UNICODE_TO_BYTE

TOKENS, SCORES = "tokenizer.ggml.tokens", "tokenizer.ggml.scores"
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"

COMPUTABLE_TYPES = frozenset(
    ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
)
"""Tensor types that the library can compute with. It does not check them: it mistakes some later types for others, and
the rest are past the end of its table."""
DIVISOR_KEYS = ("attention.head_count", "attention.head_count_kv")
"""Metadata that the old library divides by, after the name of the architecture."""

CHUNK = 1 << 22  # bytes


def rewrite_reasons(header: Header) -> list[str]:
    """Return the reasons for a rewrite; empty if the file can be loaded as it is.

    Raises GGUFError for a file that would crash the old library even after a rewrite.
    """
    _check_loadable(header)
    reasons = []
    if _lacks_scores(header):
        reasons.append("its tokens have no scores")
    if _uses_byte_alphabet(header):
        reasons.append("its tokens are in GPT-2's letters for bytes")
    if not _has(header, OUTPUT):
        reasons.append("it has no output matrix of its own")
    if header.stray_token_ids():
        reasons.append("a special token's id is beyond its vocabulary")
    return reasons


def write(source: Path, header: Header, target: BinaryIO) -> None:
    """Write the rewritten copy of `source` with the given header. Raises GGUFError, or OSError from I/O."""
    _check_loadable(header)
    with source.open("rb") as file:
        entries = list(_entries(file, header))
        tensors = _tensors(header)
        infos = list(_infos(tensors, header.alignment))
        start = b"GGUF" + _u32(header.version) + _u64(len(tensors)) + _u64(len(entries))
        written = sum(map(len, [start, *entries, *infos]))
        target.writelines([start, *entries, *infos, bytes(-written % header.alignment)])
        for tensor in tensors:
            target.writelines(_read(file, tensor.offset, tensor.n_bytes))
            target.write(bytes(-tensor.n_bytes % header.alignment))


def _check_loadable(header: Header) -> None:
    """Raise GGUFError for a file that would crash the old library."""
    for tensor in header.tensors:
        if TENSOR_TYPES[tensor.type].name not in COMPUTABLE_TYPES:
            problem = f"the type {tensor.type} of the tensor {tensor.name!r}"
            raise GGUFError(f"ctransformers cannot compute with {problem}, so use another quantization")
    for name in DIVISOR_KEYS:
        if header.integer(key := f"{header.architecture}.{name}") == 0:
            raise damaged_file(f"the model file's {key} is 0")
    if not _has(header, OUTPUT) and not _has(header, EMBEDDING):
        raise damaged_file(f"the model file has neither {OUTPUT} nor {EMBEDDING}")


def _has(header: Header, name: str) -> bool:
    return any(tensor.name == name for tensor in header.tensors)


def _is_bpe(header: Header) -> bool:
    return header.text("tokenizer.ggml.model") == "gpt2"


def _lacks_scores(header: Header) -> bool:
    return _is_bpe(header) and SCORES not in header.metadata


def _uses_byte_alphabet(header: Header) -> bool:
    """True if the tokens are spelled in GPT-2's letters: the space's token is then its letter, not a space."""
    tokens = header.texts(TOKENS)
    return _is_bpe(header) and BYTE_TO_UNICODE[ord(" ")] in tokens and " " not in tokens


def _entries(file: BinaryIO, header: Header) -> Iterator[bytes]:
    strays = header.stray_token_ids()
    for key, entry in header.metadata.items():
        if key in strays:
            continue
        if key == TOKENS and _uses_byte_alphabet(header):
            yield _tokens(header.texts(TOKENS))
        else:
            yield b"".join(_read(file, entry.start, entry.end - entry.start))
    if _lacks_scores(header):
        n = len(header.texts(TOKENS))
        yield _string(SCORES.encode()) + _u32(ARRAY) + _u32(FLOAT32) + _u64(n) + bytes(4 * n)


def _tokens(tokens: Iterable[str]) -> bytes:
    raw = [_string(_token_bytes(token)) for token in tokens]
    return _string(TOKENS.encode()) + _u32(ARRAY) + _u32(STRING) + _u64(len(raw)) + b"".join(raw)


def _token_bytes(token: str) -> bytes:
    # A token with a character outside the alphabet is plain text, as special tokens are.
    if all(letter in UNICODE_TO_BYTE for letter in token):
        return bytes(UNICODE_TO_BYTE[letter] for letter in token)
    return token.encode("utf-8", "surrogateescape")


def _tensors(header: Header) -> list[Tensor]:
    """Return the copy's tensors, each with its place in the source."""
    tensors = list(header.tensors)
    if not _has(header, OUTPUT):
        embedding = next(tensor for tensor in tensors if tensor.name == EMBEDDING)
        tensors.append(msgspec.structs.replace(embedding, name=OUTPUT))
    return tensors


def _infos(tensors: Iterable[Tensor], alignment: int) -> Iterator[bytes]:
    """Yield the tensor descriptions, with offsets in the copy."""
    offset = 0  # bytes from where the data starts
    for tensor in tensors:
        shape = b"".join(map(_u64, tensor.shape))
        yield (_string(tensor.name.encode()) + _u32(len(tensor.shape)) + shape + _u32(tensor.type) + _u64(offset))
        offset += tensor.n_bytes + -tensor.n_bytes % alignment


def _read(file: BinaryIO, start: int, n: int) -> Iterator[bytes]:
    """Yield `n` bytes in blocks, since the file may be larger than the memory."""
    file.seek(start)
    while n:
        if not (chunk := file.read(min(n, CHUNK))):
            raise damaged_file("the model file became shorter while it was read")
        n -= len(chunk)
        yield chunk


def _string(raw: bytes) -> bytes:
    return _u64(len(raw)) + raw


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")
