"""Vocabularies in `tokenizer.json`, Hugging Face's file, with `tokenizer_config.json` and `chat_template.jinja` beside.

The tokens become the metadata that a GGUF file of the model would have (llama.cpp: `convert_hf_to_gguf.py`), so that
`Vocabulary` reads both. The `tokenizers` library encodes, by the file's own rules.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from engine.gguf import GGUFError, Header, MetadataEntry, Value
from engine.tokenizer.encoders import file_encoder
from engine.tokenizer.entries import TokenType
from engine.tokenizer.token_bytes import BYTE_NAME
from engine.tokenizer.vocabulary import Vocabulary

MAX_BYTES = 64 << 20
"""Bytes of a file at most; the largest known ones have 35 MB."""
MAX_TOKENS = 1 << 21
"""Maximum tokens of a vocabulary."""
MERGE_RULES = "tokenizer.json"
"""Name of the pre-tokenizer in the metadata: none that `encoders` knows."""


class _AddedToken(Struct):
    id: int
    content: str
    special: bool = False


class _MergeModel(Struct):
    type: str = "BPE"
    vocab: dict[str, int] | list[Any] = {}
    byte_fallback: bool = False
    unk_token: str | None = None


class _TokenizerFile(Struct):
    model: _MergeModel
    added_tokens: list[_AddedToken] = []
    decoder: Any = None


class _NamedText(Struct):
    """A token, or a template, with its name."""

    content: str | None = None
    name: str = ""
    template: str = ""


class _TokenizerSettings(Struct):
    """`tokenizer_config.json`."""

    bos_token: str | _NamedText | None = None
    eos_token: str | _NamedText | None = None
    chat_template: str | list[_NamedText] | None = None


def read(path: Path) -> tuple[Vocabulary, str | None]:
    """Return the vocabulary, and the chat template beside the file. Raises GGUFError, OSError."""
    data = _bytes(path)
    file = _decoded(path, data, _TokenizerFile)
    beside = path.with_name("tokenizer_config.json")
    settings = _decoded(beside, _bytes(beside), _TokenizerSettings) if beside.exists() else _TokenizerSettings()
    try:
        encode, first = file_encoder(data)
    except GGUFError as error:
        raise GGUFError(f"{path} cannot be used: {error}") from error
    entries = {key: MetadataEntry(value, 0, 0, 0) for key, value in _metadata(path, file, settings, first).items()}
    vocabulary = Vocabulary(Header(3, 32, entries, tensors=(), size=0))
    vocabulary.choose_encoder(encode)
    return vocabulary, _template(path, settings)


def _metadata(path: Path, file: _TokenizerFile, settings: _TokenizerSettings, first: Sequence[int]) -> dict[str, Value]:
    """Return the metadata. `first`: tokens that every prompt begins with."""
    texts, types = _tokens(path, file)
    bos = _id(file, settings.bos_token)
    numbers = {"bos": first[0] if bos is None and first else bos, "eos": _id(file, settings.eos_token)}
    return {
        "tokenizer.ggml.model": "gpt2" if _is_byte_level(file.decoder) else "llama",
        "tokenizer.ggml.pre": MERGE_RULES,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_bos_token": bool(first) and first[0] == numbers["bos"],
        **{f"tokenizer.ggml.{name}_token_id": id_ for name, id_ in numbers.items() if id_ is not None},
    }


def _tokens(path: Path, file: _TokenizerFile) -> tuple[list[str], list[int]]:
    """Return the texts and the types of all tokens. Ids without a token get a name that no text has."""
    vocab = file.model.vocab
    if file.model.type != "BPE" or not isinstance(vocab, dict):
        raise GGUFError(f"{path} cannot be used: its model is of the type {file.model.type!r}; only BPE is supported")
    size = 1 + max([*vocab.values(), *(each.id for each in file.added_tokens)], default=-1)
    if not 0 < size <= MAX_TOKENS:
        raise GGUFError(f"{path} cannot be used: its token ids reach {size - 1}; the limit is {MAX_TOKENS - 1}")
    texts = [f"[PAD{id_}]" for id_ in range(size)]
    types = [int(TokenType.UNUSED)] * size
    for text, id_ in vocab.items():
        texts[id_], types[id_] = text, int(_type_of_word(text, file.model.byte_fallback))
    for added in file.added_tokens:
        texts[added.id], types[added.id] = added.content, int(_type_of_added(added))
    if (unknown := vocab.get(file.model.unk_token or "")) is not None:
        types[unknown] = int(TokenType.UNKNOWN)
    return texts, types


def _type_of_added(token: _AddedToken) -> TokenType:
    return TokenType.CONTROL if token.special else TokenType.USER_DEFINED


def _type_of_word(text: str, byte_fallback: bool) -> TokenType:
    return TokenType.BYTE if byte_fallback and BYTE_NAME.fullmatch(text) else TokenType.NORMAL


def _id(file: _TokenizerFile, name: str | _NamedText | None) -> int | None:
    """Return the id of a token that the settings name."""
    text = name.content if isinstance(name, _NamedText) else name
    added = {each.content: each.id for each in file.added_tokens}
    vocab: Mapping[str, int] = file.model.vocab if isinstance(file.model.vocab, dict) else {}
    return None if text is None else added.get(text, vocab.get(text))


def _is_byte_level(decoder: Any) -> bool:
    """True if the decoder reads bytes as GPT-2's letters."""
    return "ByteLevel" in _types(decoder)


def _types(decoder: Any) -> Iterator[str]:
    if isinstance(decoder, dict):
        yield str(decoder.get("type"))
        parts: Sequence[Any] = decoder.get("decoders") or ()
        for part in parts:
            yield from _types(part)


def _template(path: Path, settings: _TokenizerSettings) -> str | None:
    file = path.with_name("chat_template.jinja")
    if file.exists():
        return _bytes(file).decode(errors="replace")
    if isinstance(settings.chat_template, list):
        named = {each.name: each.template for each in settings.chat_template}
        return named.get("default") or next(iter(named.values()), None)
    return settings.chat_template


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise GGUFError(f"{path} cannot be used: it has more than {MAX_BYTES} bytes")
    return data


def _decoded(path: Path, data: bytes, type_: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GGUFError(f"{path} cannot be used: it is not a Hugging Face tokenizer ({error})") from error
