"""Ids <-> bytes, end tokens and special tokens, all from the model file's own vocabulary.

Two kinds of vocabulary are supported: byte-level BPE (`gpt2`) and SentencePiece (`llama`). The `tokenizers` library
tokenizes; this module configures it by the rules of llama.cpp's `llama-vocab.cpp`.
"""

import re
from array import array
from collections.abc import Callable, Container, Mapping, Sequence
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import TypeAlias

from msgspec import Struct
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from engine.gguf import GGUFError, Header, damaged_file
from engine.tokenizer.byte_alphabet import UNICODE_TO_BYTE
from engine.tokenizer.token_index import TokenIndex

Encode: TypeAlias = Callable[[str], list[int]]
"""Plain text -> ids."""
Native: TypeAlias = Callable[[], Encode] | None
"""Makes the engine's own encoder."""


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`: llama.cpp's `llama_token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


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

# Names that end a turn or a text in some model family, for files that declare only one of them as `eos`.
_END_NAMES = frozenset(
    (
        *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<|return|>"),
        *("<|call|>", "<end_of_turn>", "<turn|>", "</s>", "<eos>", "<EOT>", "[EOT]", "<｜end▁of▁sentence｜>"),
        *("<|endofturn|>", "<|end_of_turn|>", "<end_of_utterance>", "<|calls|>", "<|flush|>"),
        *("<start_function_response>", "<|tool_response>"),  # Gemma's calls: the output comes next
    )
)
_MESSAGE_ENDS = ({"<|call|>", "<|return|>"}, {"<|calls|>", "<|flush|>"})
"""Pairs of tokens beside which `<|end|>` ends only one of several messages (harmony, Solar Open)."""


MAX_CACHED_TEXTS = 64
"""Number of prompt texts whose ids are cached: enough for a conversation."""
MAX_CACHED_CHARACTERS = 65536
"""Length of the longest cached text, in characters: 64 of them take 8 MB, or 30 MB in rare alphabets."""


class TokenEntry(Struct, frozen=True):
    """One token as stored in the file."""

    text: str
    kind: TokenType


MakeEncode: TypeAlias = Callable[[Header, Sequence[TokenEntry], Native], Encode]


class Vocabulary:
    """Turns text into ids and ids into bytes."""

    def __init__(self, header: Header, native: Native = None) -> None:
        """`native` makes the engine's own encoder, for pre-tokenizers that this module does not know.

        Raises GGUFError if the file's vocabulary cannot be read.
        """
        entries = _entries(header)
        self.size = len(entries)
        self.bos = header.token_id("bos")
        self.eos = header.token_id("eos")
        self.end_tokens = _end_tokens(header, entries)
        self._text = [entry.text for entry in entries]
        # Names shorter than two letters are ignored: `ChatTemplate` cannot keep them out of users' text.
        self._ids = {text: id_ for id_, text in _control_tokens(entries).items() if len(text) > 1}
        by_length = sorted(self._ids, key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")
        """Pattern that matches the control tokens in a template's text."""
        kind = header.text("tokenizer.ggml.model")
        if kind not in _KINDS:
            raise GGUFError(f"the file's vocabulary is of kind {kind!r}; supported are 'gpt2' and 'llama'")
        to_bytes, encoder, adds_bos = _KINDS[kind]
        self._bytes = [to_bytes(entry) for entry in entries]
        self._encode = encoder(header, entries, native)
        self._add_bos = bool(header.flag("tokenizer.ggml.add_bos_token", adds_bos))
        self._cached_encode = lru_cache(MAX_CACHED_TEXTS)(lambda text: array("i", self._encode(text)))

    @property
    def control_ids(self) -> Mapping[str, int]:
        """The ids of the control tokens by name."""
        return self._ids

    def __len__(self) -> int:
        return len(self._text)

    def control_id(self, name: str) -> int | None:
        """Return the id of a control token; None if there is no such token."""
        return self._ids.get(name)

    def name_of(self, id_: int | None) -> str:
        """Return a token's name in the file, for templates; empty for None."""
        return "" if id_ is None else self._text[id_]

    def bytes_of(self, id_: int) -> bytes:
        """Return the bytes that a token adds to the answer: none for control tokens, maybe half a character for
        others."""
        return self._bytes[id_]

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text. Names of control tokens in it are ordinary text."""
        return self._encode(text)

    def _encode_cached(self, text: str) -> Sequence[int]:
        return self._cached_encode(text) if len(text) <= MAX_CACHED_CHARACTERS else self._encode(text)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Return ids whose bytes are exactly `data`, up to a byte that no token has; the ids of `encode` if these
        match."""
        ids = self.encode(data.decode(errors="replace"))
        # SentencePiece prepends a space to every text, and half characters cannot be decoded.
        return ids if b"".join(map(self.bytes_of, ids)) == data else list(self.token_index.encode_greedy(data))

    @cached_property
    def token_index(self) -> TokenIndex:
        """The index of the tokens by their bytes."""
        return TokenIndex(self._bytes)

    @cached_property
    def max_token_bytes(self) -> int:
        """Bytes of the longest token or control token name. A text of n bytes has at least n divided by this tokens."""
        longest = max((len(text) for text in self._bytes if text), default=1)
        return max(longest, *(len(name.encode()) for name in self._ids), 1)

    def encode_prompt(self, text: str, plain: Callable[[str], str] = str) -> list[int]:
        """Return the ids of a rendered template: control tokens by name, `plain` applied to the text between them.

        Instructions and earlier turns come again with every request. Encoding 8,000 tokens takes 9 ms without the
        cache.
        """
        ids = [self.bos] if self._add_bos and self.bos is not None else []
        position = 0
        for match in self.control.finditer(text):
            ids += self._encode_cached(plain(text[position : match.start()]))
            ids.append(self._ids[match[0]])
            position = match.end()
        ids += self._encode_cached(plain(text[position:]))
        # A template may write the BOS itself; two of them are never intended.
        return ids[1:] if self._add_bos and ids[:2] == [self.bos, self.bos] else ids


def _entries(header: Header) -> list[TokenEntry]:
    texts = header.texts("tokenizer.ggml.tokens")
    kinds = header.integers("tokenizer.ggml.token_type") or [TokenType.NORMAL] * len(texts)
    if len(kinds) != len(texts):
        raise GGUFError(f"the file has {len(texts)} tokens but {len(kinds)} token types; it is damaged")
    known = {int(kind): kind for kind in TokenType}
    return [TokenEntry(text, known.get(kind, TokenType.NORMAL)) for text, kind in zip(texts, kinds, strict=True)]


def _control_tokens(entries: Sequence[TokenEntry]) -> Mapping[int, str]:
    """Return the texts of the control tokens by id."""
    return {id_: entry.text for id_, entry in enumerate(entries) if entry.kind is TokenType.CONTROL}


def _end_tokens(header: Header, entries: Sequence[TokenEntry]) -> frozenset[int]:
    control = _control_tokens(entries)
    declared = {id_ for name in ("eos", "eot", "eom") if (id_ := header.token_id(name)) is not None}
    ends = declared | {id_ for id_, text in control.items() if text in _END_NAMES}
    if any(pair <= {*control.values()} for pair in _MESSAGE_ENDS):
        ends = {id_ for id_ in ends if entries[id_].text != "<|end|>"}
    return frozenset(ends)


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


_KINDS: Mapping[str | None, tuple[Callable[[TokenEntry], bytes], MakeEncode, bool]] = {
    "gpt2": (_bpe_bytes, _bpe, False),
    "llama": (_sentencepiece_bytes, _sentencepiece, True),
}
"""`tokenizer.ggml.model` -> a token's bytes, the encoder, and the default of `add_bos_token`."""
