"""Files of Hugging Face's tokenizers: `tokenizer.json` with its settings, made from a vocabulary of this server."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from engine.gguf import reader
from engine.tokenizer.encoders import PRE_TOKENIZERS
from engine.tokenizer.entries import TokenType, token_entries


def from_gguf(model: Path, folder: Path) -> Path:
    """Write the byte-level vocabulary of a GGUF file as `tokenizer.json`, with its template; return its path."""
    header = reader.read(model)
    entries = token_entries(header)
    special = [entries.texts[id_] for id_ in entries.of_types(TokenType.CONTROL)]
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in header.texts(MERGES))]
    tokenizer = Tokenizer(BPE({text: id_ for id_, text in enumerate(entries.texts)}, merges))
    cuts = [
        pre_tokenizers.Split(Regex(pattern), "isolated")
        for pattern in PRE_TOKENIZERS[header.text("tokenizer.ggml.pre", "default")]
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    names = {name: entries.texts[id_] for name in ("bos", "eos") if (id_ := header.token_id(name)) is not None}
    settings = {f"{name}_token": text for name, text in names.items()}
    return write(folder, tokenizer, special, chat_template=header.text("tokenizer.chat_template"), **settings)


def sentencepiece(folder: Path, tokens: Sequence[str], merges: Sequence[tuple[str, str]], **settings: Any) -> Path:
    """Write a vocabulary with bytes of last resort, as Llama 2 has it; return the path."""
    vocabulary = {text: id_ for id_, text in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocabulary, list(merges), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return write(folder, tokenizer, ["<unk>", "<s>", "</s>"], **settings)


def write(folder: Path, tokenizer: Tokenizer, special: Sequence[str], **settings: Any) -> Path:
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


MERGES = "tokenizer.ggml.merges"
