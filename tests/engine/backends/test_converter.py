"""The converter, checked by the `gguf` library: today's small models in, files of 2023 out."""

import io
from pathlib import Path
from typing import Any

import gguf as oracle
import msgspec
import numpy as np
import pytest

from engine.backends.ctransformers import converter
from engine.gguf import GGUFError, Header, reader
from engine.tokenizer.byte_alphabet import BYTE_TO_UNICODE, UNICODE_TO_BYTE

SPECIAL = ["<|im_end|>", "<｜end▁of▁sentence｜>", "two words"]
TOKENS = [*BYTE_TO_UNICODE.values(), "Ġthe", "æĹ¥", *SPECIAL]
RAW = [*(bytes([byte]) for byte in range(256)), b" the", "日".encode(), *(each.encode() for each in SPECIAL)]
ZEROS = [0.0] * len(TOKENS)
EMBEDDING = np.arange(len(TOKENS) * 3, dtype=np.float32).reshape(len(TOKENS), 3)
NORM = np.array([1, 2, 3], np.float16)

LETTERS = "its tokens are in GPT-2's letters for bytes"
NO_SCORES = "its tokens have no scores"
TIED = "it has no output matrix of its own"


def write(
    path: Path,
    *,
    model: str = "gpt2",
    tokens: list[str] | list[bytes] = TOKENS,
    scores: bool = False,
    tied: bool = True,
    alignment: int | None = None,
) -> Header:
    writer = oracle.GGUFWriter(path, "llama")
    writer.add_head_count(3)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    if scores:
        writer.add_token_scores(ZEROS)
    writer.add_eos_token_id(256)
    writer.add_chat_template("{% for message in messages %}…{% endfor %}")
    writer.add_tensor("token_embd.weight", EMBEDDING)
    writer.add_tensor("output_norm.weight", NORM)
    if not tied:
        writer.add_tensor("output.weight", EMBEDDING + 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return reader.read(path)


def rewrite(path: Path, header: Header) -> Path:
    target = path.with_suffix(".2023.gguf")
    with target.open("wb") as file:
        converter.write(path, header, file)
    return target


def fields(path: Path) -> dict[str, Any]:
    """Return the fields as the gguf library reads them, but with tokens as bytes: it cannot decode raw ones."""
    found = oracle.GGUFReader(path).fields
    values = {key: f.contents() for key, f in found.items() if not key.endswith(".tokens")}
    tokens = found["tokenizer.ggml.tokens"]
    return values | {"tokenizer.ggml.tokens": [bytes(tokens.parts[each]) for each in tokens.data]}


def tensors(path: Path) -> dict[str, tuple[int, list[int], bytes]]:
    found = oracle.GGUFReader(path).tensors
    return {each.name: (int(each.tensor_type), each.shape.tolist(), each.data.tobytes()) for each in found}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_byte_alphabet_has_a_letter_for_each_byte() -> None:
    assert [UNICODE_TO_BYTE[BYTE_TO_UNICODE[byte]] for byte in range(256)] == list(range(256))
    assert [BYTE_TO_UNICODE[byte] for byte in b" \n\x00A\xad\xff"] == list("ĠĊĀAŃÿ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [NO_SCORES, LETTERS, TIED]),
        ({"scores": True}, [LETTERS, TIED]),
        ({"tied": False}, [NO_SCORES, LETTERS]),
        ({"tokens": RAW}, [NO_SCORES, TIED]),
        ({"tokens": RAW, "scores": True, "tied": False}, []),
        ({"model": "llama"}, [TIED]),
        ({"model": "llama", "tied": False}, []),
    ],
)
def test_rewrite_reasons_of_a_rewritten_file_are_empty(
    path: Path, options: dict[str, Any], expected: list[str]
) -> None:
    header = write(path, **options)
    assert converter.rewrite_reasons(header) == expected
    assert converter.rewrite_reasons(reader.read(rewrite(path, header))) == []


@pytest.mark.parametrize("alignment", [None, 8, 256])
def test_write_adds_raw_tokens_scores_and_an_output(path: Path, alignment: int | None) -> None:
    header = write(path, alignment=alignment)
    copy = rewrite(path, header)
    counts = {"GGUF.kv_count": len(header.metadata) + 1, "GGUF.tensor_count": 3}
    new = {"tokenizer.ggml.tokens": RAW, "tokenizer.ggml.scores": ZEROS}
    assert fields(copy) == fields(path) | counts | new
    assert tensors(copy) == tensors(path) | {"output.weight": tensors(path)["token_embd.weight"]}
    assert reader.read(copy).alignment == header.alignment
    assert copy.stat().st_size % header.alignment == 0


def test_write_of_a_loadable_file_copies_it_byte_by_byte(path: Path) -> None:
    header = write(path, tokens=RAW, scores=True, tied=False)
    assert rewrite(path, header).read_bytes() == path.read_bytes()


def test_write_of_a_file_that_became_shorter_raises(path: Path) -> None:
    header = write(path)
    path.write_bytes(path.read_bytes()[: header.tensors[-1].offset])
    with pytest.raises(GGUFError, match="became shorter"):
        converter.write(path, header, io.BytesIO())


def test_rewrite_reasons_of_a_crashing_file_raise(path: Path) -> None:
    header = write(path)
    replace = msgspec.structs.replace
    bf16 = replace(header, tensors=(replace(header.tensors[0], type=30),))
    no_heads = header.metadata["llama.attention.head_count"]
    no_heads = replace(no_heads, value=0)
    damaged = replace(header, metadata=header.metadata | {"llama.attention.head_count": no_heads})
    for refused, expected in [
        (bf16, r"cannot compute with the type 30 of the tensor 'token_embd\.weight'"),
        (damaged, r"llama\.attention\.head_count is 0"),
        (replace(header, tensors=()), r"neither output\.weight nor token_embd\.weight"),
    ]:
        with pytest.raises(GGUFError, match=expected):
            converter.rewrite_reasons(refused)


@pytest.mark.ctransformers
def test_write_of_the_real_model_loads_in_ctransformers(smollm2: Path, tmp_path: Path) -> None:
    header = reader.read(smollm2)
    assert converter.rewrite_reasons(header) == [NO_SCORES, LETTERS, TIED]
    copy = tmp_path / "copy.gguf"
    with copy.open("wb") as file:
        converter.write(smollm2, header, file)
    assert converter.rewrite_reasons(reader.read(copy)) == []
    llm = pytest.importorskip("ctransformers.llm")
    model = llm.LLM(str(copy), config=llm.Config(context_length=64))
    model.eval([1, 4093, 198])
    assert model.vocab_size == 49152
    assert len(model.logits) == 49152
    assert np.isfinite(np.array(model.logits)).all()
