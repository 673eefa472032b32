"""The ids of a text, word by word, are the ids of the whole text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given

from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp.tokenizer import NativeTokenizer
from engine.gguf import reader
from engine.tokenizer import word_cache
from engine.tokenizer.pieces import word_pieces, words_of
from engine.tokenizer.vocabulary import Vocabulary
from engine.tokenizer.word_cache import WordCache
from tests.engine.tokenizer.test_pieces import texts


@pytest.fixture(scope="module")
def native(smollm2: Path) -> Iterator[tuple[NativeTokenizer, WordCache]]:
    library = libllama.load()
    model = library.llama_model_load_from_file(str(smollm2).encode(), library.model_params())
    tokenizer = NativeTokenizer(library, model)
    yield tokenizer, WordCache(tokenizer, Vocabulary(reader.read(smollm2)).bytes_of)
    library.llama_model_free(model)


@given(texts, texts)
def test_texts_have_the_ids_of_the_encoder(native: tuple[NativeTokenizer, WordCache], one: str, other: str) -> None:
    """The cache has the words of all earlier texts."""
    encode, cached = native
    for text in (one, other, one + other, one + other):
        assert cached(text) == encode(text)


@given(texts)
def test_words_are_all_pieces(text: str) -> None:
    assert words_of(text) == list(word_pieces([])(text, 1))


class Letters:
    """An encoder with a token for each byte, and one for "ab"; it counts its calls."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> list[int]:
        self.texts.append(text)
        return [256 if byte == 1 else byte for byte in text.encode().replace(b"ab", b"\x01")]

    @staticmethod
    def bytes_of(id_: int) -> bytes:
        return b"ab" if id_ == 256 else bytes([id_])


def test_words_that_have_occurred_are_not_encoded_again() -> None:
    letters = Letters()
    encode = WordCache(letters, letters.bytes_of)
    for text in ("ab one two", "ab six one", " two six one", ""):
        assert encode(text) == Letters()(text)
    assert letters.texts == ["ab one two", " six", ""]


def test_long_texts_and_long_words_are_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "MAX_CHARACTERS", 50)
    letters = Letters()
    encode = WordCache(letters, letters.bytes_of)
    for text in ("a" * 40, "a " * 30):
        for _ in range(2):
            assert encode(text) == Letters()(text)
    assert len(letters.texts) == 4


def test_number_of_cached_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_cache, "MAX_WORDS", 10)
    letters = Letters()
    encode = WordCache(letters, letters.bytes_of)
    for n in range(100):
        assert encode(f"word{n} ab{n}") == Letters()(f"word{n} ab{n}")
        assert len(encode._ids) <= 10


def test_words_after_bytes_that_no_token_has_are_not_cached() -> None:
    letters = Letters()
    encode = WordCache(letters, lambda id_: b"?" if id_ == ord("x") else letters.bytes_of(id_))
    for _ in range(2):
        assert encode("a x b") == Letters()("a x b")
    assert letters.texts == ["a x b", " x b"]
