"""`tokenizer.pieces`: the ids of a text's pieces, joined, are the ids of the whole text."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from engine.backends.llamacpp import library as libllama
from engine.backends.llamacpp.model import load_file
from engine.backends.llamacpp.tokenizer import NativeTokenizer
from engine.gguf import reader
from engine.tokenizer import pieces
from engine.tokenizer.encoders import PRE_TOKENIZERS
from engine.tokenizer.entries import TokenType
from engine.tokenizer.vocabulary import MAX_CACHED_CHARACTERS, PIECE_CHARACTERS, Vocabulary
from tests.support import model_files
from tests.support.model_files import SPM_SCORES, SPM_TOKENS, SPM_TYPES

PARTS = [
    *(
        "a",
        "Hello",
        "the",
        "don't",
        "'s",
        "'S",
        "'ſ",
        "é",
        "e\u0301",
        "1",
        "2024",
        "日本",
        "한",
        "か",
        "Привет",
        "שלום",
        "👋🏽",
    ),
    *(" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u200d", "\x1c", "\x85", "\u180e"),
    *(
        ".",
        ",",
        "...",
        '"',
        "'",
        "(",
        "[",
        "{",
        "/",
        "+",
        "=",
        "<",
        "。",
        "，",
        "、",
        "！",
        "▁",
        "▁▁",
        "<0x41>",
        "\u0378",
    ),
    *("<|im_start|>", "<|im_end|>", "<end_of_turn>", "<bos>", "<s>", "<tool>", "[multimodal]", "</b>", "world", "x"),
]
texts = st.one_of(st.text(), st.lists(st.sampled_from(PARTS), max_size=40).map("".join))
least = st.integers(1, 8)


def joined(vocabulary: Vocabulary, text: str, least: int) -> list[int]:
    return [id_ for piece in vocabulary.pieces(text, least) for id_ in vocabulary.encode(piece)]


def both_encoders(path: Path) -> Iterator[list[Vocabulary]]:
    """Yield the vocabulary with our own encoder, and with llama.cpp's."""
    ours, native = Vocabulary(reader.read(path)), Vocabulary(reader.read(path))
    library = libllama.load()
    model = load_file(library, path, vocab_only=True)
    ours.choose_encoder()
    native.choose_encoder(NativeTokenizer(library, model))
    yield [ours, native]
    library.llama_model_free(model)


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> Iterator[list[Vocabulary]]:
    yield from both_encoders(smollm2)


@pytest.fixture(scope="module")
def gemma(gemma3: Path) -> Iterator[list[Vocabulary]]:
    yield from both_encoders(gemma3)


@given(texts, least)
def test_pieces_have_the_ids_of_the_whole_with_smollm2(smol: list[Vocabulary], text: str, least: int) -> None:
    assert [joined(each, text, least) for each in smol] == [each.encode(text) for each in smol]


@settings(max_examples=30)  # each takes 40 ms
@given(texts, least)
def test_pieces_have_the_ids_of_the_whole_with_gemma3(gemma: list[Vocabulary], text: str, least: int) -> None:
    assert [joined(each, text, least) for each in gemma] == [each.encode(text) for each in gemma]


def words(patterns: Sequence[str], text: str) -> list[str]:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return [word for word, _ in pre_tokenizers.Sequence(splits).pre_tokenize_str(text)]


@pytest.mark.slow
@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@given(texts, least)
@example("don't", 3)
@example("a\n\nb", 1)
@example("a  b", 1)
@example("!\n\nb 1234567", 1)
def test_pieces_have_the_words_of_the_whole(name: str, text: str, least: int) -> None:
    """Every pre-tokenizer: no merge crosses the edge of a word, so the ids are equal as well."""
    cut = list(pieces.word_pieces([])(text, least))
    assert "".join(cut) == text
    assert [word for piece in cut for word in words(PRE_TOKENIZERS[name], piece)] == words(PRE_TOKENIZERS[name], text)


USER_DEFINED = ["<tool>", "hello world", "▁x", "the the", "日。"]


def with_user_defined(path: Path, *, prefix: bool, more: Sequence[str] = ()) -> Vocabulary:
    tokens = [*USER_DEFINED, *more]
    model_files.spm(
        path,
        tokens=SPM_TOKENS + tokens,
        types=SPM_TYPES + [int(TokenType.USER_DEFINED)] * len(tokens),
        scores=SPM_SCORES + [0.0] * len(tokens),
        flags={"add_space_prefix": prefix},
    )
    return Vocabulary(reader.read(path))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Vocabulary]:
    folder = tmp_path_factory.mktemp("pieces")
    bpe = model_files.bpe(folder / "bpe.gguf")
    return [
        with_user_defined(folder / "prefix.gguf", prefix=True),
        with_user_defined(folder / "plain.gguf", prefix=False),
        with_user_defined(folder / "space.gguf", prefix=True, more=[" the", "  "]),
        Vocabulary(reader.read(model_files.spm(folder / "spm.gguf"))),
        Vocabulary(reader.read(bpe)),
    ]


@pytest.mark.slow
@given(
    st.one_of(texts, st.lists(st.sampled_from([*USER_DEFINED, "hello", "the", " ", "a", "日", "。"])).map("".join)),
    least,
)
@example("hello hello world the the x", 1)
@example("a the  the", 1)
def test_pieces_have_the_ids_of_the_whole_with_small_vocabularies(
    small: list[Vocabulary], text: str, least: int
) -> None:
    assert [joined(each, text, least) for each in small] == [each.encode(text) for each in small]


CUT = [
    ("hello world, hello", ["hello", " world", ", hello"], ["hello", "world,", "hello"]),
    ('{"hello":"world"}', ['{"hello', '":"world', '"}'], ['{"hello":"world"}']),
    ("日本。日本。", ["日本", "。日本", "。"], ["日本。日本。"]),
    ("aaaaaaaaaaaaaaaa", ["aaaaaaaaaaaaaaaa"], ["aaaaaaaaaaaaaaaa"]),
    ("", [""], [""]),
]


@pytest.mark.parametrize(("text", "by_words", "by_tokens"), CUT)
def test_pieces_end_at_the_first_place_behind_the_least_length(
    small: list[Vocabulary], text: str, by_words: list[str], by_tokens: list[str]
) -> None:
    assert list(small[4].pieces(text, 2)) == by_words
    assert list(small[3].pieces(text, 2)) == by_tokens


def test_pieces_of_an_unknown_pre_tokenizer_are_the_whole_text() -> None:
    assert list(pieces.whole("hello world", 1)) == ["hello world"]


@pytest.mark.slow
def test_encode_prompt_calls_its_bound_before_each_piece(small: list[Vocabulary]) -> None:
    vocabulary, text = small[4], "hello world " * (MAX_CACHED_CHARACTERS // 6)
    counts: list[int] = []
    ids = vocabulary.encode_prompt(f"<s>{text}</s>hello", bound=counts.append)
    assert len(counts) == 2 + -(-len(text) // (PIECE_CHARACTERS + 5))
    assert counts == sorted(counts)
    assert counts[0] <= 1
    assert counts[-1] < len(ids)
    assert ids == [1, *vocabulary.encode(text), 2, *vocabulary.encode("hello")]


def test_encode_prompt_stops_where_progress_raises(small: list[Vocabulary]) -> None:
    counts: list[int] = []

    def stop(count: int) -> None:
        counts.append(count)
        if count > 1000:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        small[4].encode_prompt("hello world " * MAX_CACHED_CHARACTERS, bound=stop)
    assert len(counts) == 2
