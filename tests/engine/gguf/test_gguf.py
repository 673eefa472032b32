"""`engine.gguf.reader` against the `gguf` library as the oracle, and against damaged files."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as oracle
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.gguf import GGUFError, Header, MetadataEntry, reader
from engine.gguf.packed_texts import PackedTexts
from engine.gguf.tensor_types import TENSOR_TYPES

TOKENS = ["<s>", "Ġ", "é", "", "日本"]


def write(path: Path, alignment: int | None = None) -> bytes:
    """Write a small valid file with a value of every type."""
    writer = oracle.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    add = {
        "a.u8": writer.add_uint8,
        "a.i8": writer.add_int8,
        "a.u16": writer.add_uint16,
        "a.i16": writer.add_int16,
        "a.u32": writer.add_uint32,
        "a.i32": writer.add_int32,
        "a.u64": writer.add_uint64,
        "a.i64": writer.add_int64,
        "a.f32": writer.add_float32,
        "a.f64": writer.add_float64,
    }
    for key, adder in add.items():
        adder(key, 7)
    writer.add_int64("a.least", -(2**63))
    writer.add_uint64("a.most", 2**64 - 1)
    writer.add_bool("a.flag", True)
    writer.add_string("a.text", "Grüße 👋")
    writer.add_array("a.integers", [1, -2, 3])
    writer.add_array("a.floats", [0.5, -0.25])
    writer.add_array("a.flags", [True, False])
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0, -1.0, -2.0, -3.0, -4.0])
    writer.add_token_types([1] * len(TOKENS))
    writer.add_eos_token_id(2)
    writer.add_tensor("one", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("two", np.zeros((4, 36), np.uint8), raw_dtype=oracle.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def contents(path: Path) -> dict[str, Any]:
    fields = oracle.GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


def values(header: Header) -> dict[str, Any]:
    found = {key: entry.value for key, entry in header.metadata.items()}
    return {key: list(value) if isinstance(value, PackedTexts) else value for key, value in found.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_metadata_equals_the_gguf_librarys(path: Path) -> None:
    write(path)
    header = reader.read(path)
    assert values(header) == contents(path)
    assert (header.version, header.alignment, header.architecture) == (3, 32, "llama")


def test_tensor_offsets_equal_the_gguf_librarys(path: Path) -> None:
    raw = write(path, alignment=64)
    header = reader.read(path)
    expected = [
        (each.name, tuple(each.shape.tolist()), int(each.tensor_type), each.data_offset, each.n_bytes)
        for each in oracle.GGUFReader(path).tensors
    ]
    assert [(t.name, t.shape, t.type, t.offset, t.n_bytes) for t in header.tensors] == expected
    assert (header.alignment, header.size) == (64, len(raw))
    assert expected[1][1] == (64, 4)


def test_read_of_version_2_equals_version_3(path: Path) -> None:
    raw = write(path)
    path.write_bytes(raw[:4] + struct.pack("<I", 2) + raw[8:])
    assert reader.read(path).version == 2
    assert values(reader.read(path)) == contents(path)


def test_entries_cover_the_bytes_between_counts_and_tensors(path: Path) -> None:
    raw = write(path)
    header = reader.read(path)
    spans = [(entry.start, entry.end) for entry in header.metadata.values()]
    assert [start for start, _ in spans] == [24, *(end for _, end in spans[:-1])]
    assert raw[spans[-1][1] :].startswith(struct.pack("<Q", 3) + b"one")
    flag = header.metadata["a.flag"]
    assert raw[flag.start : flag.end] == struct.pack("<Q", 6) + b"a.flag" + struct.pack("<I?", 7, True)


def test_texts_of_raw_byte_tokens_encode_to_their_bytes(path: Path) -> None:
    raw = write(path).replace("日本".encode(), b"\xff\xfe\xe6ab\x80")
    path.write_bytes(raw)
    token = reader.read(path).texts("tokenizer.ggml.tokens")[-1]
    assert token.encode("utf-8", "surrogateescape") == b"\xff\xfe\xe6ab\x80"


def test_tensor_types_equal_the_gguf_librarys() -> None:
    assert {int(kind): (kind.name, *sizes) for kind, sizes in oracle.GGML_QUANT_SIZES.items()} == {
        kind: (each.name, each.block_elements, each.block_bytes)
        for kind, each in TENSOR_TYPES.items()
        if kind in oracle.GGML_QUANT_SIZES
    }


def test_getters_return_values_and_defaults(path: Path) -> None:
    write(path)
    header = reader.read(path)
    assert (header.text("a.text"), header.text("no"), header.text("no", "x")) == ("Grüße 👋", None, "x")
    assert (header.integer("a.u8"), header.integer("no"), header.integer("no", 1)) == (7, None, 1)
    assert (header.flag("a.flag"), header.flag("no"), header.flag("no", False)) == (True, None, False)
    assert (list(header.texts("tokenizer.ggml.tokens")), header.texts("no")) == (TOKENS, [])
    assert (header.integers("a.integers"), header.integers("no")) == ([1, -2, 3], [])
    assert (header.floats("a.floats"), header.floats("no")) == ([0.5, -0.25], [])


@pytest.mark.parametrize(
    ("key", "get"),
    [
        ("a.u8", Header.text),
        ("a.flag", Header.integer),
        ("a.f32", Header.integer),
        ("a.u8", Header.flag),
        ("a.text", Header.texts),
        ("a.integers", Header.texts),
        ("a.flags", Header.integers),
        ("a.integers", Header.floats),
        ("a.integers", Header.text),
    ],
)
def test_getters_of_another_type_raise_with_the_key(path: Path, key: str, get: Callable[[Header, str], object]) -> None:
    write(path)
    with pytest.raises(GGUFError, match=key):
        get(reader.read(path), key)


def test_text_that_is_not_utf8_raises(path: Path) -> None:
    path.write_bytes(write(path).replace("Grüße".encode(), b"Gr\xff\xff\xff\xffe"))
    with pytest.raises(GGUFError, match=r"a\.text is not UTF-8"):
        reader.read(path).text("a.text")


@pytest.mark.parametrize("value", [None, ""])
def test_architecture_that_is_missing_raises(value: str | None) -> None:
    entries = {} if value is None else {"general.architecture": MetadataEntry(value, type=8, start=0, end=0)}
    with pytest.raises(GGUFError, match=r"general\.architecture"):
        _ = Header(3, 32, entries, (), 0).architecture


# Damaged files: small, built by hand, each wrong in one way.


def text(raw: bytes) -> bytes:
    return struct.pack("<Q", len(raw)) + raw


def entry(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def listed(key: bytes, kind: int, n: int, values: bytes) -> bytes:
    return entry(key, 9, struct.pack("<IQ", kind, n) + values)


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def file(
    *parts: bytes,
    entries: int = 0,
    tensors: int = 0,
    magic: bytes = b"GGUF",
    version: int = 3,
    data: int = 64,
) -> bytes:
    header = magic + struct.pack("<IQQ", version, tensors, entries) + b"".join(parts)
    return header + bytes(-len(header) % 32) + bytes(data)


def one(entry: bytes) -> bytes:
    return file(entry, entries=1)


def one_tensor(tensor: bytes, data: int = 64) -> bytes:
    return file(tensor, tensors=1, data=data)


HUGE = 2**60
ROOM = 2**62  # of four bytes each, as many as overflow 64 bits
T = b"tokenizer.ggml."
TWO_TOKENS = listed(T + b"tokens", 8, 2, text(b"a") + text(b"b"))

DAMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "short": (b"GG", "not a GGUF file"),
    "only the magic": (b"GGUF", "cut short"),
    "text": (b"Hello, this is a text file.\n", "it is a text that begins 'Hello, this is a text file.'"),
    "answer of a hub": (b"Entry not found", "it is a text that begins 'Entry not found'"),
    "json": (b'{\n "weight_map": {}}', "it is a text that begins '{'"),
    "text in UTF-8": (("é" * 300).encode(), "it is a text that begins"),
    "web page": (b"<!DOCTYPE html><html>Not found</html>", "web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "ggml": (b"lmgg" + bytes(100), "before GGUF"),
    "ggjt": (b"tjgg" + bytes(100), "before GGUF"),
    "safetensors": (struct.pack("<Q", 2) + b"{}", "it is a safetensors file, not a GGUF file"),
    "safetensors of a model": (
        struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(60) + bytes(4),
        "it is a safetensors file",
    ),
    "ggla": (b"algg" + bytes(100), "a LoRA adapter from before GGUF"),
    "pytorch": (b"PK\x03\x04" + bytes(100), "PyTorch"),
    "pickle": (b"\x80\x02\x8a\x0a" + bytes(100), "PyTorch"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "compressed (gzip), so unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), "compressed (zstd), so unpack it"),
    "a program": (b"\x7fELF" + bytes(100), "a program or a library"),
    "llamafile": (b"MZqFpD='" + bytes(100), "llamafile"),
    "noise": (bytes(range(128, 256)), "not a GGUF file"),
    "magic": (file(magic=b"GGUX"), "not a GGUF file"),
    "version 0": (file(version=0), "version 0"),
    "version 1": (file(version=1), "version 1"),
    "version 4": (file(version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64), "big-endian"),
    "huge number of entries": (file(entries=HUGE), "no room"),
    "huge number of tensors": (file(tensors=HUGE), "no room"),
    "one entry too many": (file(entry(b"a", 0, b"\0"), entries=2, data=0), "no name can begin"),
    "huge key": (one(struct.pack("<Q", HUGE)), "no room"),
    "huge text": (one(entry(b"a", 8, struct.pack("<Q", HUGE))), "cut short"),
    "largest text": (one(entry(b"a", 8, b"\xff" * 8)), "cut short"),
    "huge list of numbers": (one(listed(b"a", 10, HUGE, b"")), "no room"),
    "huge list of texts": (one(listed(b"a", 8, HUGE, b"")), "no room"),
    "list longer than the file": (one(listed(b"a", 10, 20, b"")), "cut short"),
    "text in a list longer than the file": (one(listed(b"a", 8, 1, struct.pack("<Q", 200))), "cut short"),
    "empty key": (one(entry(b"", 0, b"\0")), "no name can begin"),
    "key too long": (one(entry(b"k" * 257, 0, b"\0")), "no name can begin"),
    "key not UTF-8": (one(entry(b"\xff\xfe", 0, b"\0")), "no name can begin"),
    "key with a line break": (one(entry(b"a\nb", 0, b"\0")), "no name can begin"),
    "the same key twice": (file(entry(b"a", 0, b"\0") * 2, entries=2), "'a' twice"),
    "unknown type of value": (one(entry(b"a", 13, bytes(8))), "unknown type 13"),
    "unknown type in a list": (one(listed(b"a", 99, 1, bytes(8))), "unknown type 99"),
    "list of lists": (one(listed(b"a", 9, 1, struct.pack("<IQ", 0, 1) + b"\0")), "unknown type 9"),
    "flag of 2": (one(entry(b"a", 7, b"\2")), "truth"),
    "flag of 2 in a list": (one(listed(b"a", 7, 3, b"\0\2\1")), "truth"),
    "alignment 0": (one(entry(b"general.alignment", 4, struct.pack("<I", 0))), "power of two"),
    "alignment 48": (one(entry(b"general.alignment", 4, struct.pack("<I", 48))), "power of two"),
    "alignment of 64 bits": (one(entry(b"general.alignment", 10, struct.pack("<Q", 32))), "power of two"),
    "alignment a text": (one(entry(b"general.alignment", 8, text(b"32"))), "power of two"),
    "alignment a list": (one(listed(b"general.alignment", 4, 1, struct.pack("<I", 32))), "power of two"),
    "tensor without a name": (one_tensor(tensor(b"", (4,))), "no name can begin"),
    "tensor name too long": (one_tensor(tensor(b"n" * 65, (4,))), "no name can begin"),
    "tensor name not UTF-8": (one_tensor(tensor(b"\xff", (4,))), "no name can begin"),
    "0 dimensions": (one_tensor(tensor(b"t", ())), "0 dimensions"),
    "5 dimensions": (one_tensor(tensor(b"t", (1,) * 5)), "5 dimensions"),
    "2**32 - 1 dimensions": (one_tensor(text(b"t") + b"\xff" * 40), "4294967295 dimensions"),
    "a dimension of 0": (one_tensor(tensor(b"t", (4, 0))), "shape"),
    "more elements than 64 bits": (one_tensor(tensor(b"t", (ROOM, ROOM, ROOM, ROOM))), "cut short"),
    "elements that overflow to 0 bytes": (one_tensor(tensor(b"t", (ROOM,))), "cut short"),
    "row not of whole blocks": (one_tensor(tensor(b"t", (48, 2), kind=2)), "shape"),
    "withdrawn type of tensor": (one_tensor(tensor(b"t", (32,), kind=4)), "unknown type 4"),
    "unknown type of tensor": (one_tensor(tensor(b"t", (32,), kind=1000)), "unknown type 1000"),
    "offset not aligned": (one_tensor(tensor(b"t", (4,), offset=4)), "not aligned"),
    "offset outside": (one_tensor(tensor(b"t", (4,), offset=64)), "cut short within its tensor 't'"),
    "offset far outside": (one_tensor(tensor(b"t", (4,), offset=2**64 - 32)), "cut short"),
    "extent outside": (one_tensor(tensor(b"t", (17,))), "cut short within its tensor 't'"),
    "the same tensor twice": (file(tensor(b"t", (4,)) * 2, tensors=2), "same name"),
    "tokens that are numbers": (one(listed(T + b"tokens", 4, 1, bytes(4))), "tokens lists int"),
    "too few scores": (
        file(TWO_TOKENS, listed(T + b"scores", 6, 1, bytes(4)), entries=2),
        "scores does not fit",
    ),
    "scores of 64 bits": (
        file(TWO_TOKENS, listed(T + b"scores", 12, 2, bytes(16)), entries=2),
        "scores does",
    ),
    "one score": (file(TWO_TOKENS, entry(T + b"scores", 6, bytes(4)), entries=2), "scores does not fit"),
    "too few types": (file(TWO_TOKENS, listed(T + b"token_type", 5, 1, bytes(4)), entries=2), "does not fit"),
    "eos a text": (
        file(TWO_TOKENS, entry(T + b"eos_token_id", 8, text(b"2")), entries=2),
        "eos_token_id is '2', not one of its 2 tokens",
    ),
    "bos negative": (
        file(TWO_TOKENS, entry(T + b"bos_token_id", 5, struct.pack("<i", -1)), entries=2),
        "bos_token_id is -1, not one of its 2 tokens",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_read_of_a_damaged_file_raises_one_sentence(path: Path, name: str) -> None:
    raw, expected = DAMAGES[name]
    path.write_bytes(raw)
    with pytest.raises(GGUFError) as caught:
        reader.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be used: ")
    assert expected in message
    assert ", so " in message  # what to do
    assert "\n" not in message


def test_read_of_an_undamaged_built_file_succeeds(path: Path) -> None:
    parts = [entry(b"a", 0, b"\1"), TWO_TOKENS, tensor(b"t", (4, 4)), tensor(b"n" * 64, (32,), 2, 0)]
    path.write_bytes(file(*parts, entries=2, tensors=2))
    header = reader.read(path)
    assert values(header) == {"a": 1, "tokenizer.ggml.tokens": ["a", "b"]}
    assert [tensor.n_bytes for tensor in header.tensors] == [64, 18]


def test_read_of_a_truncated_file_raises(path: Path) -> None:
    raw = write(path)
    end = reader.read(path).tensors[-1]
    for length in range(0, end.offset + end.n_bytes, 5):
        path.write_bytes(raw[:length])
        with pytest.raises(GGUFError):
            reader.read(path)


def test_read_of_a_folder_or_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="not a file"):
        reader.read(tmp_path)
    with pytest.raises(GGUFError, match="No such file"):
        reader.read(tmp_path / "missing.gguf")


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """Return the bytes with a few replaced, most of them in the header; sometimes truncated."""
    at = st.integers(0, len(raw) - 1)
    changed = bytearray(raw)
    for place, byte in draw(st.lists(st.tuples(at, st.integers(0, 255)), min_size=1, max_size=8)):
        changed[place] = byte
    return bytes(changed[: draw(st.one_of(st.just(len(raw)), at))])


@settings(max_examples=500, deadline=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.slow
def test_read_of_any_damage_returns_a_header_or_raises_gguf_error(path: Path, data: st.DataObject) -> None:
    whole = path.with_name("whole.gguf")
    raw = whole.read_bytes() if whole.exists() else write(whole)
    path.write_bytes(data.draw(damaged(raw)))
    try:
        header = reader.read(path)
    except GGUFError:
        return
    assert all(tensor.offset + tensor.n_bytes <= header.size for tensor in header.tensors)


def test_read_of_the_real_model_equals_the_gguf_librarys(smollm2: Path) -> None:
    header = reader.read(smollm2)
    assert values(header) == contents(smollm2)
    assert header.architecture == "llama"
    assert len(header.texts("tokenizer.ggml.tokens")) == 49152
    last = max(header.tensors, key=lambda tensor: tensor.offset)
    assert last.offset + last.n_bytes == header.size
