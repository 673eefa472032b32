"""The tokenizer of the engine that has loaded the model, in place of our own."""

from pathlib import Path
from typing import Any, cast

import pytest

from engine.backends import selection
from engine.backends.llamacpp.library import Library
from engine.backends.llamacpp.tokenizer import NativeTokenizer
from engine.gguf import reader
from engine.tokenizer import Vocabulary
from engine.tokenizer.encoders import MAX_RUN, PRE_TOKENIZERS, native_encoder, with_short_runs
from tests.rows import thinned
from tests.support import model_files

TEXTS = ["", "hello  world 42!", "a\n\n b", "Größe 日本語 🎉", "\0<|im_end|>", " x" * 300, "=" * 50_000, " " * 50_000]


def written(path: Path, pre: str) -> Path:
    return model_files.spm(path) if pre == "spm" else model_files.bpe(path, pre=pre)


@pytest.mark.slow
@pytest.mark.parametrize("pre", ["spm", *PRE_TOKENIZERS])
def test_vocabulary_with_the_engines_encoder_gives_the_same_ids(pre: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf", pre)
    ours, theirs = Vocabulary(reader.read(path)), Vocabulary(reader.read(path))
    theirs.choose_encoder(selection.native_tokenizer(path, None))
    assert [theirs.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]


class TwiceTokenizing:
    """A library with two tokens for each byte of a text."""

    def llama_model_get_vocab(self, model: int) -> int:
        return model

    def llama_vocab_n_tokens(self, vocab: int) -> int:
        return 256

    def llama_tokenize(
        self, vocab: int, text: bytes, length: int, ids: Any, size: int, special: bool, parse_special: bool
    ) -> int:
        if 2 * length > size:
            return -2 * length
        ids[: 2 * length] = [byte for byte in text for _ in range(2)]
        return 2 * length


@pytest.mark.parametrize("text", ["", "a", "abcd"])
def test_native_tokenizer_with_more_tokens_than_bytes_returns_all(text: str) -> None:
    tokenizer = NativeTokenizer(cast(Library, TwiceTokenizing()), 1)
    assert tokenizer(text) == [byte for byte in text.encode() for _ in range(2)]


def test_own_encoder_for_a_default_pre_tokenizer_is_ours(tmp_path: Path) -> None:
    assert native_encoder(reader.read(written(tmp_path / "model.gguf", "default")), lambda text: []) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "character", thinned({"letter": "a", "sign": "=", "digit": "1", "han": "中", "space": " ", "line": "\n"})
)
def test_encode_of_a_long_run_by_std_regex_does_not_crash(character: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf", "deepseek-llm")
    vocabulary = Vocabulary(reader.read(path), lambda: selection.native_tokenizer(path, None))
    text = character * 100_000
    assert b"".join(map(vocabulary.bytes_of, vocabulary.encode(text))) == text.encode()


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("a b" * 9000, [27_000]),
        ("a" * (MAX_RUN - 1), [MAX_RUN - 1]),
        ("a" * (2 * MAX_RUN + 1), [MAX_RUN, MAX_RUN, 1]),
        ("  " + "a" * (MAX_RUN + 1) + " b ", [MAX_RUN + 2, 1, 2, 1]),
        (" " * (2 * MAX_RUN) + "a", [MAX_RUN, MAX_RUN + 1]),
    ],
)
def test_short_runs_are_the_whole_text(text: str, lengths: list[int]) -> None:
    pieces: list[str] = []

    def encode(piece: str) -> list[int]:
        pieces.append(piece)
        return [len(piece)]

    assert with_short_runs(encode)(text) == lengths
    assert "".join(pieces) == text
