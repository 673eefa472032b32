"""Ids <-> bytes, end tokens and special tokens, all from the model file's own vocabulary."""

import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import TypeAlias

from engine.gguf import GGUFError, Header
from engine.tokenizer.encoders import KINDS, Encode, MakeNative, has_words, native_encoder, pieces_of
from engine.tokenizer.entries import TokenType, token_entries
from engine.tokenizer.packed_bytes import PackedBytes
from engine.tokenizer.pieces import Pieces
from engine.tokenizer.token_index import TokenIndex
from engine.tokenizer.word_cache import WordCache

_END_NAMES = frozenset(
    (
        *("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<|return|>"),
        *("<|call|>", "<end_of_turn>", "<turn|>", "</s>", "<eos>", "<EOT>", "[EOT]", "<｜end▁of▁sentence｜>"),
        *("<|endofturn|>", "<|end_of_turn|>", "<end_of_utterance>", "<|calls|>", "<|flush|>"),
        *("<start_function_response>", "<|tool_response>"),  # Gemma's calls: the output comes next
    )
)
"""Names that end a turn or a text in some model family, for files that declare only one of them as `eos`."""
_MESSAGE_ENDS = ({"<|call|>", "<|return|>"}, {"<|calls|>", "<|flush|>"})
"""Pairs of tokens beside which `<|end|>` ends only one of several messages (harmony, Solar Open)."""


MAX_CACHED_TEXTS = 64
"""Number of prompt texts whose ids are cached: enough for a conversation."""
MAX_CACHED_CHARACTERS = 65536
"""Length of the longest cached text, in characters: 64 of them take 8 MB, or 30 MB in rare alphabets."""
PIECE_CHARACTERS = 16384
"""Least length of a piece of a longer text, in characters: 5 to 20 ms of work."""

TokenBound: TypeAlias = Callable[[int], None]
"""Function that gets the number of tokens so far. It may raise an exception to stop the work."""


def no_bound(count: int) -> None:
    """Ignore the number of tokens."""


class Vocabulary:
    """Turns text into ids and ids into bytes."""

    def __init__(self, header: Header, make_native: MakeNative = None) -> None:
        """`make_native` makes the engine's native encoder, for pre-tokenizers that `encoders` does not know.

        Raises GGUFError if the file's vocabulary cannot be read.
        """
        entries = token_entries(header)
        self.size = len(entries.texts)
        self.bos = header.token_id("bos")
        self.eos = header.token_id("eos")
        control = {id_: entries.texts[id_] for id_ in entries.of_types(TokenType.CONTROL)}
        self.end_tokens = _end_tokens(header, entries.texts, control)
        # Names shorter than two letters are ignored: `ChatTemplate` cannot remove them from users' text.
        self._ids = {text: id_ for id_, text in control.items() if len(text) > 1}
        by_length = sorted(self._ids, key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, by_length)) or r"(?!)")
        """Pattern that matches the control tokens in a template's text."""
        kind = header.text("tokenizer.ggml.model")
        if kind not in KINDS:
            raise GGUFError(f"the file's vocabulary is of kind {kind!r}; supported are 'gpt2' and 'llama'")
        to_bytes, encoder, adds_bos = KINDS[kind]
        self._names = entries.texts
        self._bytes = PackedBytes(to_bytes(entries))
        self._encode: Encode | None = None
        self._build: Callable[[], Encode] | None = partial(encoder, header, entries, make_native)
        self._native: Callable[[Encode], Encode | None] | None = partial(native_encoder, header)
        self._has_words = has_words(header, entries)
        self._make_pieces = pieces_of(header, entries)
        self._add_bos = bool(header.flag("tokenizer.ggml.add_bos_token", adds_bos))
        self._cached_encode = lru_cache(MAX_CACHED_TEXTS)(lambda text: array("i", self.encode(text)))

    def choose_encoder(self, native: Encode | None = None) -> None:
        """Choose the encoder and drop the file's lists. `native` is the encoder of the engine that has loaded the
        model; without it, `encoders` builds one. Raises GGUFError if it cannot."""
        encode = self._native(native) if native and self._native else None
        if encode is None and self._build is not None:
            encode = self._build()
        if encode is not None:
            self._encode = WordCache(encode, self.bytes_of) if self._has_words else encode
        self._build = self._native = None

    @property
    def control_ids(self) -> Mapping[str, int]:
        """The ids of the control tokens by name."""
        return self._ids

    def __len__(self) -> int:
        return self.size

    def control_id(self, name: str) -> int | None:
        """Return the id of a control token; None if there is no such token."""
        return self._ids.get(name)

    def name_of(self, id_: int | None) -> str:
        """Return a token's name in the file, for templates; empty for None."""
        return "" if id_ is None else self._names[id_]

    def bytes_of(self, id_: int) -> bytes:
        """Return the bytes that a token adds to the answer: none for control tokens, maybe half a character for
        others."""
        return self._bytes[id_]

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text. Names of control tokens in it are ordinary text."""
        if self._encode is None:
            self.choose_encoder()
        assert self._encode is not None
        return self._encode(text)

    @cached_property
    def pieces(self) -> Pieces:
        """The function that cuts a text into pieces whose ids, joined, are the text's ids."""
        return self._make_pieces([self.name_of(id_) for id_ in range(self.size)])

    def encode_bytes(self, data: bytes) -> list[int]:
        """Return ids whose bytes are exactly `data`, up to a byte that no token has; the ids of `encode` if these
        match."""
        ids = self.encode(data.decode(errors="replace"))
        # SentencePiece prepends a space to every text, and half characters cannot be decoded.
        return ids if b"".join(map(self.bytes_of, ids)) == data else list(self.token_index.encode_greedy(data))

    def tokens_containing(self, data: bytes) -> Iterator[int]:
        """Yield the tokens whose bytes contain `data`, which is not empty."""
        return self._bytes.containing(data)

    @cached_property
    def token_index(self) -> TokenIndex:
        """The index of the tokens by their bytes."""
        return TokenIndex(self._bytes)

    @cached_property
    def max_token_bytes(self) -> int:
        """Bytes of the longest token or control token name. A text of n bytes has at least n divided by this tokens."""
        return max(self._bytes.longest, *(len(name.encode()) for name in self._ids), 1)

    def encode_prompt(self, text: str, plain: Callable[[str], str] = str, bound: TokenBound = no_bound) -> list[int]:
        """Return the ids of a rendered template: control tokens by name, `plain` applied to the text between them.

        Instructions and earlier turns come again with every request. Encoding 8,000 tokens takes 9 ms without the
        cache. `bound` is called before each part of the text.
        """
        ids = [self.bos] if self._add_bos and self.bos is not None else []
        for part, control in self._parts(text, plain):
            bound(len(ids))
            ids += self._cached_encode(part) if len(part) <= MAX_CACHED_CHARACTERS else self.encode(part)
            if control:
                ids.append(self._ids[control])
        # A template may write the BOS itself; two of them are never intended.
        return ids[1:] if self._add_bos and ids[:2] == [self.bos, self.bos] else ids

    def _parts(self, text: str, plain: Callable[[str], str]) -> Iterator[tuple[str, str]]:
        """Yield the pieces of the text between control tokens, each with the name of the token after it, or none."""
        position = 0
        for match in self.control.finditer(text):
            yield from self._pieces_before(match[0], plain(text[position : match.start()]))
            position = match.end()
        yield from self._pieces_before("", plain(text[position:]))

    def _pieces_before(self, control: str, text: str) -> Iterator[tuple[str, str]]:
        if len(text) > MAX_CACHED_CHARACTERS:
            *pieces, text = self.pieces(text, PIECE_CHARACTERS)
            yield from ((piece, "") for piece in pieces)
        yield text, control


def _end_tokens(header: Header, texts: Sequence[str], control: Mapping[int, str]) -> frozenset[int]:
    declared = {id_ for name in ("eos", "eot", "eom") if (id_ := header.token_id(name)) is not None}
    ends = declared | {id_ for id_, text in control.items() if text in _END_NAMES}
    if any(pair <= {*control.values()} for pair in _MESSAGE_ENDS):
        ends = {id_ for id_ in ends if texts[id_] != "<|end|>"}
    return frozenset(ends)
