"""Encode plain text and decode tokens, by the kind of the model file's vocabulary.

Two kinds are supported: byte-level BPE (`gpt2`) and SentencePiece (`llama`). The `tokenizers` library encodes, by the
rules of llama.cpp's `llama-vocab.cpp`, which this module configures. The library is imported only where the native
encoder, of the engine that has loaded the model, cannot replace it (`native_encoder`).
"""

import os
import re
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from engine.gguf import GGUFError, Header, damaged_file
from engine.tokenizer.entries import TokenEntries, TokenType
from engine.tokenizer.pieces import Pieces, token_pieces, whole, word_pieces
from engine.tokenizer.token_bytes import bpe_bytes, sentencepiece_bytes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# One text goes to the library at a time; threads of its own would only add a hop. It reads this at each call.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Encode: TypeAlias = Callable[[str], list[int]]
"""Plain text -> ids."""
MakeNative: TypeAlias = Callable[[], Encode] | None
"""Makes the engine's native encoder; None if there is none."""
MakeEncode: TypeAlias = Callable[[Header, TokenEntries, MakeNative], Encode]
"""Makes an encoder from a model file. Raises GGUFError."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PRE_TOKENIZERS = {
    "default": (_GPT2,),
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),),
}
"""`tokenizer.ggml.pre` -> the patterns that split text into words, applied in order."""
_IGNORES_MERGES = frozenset({"llama-bpe"})
"""Pre-tokenizers that look up the whole word before any merge (llama.cpp: `ignore_merges`)."""
_HIDDEN = (TokenType.CONTROL, TokenType.UNUSED)
"""Types that plain text cannot become."""

MAX_RUN = 4096
"""Characters of one kind that llama.cpp's pattern matcher surely survives."""
_LONG_RUN = re.compile(rf"\S{{{MAX_RUN},}}|\s{{{MAX_RUN},}}")
_PIECE = re.compile(rf"\s{{0,{MAX_RUN}}}\S{{1,{MAX_RUN}}}|\s{{1,{MAX_RUN}}}")


def _encoder(tokenizer: "Tokenizer") -> Encode:
    # `encode_batch_fast` releases the GIL; `encode` would stop all streams, 0.7 s for a million characters.
    return lambda text: tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids


def file_encoder(data: bytes) -> tuple[Encode, Sequence[int]]:
    """Return the encoder of a `tokenizer.json`, and the tokens that it begins every prompt with. Raises GGUFError."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises nothing more specific
        raise GGUFError(str(error)) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    first = tokenizer.encode("").ids
    tokenizer.encode_special_tokens = True  # their names in a text are ordinary text
    return _encoder(tokenizer), first


def _bpe(header: Header, entries: TokenEntries, make_native: MakeNative) -> Encode:
    from tokenizers import Regex, Tokenizer, pre_tokenizers
    from tokenizers.models import BPE

    name = header.text("tokenizer.ggml.pre", "default")
    if name not in PRE_TOKENIZERS and make_native is not None:
        return with_short_runs(make_native())
    if name not in PRE_TOKENIZERS:
        raise GGUFError(f"the file's pre-tokenizer {name!r} is unknown; known are {', '.join(PRE_TOKENIZERS)}")
    vocabulary = _reachable(entries)
    merges = [_pair(merge, vocabulary) for merge in header.texts("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE(vocabulary, merges, ignore_merges=name in _IGNORES_MERGES))
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[name]]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, to_bytes])
    return _encoder(_with_user_defined(tokenizer, entries))


def _sentencepiece(header: Header, entries: TokenEntries, _: MakeNative) -> Encode:
    from tokenizers import Tokenizer, normalizers
    from tokenizers.models import BPE

    scores = header.floats("tokenizer.ggml.scores")
    if len(scores) != len(entries.texts):
        raise GGUFError(f"the file has {len(entries.texts)} tokens but {len(scores)} token scores; it is damaged")
    vocabulary = _reachable(entries)
    unknown = next((entries.texts[id_] for id_ in entries.of_types(TokenType.UNKNOWN)), None)
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


def _reachable(entries: TokenEntries) -> dict[str, int]:
    """Return the tokens that plain text can become. Control tokens are excluded."""
    vocabulary = {entries.texts[id_]: id_ for id_ in entries.of_types(*TokenType) if entries.types[id_] not in _HIDDEN}
    try:
        "".join(vocabulary).encode()
    except UnicodeEncodeError as error:  # raw bytes, as in conversions of 2023
        raise GGUFError("its tokens are not all UTF-8 text, so download a newer conversion") from error
    return vocabulary


def _user_defined(entries: TokenEntries) -> list[str]:
    return [entries.texts[id_] for id_ in entries.of_types(TokenType.USER_DEFINED)]


def _with_user_defined(tokenizer: "Tokenizer", entries: TokenEntries) -> "Tokenizer":
    """Make the tokenizer match user-defined tokens before it splits text into words, as in training."""
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in _user_defined(entries)])
    return tokenizer


def _pair(merge: str, vocabulary: Container[str]) -> tuple[str, str]:
    left, _, right = merge[1:].partition(" ")  # the first character may be a space
    left = merge[:1] + left
    if not (left in vocabulary and right in vocabulary and left + right in vocabulary):
        raise damaged_file(f"its merge {merge!r:.40} joins unknown tokens")
    return left, right


def native_encoder(header: Header, encode: Encode) -> Encode | None:
    """Return the native encoder, of the engine that has loaded the model, if it gives the ids of `tokenizers`; else
    None.

    It costs neither memory nor time at the start: for the 262,000 tokens of Gemma 3, `tokenizers` takes 4 s and 110 MB.
    10,000 tokens take 17 ms instead of 9, and of SentencePiece 41 instead of 5, which is a thousandth of their
    evaluation.
    """
    name = header.text("tokenizer.ggml.pre", "default")
    if header.text("tokenizer.ggml.model") != "gpt2":
        return encode
    if name == "default":  # llama.cpp splits the text by other patterns
        return None
    return encode if name in PRE_TOKENIZERS else with_short_runs(encode)


def has_words(header: Header, entries: TokenEntries) -> bool:
    """True if no token crosses the edge of a word; see `pieces.words_of`."""
    return _has_known_words(header) and not _user_defined(entries)


def _has_known_words(header: Header) -> bool:
    """True for byte-level BPE with a pre-tokenizer whose words are known."""
    is_bpe = header.text("tokenizer.ggml.model") == "gpt2"
    return is_bpe and header.text("tokenizer.ggml.pre", "default") in PRE_TOKENIZERS


def pieces_of(header: Header, entries: TokenEntries) -> Callable[[Sequence[str]], Pieces]:
    """Return a function that makes the rule for cutting texts from the texts of all tokens, once one is long."""
    user_defined = _user_defined(entries)
    if header.text("tokenizer.ggml.model") != "gpt2":
        prefixed = bool(header.flag("tokenizer.ggml.add_space_prefix", True))
        return partial(token_pieces, user_defined=user_defined, prefixed=prefixed)
    known = _has_known_words(header)
    return lambda _: word_pieces(user_defined) if known else whole


def with_short_runs(encode: Encode) -> Encode:
    """Return an encoder that cuts runs without a space, or of spaces only, into pieces of `MAX_RUN` characters.

    For pre-tokenizers without code of their own, llama.cpp matches patterns by `std::regex`, which recurses for each
    character: 40,000 equal letters would end the process.
    """

    def encode_in_pieces(text: str) -> list[int]:
        if not _LONG_RUN.search(text):
            return encode(text)
        return [id_ for piece in _PIECE.findall(text) for id_ in encode(piece)]

    return encode_in_pieces


KINDS: Mapping[str | None, tuple[Callable[[TokenEntries], list[bytes]], MakeEncode, bool]] = {
    "gpt2": (bpe_bytes, _bpe, False),
    "llama": (sentencepiece_bytes, _sentencepiece, True),
}
"""`tokenizer.ggml.model` -> the tokens' bytes, the encoder, and the default of `add_bos_token`."""
