"""Read the header of a GGUF file: its metadata and the places of its tensors. The weights stay unread.

The libraries that run a model trust its file. A damaged one does not make them return an error: it ends the whole
daemon with SIGSEGV or abort(). Therefore `read` checks the whole header before any file reaches them. It refuses
everything that it does not know and everything that would lead a trusting reader outside the file.

The layout is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

import math
import mmap
import struct
from array import array
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from engine.gguf.header import (
    ARRAY,
    BOOL,
    NUMBER_DTYPES,
    STRING,
    UINT32,
    GGUFError,
    Header,
    MetadataEntry,
    Tensor,
    Value,
    damaged_file,
)
from engine.gguf.packed_texts import LENGTH_BYTES, PackedTexts
from engine.gguf.tensor_types import TENSOR_TYPES

MAX_ITEMS = 1 << 22
"""Maximum items in a list, or bytes in a text. Real vocabularies have up to 300k tokens; this many take a second."""
_length = struct.Struct("<Q").unpack_from
SNIFF_BYTES = 256
"""Length of the beginning that shows whether a file is text, in bytes."""

GGML = "it is a GGML file from before GGUF, so convert it or download a GGUF file"
FOREIGN_FORMATS = {
    b"version https://git-lfs": "it is a Git LFS pointer, so fetch the file itself with `git lfs pull`",
    b"lmgg": GGML,
    b"fmgg": GGML,
    b"tjgg": GGML,
    b"algg": "it is a LoRA adapter from before GGUF, so name a model, as a GGUF file",
    b"PK\x03\x04": "it is a PyTorch file or a zip archive, so convert it or download a GGUF file",
    b"\x80\x02": "it is a PyTorch file, so convert it or download a GGUF file",
    b"\x89HDF": "it is an HDF5 (Keras) file, so convert it or download a GGUF file",
    b"\x1f\x8b": "it is compressed (gzip), so unpack it",
    b"(\xb5/\xfd": "it is compressed (zstd), so unpack it",
    b"\xfd7zXZ": "it is compressed (xz), so unpack it",
    b"7z\xbc\xaf": "it is compressed (7z), so unpack it",
    b"\x7fELF": "it is a program or a library, so name the model's .gguf file",
    b"MZ": "it is a program (a llamafile?), so name the model's .gguf file",
    b"<": "it is a web page, so download the model file itself",
}
"""File formats that people pass by mistake: first bytes -> sentence."""


def read(path: Path) -> Header:
    """Read a header in milliseconds, even with a large vocabulary. Raises only GGUFError."""
    try:
        if path.is_dir():
            raise GGUFError("it is a folder, not a file, so name the .gguf file itself")
        if path.exists() and not path.is_file():
            raise GGUFError("it is not a file, so name the .gguf file itself")
        with path.open("rb") as file:
            if not path.stat().st_size:  # mmap refuses an empty file
                raise damaged_file("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _header(_Cursor(data))
        header.check_vocabulary()
    except OSError as error:
        raise GGUFError(f"{path} cannot be read: {error.strerror}") from error
    except GGUFError as error:
        raise GGUFError(f"{path} cannot be used: {error}") from None
    return header


class _Cursor:
    """A reading position in the file that never passes its end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.size = len(data)
        self.position = 0

    def take(self, n: int) -> bytes:
        start, self.position = self.position, self.position + n
        if self.position > self.size:
            raise damaged_file("it ends within its own header, cut short or damaged")
        return self.data[start : self.position]

    def number(self, n_bytes: int) -> int:
        return int.from_bytes(self.take(n_bytes), "little")

    def count(self, item_bytes: int) -> int:
        """Read a number of items of at least `item_bytes` bytes each. Raises GGUFError if they exceed the rest of the
        file."""
        n = self.number(8)
        if n > MAX_ITEMS or n * item_bytes > self.size - self.position:
            raise damaged_file(f"it claims to list {n} items, for which it has no room")
        return n

    def name(self, max_bytes: int) -> str:
        raw = self.take(self.count(1))
        name = raw.decode(errors="surrogateescape")
        if not 0 < len(raw) <= max_bytes or not name.isprintable():  # bytes that are not UTF-8 are not printable
            raise damaged_file(f"no name can begin {raw[:32]!r}")
        return name

    def texts(self, n: int) -> PackedTexts:
        # One loop replaces `count` and `take`: two calls for each of 300k tokens and merges would dominate the time.
        data, first, at, size, ends = self.data, self.position, self.position, self.size, array("Q", [0])
        for _ in range(n):
            start = at + LENGTH_BYTES
            at = start + _length(data, at)[0] if start <= size else start
            if at > size or at - start > MAX_ITEMS:
                raise damaged_file("it ends within a text, cut short or damaged")
            ends.append(at - first)
        self.position = at
        return PackedTexts(data[first:at], ends)

    def numbers(self, kind: int, n: int) -> list[int] | list[float] | list[bool]:
        numbers = np.dtype(NUMBER_DTYPES[kind])
        raw = self.take(n * numbers.itemsize)
        if kind == BOOL and raw.strip(b"\x00\x01"):
            raise damaged_file("one of its truth values is neither 0 nor 1")
        return cast("list[int]", np.frombuffer(raw, numbers).tolist())


def _header(cursor: _Cursor) -> Header:
    version = _version(cursor)
    n_tensors = cursor.count(8 + 1 + 4 + 8 + 4 + 8)
    n_entries = cursor.count(8 + 1 + 4 + 1)
    metadata: dict[str, MetadataEntry] = {}
    for _ in range(n_entries):
        start, key = cursor.position, cursor.name(256)
        if key in metadata:
            raise damaged_file(f"it contains {key!r} twice")
        metadata[key] = _entry(cursor, key, start)
    alignment = _alignment(metadata.get("general.alignment"))
    found = [_tensor(cursor) for _ in range(n_tensors)]
    data_start = cursor.position + -cursor.position % alignment
    tensors = {tensor.name: _with_file_offset(tensor, data_start, alignment, cursor.size) for tensor in found}
    if len(tensors) < len(found):
        raise damaged_file("two of its tensors have the same name")
    return Header(version, alignment, metadata, tuple(tensors.values()), cursor.size)


def _version(cursor: _Cursor) -> int:
    if cursor.data[:4] != b"GGUF":
        raise GGUFError(_describe_foreign_file(cursor.data))
    cursor.take(4)
    version = cursor.number(4)
    if version and not version & 0xFFFF:
        raise GGUFError("it is big-endian, so download the little-endian file")
    if version not in (2, 3):
        raise GGUFError(f"it is GGUF version {version}, not 2 or 3, so download another conversion")
    return version


def _describe_foreign_file(data: mmap.mmap) -> str:
    """Return the sentence for a file of another format."""
    # Check this first: the length at its beginning may look like another format.
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return "it is a safetensors file, not a GGUF file, so convert it or download a GGUF file"
    for first, sentence in FOREIGN_FORMATS.items():
        if data[: len(first)] == first:
            return sentence
    text = data[:SNIFF_BYTES].decode(errors="replace").strip()
    line = text.partition("\n")[0][:60]
    if line and text.replace("\n", "").replace("\r", "").replace("\t", "").isprintable() and "\ufffd" not in text[:-1]:
        return f"it is a text that begins {line!r}, not a GGUF file, so download the model file itself"
    return "it is not a GGUF file, so convert it or download a GGUF file"


def _entry(cursor: _Cursor, key: str, start: int) -> MetadataEntry:
    kind = cursor.number(4)
    value: Value
    if is_list := kind == ARRAY:
        kind = cursor.number(4)
    # Lists of lists are refused: no known key has one, and llama.cpp ends the process over them.
    if kind == STRING:
        texts = cursor.texts(cursor.count(LENGTH_BYTES) if is_list else 1)
        value = texts if is_list else texts[0]
    elif kind in NUMBER_DTYPES:
        numbers = cursor.numbers(kind, cursor.count(1) if is_list else 1)
        value = numbers if is_list else numbers[0]
    else:
        raise damaged_file(f"the value of {key!r} has the unknown type {kind}")
    return MetadataEntry(value, kind, start, cursor.position)


def _alignment(entry: MetadataEntry | None) -> int:
    if entry is None:
        return 32
    n = entry.value
    if entry.type != UINT32 or not isinstance(n, int) or n < 1 or n & (n - 1):
        raise damaged_file(f"its general.alignment is {n!r:.40}, not a power of two")
    return n


def _tensor(cursor: _Cursor) -> Tensor:
    """Read a tensor's description. Its offset still counts from `data_start`."""
    name = cursor.name(64)
    n_dims = cursor.number(4)
    if not 1 <= n_dims <= 4:
        raise damaged_file(f"its tensor {name!r} has {n_dims} dimensions instead of 1 to 4")
    shape = tuple(cursor.number(8) for _ in range(n_dims))
    kind = cursor.number(4)
    if kind not in TENSOR_TYPES:
        raise GGUFError(f"its tensor {name!r} has the unknown type {kind}, so download another quantization")
    type_ = TENSOR_TYPES[kind]
    if not all(shape) or shape[0] % type_.block_elements:
        raise damaged_file(f"its tensor {name!r} cannot have the shape {shape}")
    n_bytes = math.prod(shape) // type_.block_elements * type_.block_bytes
    return Tensor(name, shape, kind, cursor.number(8), n_bytes)


def _with_file_offset(tensor: Tensor, data_start: int, alignment: int, size: int) -> Tensor:
    """Return the tensor with its offset from the start of the file. Raises GGUFError if it is not inside the file."""
    if tensor.offset % alignment:
        raise damaged_file(f"its tensor {tensor.name!r} is not aligned to {alignment} bytes")
    offset = data_start + tensor.offset  # Python's integers do not overflow
    if offset + tensor.n_bytes > size:
        raise damaged_file(f"it is cut short within its tensor {tensor.name!r}")
    return msgspec.structs.replace(tensor, offset=offset)
