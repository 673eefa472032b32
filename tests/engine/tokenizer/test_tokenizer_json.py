"""`tokenizer.json` gives the ids, the bytes and the template that the GGUF file of the same model gives."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

from engine.chat_template import Message
from engine.gguf import GGUFError
from engine.loader import read_tokenizer
from engine.tokenizer import BYTE_TO_UNICODE, Vocabulary
from tests.engine.tokenizer import tokenizer_files
from tests.engine.tokenizer.test_vocabulary import PLAIN
from tests.support import model_files

BYTES = list(BYTE_TO_UNICODE.values())


def byte_level(folder: Path, *, added: tuple[str, ...] = (), bos: bool = False, **settings: Any) -> Path:
    """Write a vocabulary of bytes, one merge, and three control tokens."""
    tokens = [*BYTES, "he"]
    tokenizer = Tokenizer(BPE({text: id_ for id_, text in enumerate(tokens)}, [("h", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(list(added))
    path = tokenizer_files.write(folder, tokenizer, ["<s>", "</s>", "<|im_end|>"], **settings)
    if bos:
        first = 257 + len(added)
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", first)])
        tokenizer.save(str(path))
    return path


def test_ids_bytes_and_kinds_are_those_of_the_file(tmp_path: Path) -> None:
    path = byte_level(tmp_path, added=("<think>",), bos_token="<s>", eos_token={"content": "</s>"})
    vocabulary, template = read_tokenizer(path)
    assert len(vocabulary) == 261
    assert (vocabulary.bos, vocabulary.eos, sorted(vocabulary.end_tokens)) == (258, 259, [259, 260])
    assert vocabulary.encode("hehé") == [256, *(BYTES.index(BYTE_TO_UNICODE[byte]) for byte in "hé".encode())]
    assert vocabulary.encode("<think>") == [257], "a token that is not special is ordinary text"
    assert 258 not in vocabulary.encode("<s>"), "the name of a control token is only text"
    assert vocabulary.encode_prompt("<s>he</s>") == [258, 256, 259]
    assert [vocabulary.bytes_of(id_) for id_ in (256, 257, 258)] == [b"he", b"<think>", b""]
    assert template.capabilities.tools is False


@pytest.mark.parametrize("bos", [True, False])
def test_prompt_begins_as_the_file_says(tmp_path: Path, bos: bool) -> None:
    vocabulary, _ = read_tokenizer(byte_level(tmp_path, bos=bos))
    assert vocabulary.encode_prompt("he") == ([257] if bos else []) + [256]


def test_sentencepiece_has_spaces_and_bytes(tmp_path: Path) -> None:
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("▁", "hell")]
    tokens = [each for each in model_files.SPM_TOKENS if each not in ("▁hello", "hello")]
    vocabulary, _ = read_tokenizer(tokenizer_files.sentencepiece(tmp_path, tokens, merges))
    ids = vocabulary.encode("hell\x07")
    assert ids == [tokens.index("▁hell"), tokens.index("<0x07>")]
    assert b"".join(map(vocabulary.bytes_of, ids)) == b" hell\x07"


@pytest.mark.parametrize(
    ("settings", "file", "expected"),
    [
        ({}, None, "a"),
        ({"chat_template": "one"}, None, "one"),
        ({"chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]}, None, "y"),
        ({"chat_template": [{"name": "tool_use", "template": "x"}]}, None, "x"),
        ({"chat_template": "one"}, "two", "two"),
    ],
)
def test_template_is_beside_the_file(tmp_path: Path, settings: Any, file: str | None, expected: str) -> None:
    path = byte_level(tmp_path, **settings)
    if file:
        (tmp_path / "chat_template.jinja").write_text(file)
    vocabulary, template = read_tokenizer(path)
    assert template.prompt([Message("user", "a")]) == vocabulary.encode(expected)
    _, replaced = read_tokenizer(path, "plain")
    assert replaced.prompt([Message("user", "b")]) == vocabulary.encode("b")


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"model":{"vocab":{"a":-5}}}', b"\xff\xfe", b'{"model":7}'])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(GGUFError, match="cannot be used"):
        read_tokenizer(path)


def test_vocabulary_without_merges_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    Tokenizer(Unigram([("a", -1.0)], unk_id=0)).save(str(path))
    with pytest.raises(GGUFError, match="only BPE is supported"):
        read_tokenizer(path)


@given(text=st.text(max_size=40))
def test_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    vocabulary = _shared(tmp_path_factory)
    assert b"".join(map(vocabulary.bytes_of, vocabulary.encode(text))) == text.encode()


_vocabularies: list[Vocabulary] = []


def _shared(factory: pytest.TempPathFactory) -> Vocabulary:
    if not _vocabularies:
        _vocabularies.append(read_tokenizer(byte_level(factory.mktemp("json"), added=("<think>",)))[0])
    return _vocabularies[0]


def test_smollm2_has_the_ids_of_its_gguf_file(smollm2: Path, tmp_path: Path) -> None:
    path = tokenizer_files.from_gguf(smollm2, tmp_path)
    (vocabulary, template), (other, other_template) = read_tokenizer(path), read_tokenizer(smollm2)
    assert [vocabulary.encode(text) for text, _ in PLAIN] == [ids for _, ids in PLAIN]
    assert [vocabulary.bytes_of(id_) for id_ in range(len(other))] == [other.bytes_of(id_) for id_ in range(len(other))]
    assert (vocabulary.end_tokens, vocabulary.bos, vocabulary.control_ids) == (
        other.end_tokens,
        other.bos,
        other.control_ids,
    )
    said = [Message("user", "Hello <|im_end|>")]
    assert template.prompt(said) == other_template.prompt(said)
