"""`tokenizer.vocabulary` against ids from llama.cpp, and against the tokenizer inside ctransformers."""

import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.backends.ctransformers.model import Ctransformers
from engine.backends.llamacpp import library as libllama
from engine.gguf import reader
from engine.gguf.header import GGUFError
from engine.loader import Options, load
from engine.tokenizer.entries import TokenType
from engine.tokenizer.vocabulary import Vocabulary
from tests.support import model_files
from tests.support.model_files import SPM_SCORES, SPM_TOKENS, SPM_TYPES

# (text, ids) by llama.cpp b11549 (xllamacpp 2026.10), SmolLM2-135M-Instruct: `llama_tokenize` with add_special and
# parse_special off, as for what people write.
PLAIN: list[tuple[str, list[int]]] = [
    ("Hello", [19556]),
    ("Hello, world!", [19556, 28, 905, 17]),
    (" leading and trailing ", [2899, 284, 35079, 216]),
    ("two  three   four    spaces", [11355, 216, 1296, 256, 1876, 333, 5600]),
    ("a\nb\n\nc\n\n\nd", [81, 198, 82, 198, 198, 83, 1116, 198, 84]),
    ("\n", [198]),
    ("\t\ttabs\tand \n mixed \r\n lines\r\n", [197, 197, 100, 7366, 197, 397, 3717, 6468, 216, 2738, 3204, 2738]),
    ("      ", [5013]),
    ("1234567890", [33, 34, 35, 36, 37, 38, 39, 40, 41, 32]),
    (
        "In 2024, 3.14159 and 1,000,000",
        [
            *(788, 216, 34, 32, 34, 36, 28, 216, 35, 30, 33, 36, 33),
            *(37, 41, 284, 216, 33, 28, 32, 32, 32, 28, 32, 32, 32),
        ],
    ),
    ("v1.2.3-rc4 0x7fff", [102, 33, 30, 34, 30, 35, 29, 6506, 36, 216, 32, 104, 39, 484, 86]),
    (
        "it's we're they've I'm she'll he'd can't",
        [269, 506, 392, 2316, 502, 3543, 339, 5248, 1041, 3060, 384, 6737, 416, 982],
    ),
    ("IT'S WE'RE", [2901, 23, 67, 26587, 23, 3256]),
    ("don’t", [12420, 417, 100]),
    (
        "def f(x):\n    return x ** 2  # square\n",
        [1604, 275, 24, 104, 727, 472, 1003, 1792, 1903, 216, 34, 216, 907, 5222, 198],
    ),
    (
        "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
        [
            *(1710, 365, 591, 2056, 446, 216, 32, 43, 2056, 2067, 304, 43, 1232, 27),
            *(89, 25, 1662, 253, 75, 89, 77, 4519, 278, 75, 89, 26695, 4029),
        ],
    ),
    ('{"key": [1, 2.5, null]}', [39428, 2393, 1799, 933, 33, 28, 216, 34, 30, 37, 28, 10034, 28852]),
    (
        "https://example.org/a?b=c&d=%20e#f",
        [4687, 1742, 7434, 30, 2295, 31, 81, 47, 82, 45, 83, 22, 84, 23446, 34, 32, 85, 19, 86],
    ),
    (
        "日本語のテキストです。",
        [
            *(23274, 115, 40993, 179, 120, 248, 26453, 11100, 224, 10391),
            *(251, 10391, 134, 11100, 226, 7365, 117, 39958, 19076),
        ],
    ),
    ("中文分词", [28589, 29184, 37349, 16313, 231]),
    ("한국어 문장", [33085, 246, 181, 130, 251, 183, 240, 129, 25947, 122, 133, 183, 248, 115]),
    ("Привет, мир", [155, 249, 46879, 16464, 32547, 28, 41337, 7872, 9175]),
    (
        "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd \u0645\u0631\u062d\u0628\u0627",
        [38229, 31838, 23970, 162, 247, 12960, 112, 23970, 31838, 162, 247, 36395, 20602, 44626, 31462, 10805],
    ),
    ("Größe und Übermut, café", [27302, 7466, 34878, 85, 3423, 5549, 246, 593, 22258, 28, 37366]),
    ("e\u0301 n\u0303", [85, 151, 219, 304, 151, 221]),
    (
        "\U0001f44b\U0001f3fd \U0001f469\u200d\U0001f4bb \U0001f1eb\U0001f1f7",
        [
            *(10813, 235, 229, 10813, 233, 138, 15107, 235, 119, 321),
            *(231, 10813, 236, 136, 15107, 225, 121, 10813, 225, 132),
        ],
    ),
    ("🤖🤖🤖", [10813, 114, 240, 10813, 114, 240, 10813, 114, 240]),
    ("x\u200by\xa0z\u3000w", [104, 321, 229, 105, 15442, 106, 12109, 218, 103]),
    ("\u0663\u0664\u0665 \xbd \xb2", [164, 113, 164, 114, 164, 115, 216, 16738, 216, 19133]),
    ("\x00\x01\x7f", [190, 191, 217]),
    ("ﬁ ① Ⅷ", [27141, 216, 173, 235, 250, 216, 173, 223, 117]),
    (
        "<|im_start|>system\nYou obey.<|im_end|>",
        [44, 108, 306, 79, 3738, 108, 46, 9690, 198, 2683, 18328, 15602, 108, 306, 79, 486, 108, 46],
    ),
    ("<|endoftext|>", [44, 108, 486, 1714, 2692, 108, 46]),
    ("<repo_name><file_sep>", [44, 22139, 79, 1245, 21198, 2153, 79, 29070, 46]),
    ("!!!???...---===", [29646, 16693, 47, 2026, 5583, 28733]),
    ("ĠĊ", [143, 250, 143, 228]),
    ("supercalifragilisticexpialidocious", [14174, 5020, 342, 1808, 301, 40482, 104, 96, 409, 311, 42288]),
    ("", []),
    ("Hello 👋 world 123abc456", [19556, 15107, 235, 229, 905, 216, 33, 34, 35, 25276, 36, 37, 38]),
    ("'s 's's '", [506, 637, 99, 506, 637]),
    (
        "#include <stdio.h>\n\n\tint main(void);",
        [19, 21745, 2067, 10491, 1119, 30, 88, 46, 1116, 197, 591, 1085, 24, 32439, 4258],
    ),
]

# (text, ids) with both on, as for a rendered template.
PROMPTS: list[tuple[str, list[int]]] = [
    (
        (
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        ),
        [
            *(1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411),
            *(407, 19712, 8182, 2, 198, 1, 4093, 198, 19556, 2, 198, 1, 520, 9531, 198),
        ],
    ),
    (
        "<|im_start|>user\n  What is 2+2?\n<|im_end|>\n<|im_start|>assistant\n",
        [1, 4093, 3805, 1812, 314, 216, 34, 27, 34, 47, 198, 2, 198, 1, 520, 9531, 198],
    ),
    ("<|im_end|><|im_end|>", [2, 2]),
    ("plain", [21062]),
    ("a <|endoftext|> b", [81, 216, 0, 278]),
    ("<|im_start|", [44, 108, 306, 79, 3738, 108]),
    ("<repo_name>x/y<file_sep>z.py\n", [3, 104, 31, 105, 5, 106, 30, 1306, 198]),
    ("<|im_start|><|im_start|>user", [1, 1, 4093]),
]

# (text, ids) by the same llama.cpp, of the small SentencePiece model with three user-defined tokens at its end.
USER_DEFINED = ["<tool>", "hello world", "▁x"]
WITH_PREFIX: list[tuple[str, list[int]]] = [
    ("hello world", [330]),
    ("a<tool>b", [293, 329, 259, 261]),
    ("<tool> the", [329, 259, 295]),
    ("say hello world!", [299, 260, 284, 259, 330, 259, 288]),
    ("the <tool> x", [295, 259, 329, 259, 331]),
    ("▁x", [331]),
    (" x", [259, 331]),
    ("<s>a</s> b", [259, 63, 278, 65, 260, 63, 50, 278, 65, 259, 261]),
    ("<s>the", [259, 63, 278, 65, 279, 292]),
    ("a<s> the", [293, 63, 278, 65, 295]),
    ("👋 日本", [259, 243, 162, 148, 142, 259, 290, 233, 159, 175]),
    ("the  the", [295, 259, 295]),
    ("<0x41>", [259, 63, 51, 283, 55, 52, 65]),
]
WITHOUT_PREFIX: list[tuple[str, list[int]]] = [
    ("hello world", [330]),
    ("a<tool>b", [260, 329, 261]),
    ("say hello world!", [278, 260, 284, 259, 330, 288]),
    ("the <tool> x", [279, 292, 259, 329, 331]),
    ("▁x", [331]),
    (" x", [331]),
]
SPM_PROMPTS: list[tuple[str, list[int]]] = [
    ("hello world", [1, 330]),
    ("a<tool>b", [1, 293, 329, 259, 261]),
    ("a<s> the", [1, 293, 1, 259, 295]),
]


# Bytes for which SmolLM2 has no token (its training text had none): they are dropped, in llama.cpp as well.
UNKNOWN = bytes.fromhex("04 06 13 14 16 1d c0 c1 f1 f2 f5 f6 f7 f8 f9 fa fb fc fd fe ff")
LOSSY: list[tuple[str, list[int]]] = [
    ("\x06", []),
    ("a\x06b", [81, 82]),
    ("\U00040000", [218, 218, 218]),
    ("hel\x06lo", [2797, 5365]),
    ("\x04 the", [260]),
]


@pytest.fixture(scope="module")
def smol(smollm2: Path) -> Vocabulary:
    return Vocabulary(reader.read(smollm2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vocabulary")


@pytest.fixture(scope="module")
def spm(folder: Path) -> Vocabulary:
    return Vocabulary(reader.read(model_files.spm(folder / "spm.gguf")))


def user_defined(folder: Path, *, prefix: bool) -> Vocabulary:
    path = model_files.spm(
        folder / "user_defined.gguf",
        tokens=SPM_TOKENS + USER_DEFINED,
        types=SPM_TYPES + [int(TokenType.USER_DEFINED)] * 3,
        scores=SPM_SCORES + [0.0] * 3,
        flags={"add_space_prefix": prefix},
    )
    return Vocabulary(reader.read(path))


def shown(vocabulary: Vocabulary, ids: list[int]) -> bytes:
    return b"".join(map(vocabulary.bytes_of, ids))


def test_encode_of_plain_text_equals_llama_cpp(smol: Vocabulary) -> None:
    assert len(PLAIN) >= 40
    assert [(text, smol.encode(text)) for text, _ in PLAIN] == PLAIN


def test_encode_of_bytes_without_a_token_drops_them_as_llama_cpp(smol: Vocabulary) -> None:
    assert [(text, smol.encode(text)) for text, _ in LOSSY] == LOSSY
    alone = {smol.bytes_of(id_) for id_ in range(smol.size)}
    assert bytes(byte for byte in range(256) if bytes([byte]) not in alone) == UNKNOWN


def test_encode_prompt_equals_llama_cpp(smol: Vocabulary) -> None:
    assert [(text, smol.encode_prompt(text)) for text, _ in PROMPTS] == PROMPTS
    assert [(text, smol.encode_prompt(text)) for text, _ in PROMPTS] == PROMPTS, "and from memory"


def test_vocabulary_of_smollm2_has_its_special_tokens(smol: Vocabulary) -> None:
    assert (smol.size, smol.bos, smol.eos) == (49152, 1, 2)
    assert smol.end_tokens == frozenset({0, 2})
    assert (smol.name_of(1), smol.name_of(2), smol.name_of(None)) == ("<|im_start|>", "<|im_end|>", "")
    assert shown(smol, list(range(17))) == b""


@pytest.mark.parametrize("eos", ["</s>", "<|end|>"])
@pytest.mark.parametrize(
    ("names", "ends"),
    [
        (["<|assistant|>"], ["<|end|>"]),
        (["<|call|>"], ["<|call|>", "<|end|>"]),
        (["<|call|>", "<|return|>"], ["<|call|>", "<|return|>"]),
        (["<|calls|>", "<|flush|>"], ["<|calls|>", "<|flush|>"]),
    ],
)
def test_end_tokens_exclude_the_end_of_a_message_as_llama_cpp(
    tmp_path: Path, names: list[str], ends: list[str], eos: str
) -> None:
    """gpt-oss and Solar Open reason in a message of its own."""
    other = ({"</s>", "<|end|>"} - {eos}).pop()
    tokens = [*(eos if token == "</s>" else token for token in model_files.BPE_TOKENS), *names, other]
    types = [*model_files.BPE_TYPES, *(int(TokenType.CONTROL) for _ in [*names, other])]
    path = model_files.bpe(tmp_path / "model.gguf", tokens=tokens, types=types)
    vocabulary = Vocabulary(reader.read(path))
    library = libllama.load()
    library.declare("llama_vocab_is_eog", ctypes.c_bool, [ctypes.c_void_p, ctypes.c_int32])
    model = library.llama_model_load_from_file(str(path).encode(), library.model_params())
    vocab = library.llama_model_get_vocab(model)
    found = {id_ for id_ in range(vocabulary.size) if library.llama_vocab_is_eog(vocab, id_)}
    library.llama_model_free(model)
    assert vocabulary.end_tokens == found
    assert {tokens[id_] for id_ in found} - {"</s>"} == set(ends)


def known(text: str) -> bytes:
    return text.encode().translate(None, delete=UNKNOWN)


control_names = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<empty_output>"]
texts = st.one_of(st.text(), st.lists(st.one_of(st.sampled_from(control_names), st.text(max_size=3))).map("".join))


@given(texts)
def test_encode_of_any_text_loses_no_byte_and_gives_no_control_token(smol: Vocabulary, text: str) -> None:
    ids = smol.encode(text)
    assert shown(smol, ids) == known(text)
    assert all(id_ > 16 for id_ in ids)


@given(texts)
def test_encode_prompt_splits_only_at_control_token_names(smol: Vocabulary, text: str) -> None:
    ids = smol.encode_prompt(text)
    names = [smol.name_of(id_) for id_ in ids if id_ <= 16]
    assert names == smol.control.findall(text)
    assert shown(smol, ids) == known(smol.control.sub("", text))


def test_encode_of_every_tokens_bytes_decodes_to_the_same_bytes(smol: Vocabulary) -> None:
    for id_ in range(17, smol.size, 97):
        raw = smol.bytes_of(id_)
        assert raw
        if (text := raw.decode(errors="replace")).encode() == raw:
            assert shown(smol, smol.encode(text)) == raw


# Texts for the library's own tokenizer. It knows no control tokens, so none are named here.
SPM_TEXTS = [
    *("hello world", "  hello   world", " ", "    ", "the thing and the world", "worhello", "andand and", "A B"),
    *(
        "the 3 aaaaa aaaaaaa",
        "aaa aaaa aaaaaa",
        "日日 日é éé",
        "日本",
        "👋🏽",
        "\n\nx",
        "a\tb\r\n",
        "▁x",
        "▁▁ ▁",
        "....",
    ),
    *(
        "it is on",
        "hellohello",
        "a\x01\x7f",
        "Größe",
        "ing ing",
        "x" * 50,
        "hell hello the there then",
        "<0x41>",
        "é日é日",
    ),
]
PARTS = ["a", "he", "l", "o", " ", "  ", "world", "the", " and", "aa", "日", "é", "Z", "👋", "."]


@pytest.fixture(scope="module")
def loaded_as_it_is(folder: Path) -> tuple[Vocabulary, Ctransformers]:
    path, cache = model_files.spm(folder / "as_it_is.gguf"), folder / "cache"
    loaded = load(path, Options(n_slots=1, engine="ctransformers"), cache)
    assert sorted(each.name for each in cache.iterdir()) == ["ledger.json"]  # nothing was rewritten
    assert isinstance(loaded.model, Ctransformers)
    return loaded.vocabulary, loaded.model


def ids_of_the_library(model: Ctransformers, text: str) -> list[int]:
    raw = text.encode()
    buffer = (ctypes.c_int * (len(raw) + 8))()
    return buffer[: model._slots[0].ctransformers_llm_tokenize(raw, True, buffer)]


@pytest.mark.slow
@pytest.mark.ctransformers
@pytest.mark.parametrize("text", SPM_TEXTS)
def test_encode_by_sentencepiece_equals_the_library(
    loaded_as_it_is: tuple[Vocabulary, Ctransformers], text: str
) -> None:
    vocabulary, model = loaded_as_it_is
    assert vocabulary.encode_prompt(text) == ids_of_the_library(model, text)


@pytest.mark.slow
@pytest.mark.ctransformers
@given(st.lists(st.sampled_from(PARTS)))
def test_encode_of_any_text_by_sentencepiece_equals_the_library(
    loaded_as_it_is: tuple[Vocabulary, Ctransformers], parts: list[str]
) -> None:
    vocabulary, model = loaded_as_it_is
    text = "".join(["a", *parts])
    assert vocabulary.encode_prompt(text) == ids_of_the_library(model, text)


def test_encode_with_user_defined_tokens_splits_there_and_prefixes_each_part(tmp_path: Path) -> None:
    vocabulary = user_defined(tmp_path, prefix=True)
    assert [(text, vocabulary.encode(text)) for text, _ in WITH_PREFIX] == WITH_PREFIX
    assert [(text, vocabulary.encode_prompt(text)) for text, _ in SPM_PROMPTS] == SPM_PROMPTS


def test_encode_without_space_prefix_adds_none(tmp_path: Path) -> None:
    vocabulary = user_defined(tmp_path, prefix=False)
    assert [(text, vocabulary.encode(text)) for text, _ in WITHOUT_PREFIX] == WITHOUT_PREFIX


def test_encode_prompt_prepends_the_bos_once(spm: Vocabulary) -> None:
    """llama.cpp adds a second BOS and warns; a template that writes it itself never intends two."""
    assert spm.encode_prompt("<s>hello") == spm.encode_prompt("hello") == [1, *spm.encode("hello")]
    assert spm.encode_prompt("hello</s>") == [1, *spm.encode("hello"), 2]


def test_encode_prompt_without_add_bos_prepends_none(folder: Path) -> None:
    vocabulary = Vocabulary(reader.read(model_files.spm(folder / "bare.gguf", flags={"add_bos_token": False})))
    assert vocabulary.encode_prompt("hello") == vocabulary.encode("hello")
    assert vocabulary.encode_prompt("<s><s>hello") == [1, 1, *vocabulary.encode("hello")]


@given(st.text())
def test_encode_by_sentencepiece_loses_no_byte(spm: Vocabulary, text: str) -> None:
    ids = spm.encode(text)
    assert shown(spm, ids) == (f" {text}" if text else "").replace("▁", " ").encode()
    assert all(id_ > 2 for id_ in ids)


@pytest.mark.parametrize(
    ("id_", "expected"),
    [(0, b""), (1, b""), (2, b""), (3, b"\x00"), (3 + 0x41, b"A"), (3 + 255, b"\xff"), (259, b" "), (260, b"a")],
)
def test_bytes_of_sentencepiece_tokens_are_exact(spm: Vocabulary, id_: int, expected: bytes) -> None:
    assert spm.bytes_of(id_) == expected


@given(st.binary() | st.text().map(str.encode))
def test_encode_bytes_decodes_to_the_same_bytes(smol: Vocabulary, spm: Vocabulary, data: bytes) -> None:
    data = data.translate(None, delete=UNKNOWN)
    for vocabulary in (smol, spm):
        assert b"".join(map(vocabulary.bytes_of, vocabulary.encode_bytes(data))) == data


def test_encode_bytes_of_a_text_adds_no_space_prefix(spm: Vocabulary) -> None:
    assert spm.encode_bytes(b" hello") == spm.encode("hello")
    assert b"".join(map(spm.bytes_of, spm.encode_bytes(b"hello"))) == b"hello"


def test_token_index_finds_tokens_by_their_bytes(smol: Vocabulary) -> None:
    texts = [smol.bytes_of(id_) for id_ in range(len(smol))]
    found = smol.token_index
    assert sorted(found.starting_with(b">\n")) == [id_ for id_, text in enumerate(texts) if text.startswith(b">\n")]
    assert list(smol.tokens_containing(b"ool")) == [id_ for id_, text in enumerate(texts) if b"ool" in text]
    assert list(found.starting_with(b"\xff\xff")) == []


def test_vocabulary_of_another_kind_raises(tmp_path: Path) -> None:
    header = reader.read(model_files.spm(tmp_path / "other.gguf", kind="t5"))
    with pytest.raises(GGUFError, match=r"of kind 't5'; supported are 'gpt2' and 'llama'$"):
        Vocabulary(header)


@pytest.mark.parametrize("name", ["<start_function_response>", "<|tool_response>"])
def test_end_tokens_include_the_token_behind_gemmas_calls(tmp_path: Path, name: str) -> None:
    """It begins the output, which the server writes: "an additional stop sequence" in FunctionGemma's documentation."""
    tokens, types = [*model_files.BPE_TOKENS, name], [*model_files.BPE_TYPES, int(TokenType.CONTROL)]
    path = model_files.bpe(tmp_path / "model.gguf", tokens=tokens, types=types)
    assert len(tokens) - 1 in Vocabulary(reader.read(path)).end_tokens
