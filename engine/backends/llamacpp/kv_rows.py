"""The full-attention part of llama.cpp's saved states: cut between tokens, and joined again.

llama.cpp has no call that saves a range of tokens. Its bytes have no length either; therefore they are read strictly:
every byte must be accounted for. All numbers are little-endian (`state_write` in llama-kv-cache.cpp):

    streams u32, then for each stream: cells u32, and unless there are none:
        the cells (`CELL_BYTES`); transposed V u32, layers u32, in newer builds the rotations of K and V u32
        K of each layer: type i32, bytes a row u64, the rows
        V of each layer that has one: as K; or transposed: type i32, bytes an item u32, elements u32, the items
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine.model import Buffer, ModelError

CELL_BYTES = (12, 20)
"""Bytes of a cell: position i32, sequences u32 (one), with M-RoPE two more positions i32, sequence id i32."""
FIELD_BYTES = (16, 8)
"""Bytes between cells and planes: with rotations, without."""
PLANE_BYTES = 12
"""Bytes before the items of a plane."""

Bytes: TypeAlias = NDArray[np.uint8]
ByteCube: TypeAlias = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


class Plane(Struct, frozen=True):
    """K or V of a layer."""

    head: bytes
    """Type and size of the items."""
    items: ByteCube
    """Axes: 1 or, for transposed V, its elements; tokens; bytes."""


class Rows(Struct, frozen=True):
    """The rows of tokens [start, end). Cutting copies nothing."""

    start: int
    n_streams: int
    cells: Bytes
    fields: bytes
    """Numbers between the cells and the planes."""
    planes: tuple[Plane, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.cells)

    def cut(self, start: int, end: int) -> "Rows":
        """Return the rows of tokens [start, end). Raises ModelError if they are not all there."""
        if not self.start <= start < end <= self.end:
            raise ModelError(f"a saved state has the tokens {self.start} to {self.end}, not {start} to {end}")
        tokens = slice(start - self.start, end - self.start)
        planes = tuple(Plane(plane.head, plane.items[:, tokens]) for plane in self.planes)
        return Rows(start, self.n_streams, self.cells[tokens], self.fields, planes)


def read(data: Buffer | Bytes) -> Rows:
    """Read the rows of one slot. Raises ModelError if the bytes have another layout."""
    buffer = np.frombuffer(data, np.uint8)
    for cell_bytes in CELL_BYTES:
        for field_bytes in FIELD_BYTES:
            try:
                return _read(buffer, cell_bytes, field_bytes)
            except (ValueError, struct.error):
                continue
    raise ModelError(f"{len(buffer)} bytes of saved state have a layout that responsed does not know")


def write(parts: Sequence[Rows], before: Buffer = b"", after: Buffer = b"") -> Bytes:
    """Join rows, and put other bytes around them. Raises ModelError if the rows are not consecutive or from different
    models."""
    first = parts[0]
    for one, other in pairwise(parts):
        if one.end != other.start or _shape(one) != _shape(other):
            raise ModelError(f"saved states do not continue each other: token {one.end}, then token {other.start}")
    cells = struct.pack("<II", first.n_streams, parts[-1].end - first.start)
    chunks: list[Buffer | Bytes] = [before, cells, *(part.cells.reshape(-1) for part in parts), first.fields]
    for planes in zip(*(part.planes for part in parts), strict=True):
        chunks += [planes[0].head, *_joined([plane.items for plane in planes])]
    chunks += [bytes(4 * (first.n_streams - 1)), after]
    # Large arrays of numpy have huge pages; 46 MB of `bytes` take 43 ms to join instead of 9.
    return np.concatenate([np.frombuffer(chunk, np.uint8) for chunk in chunks if len(chunk)])


def _read(buffer: Bytes, cell_bytes: int, field_bytes: int) -> Rows:
    """Raises ValueError or struct.error."""
    (n_streams,) = struct.unpack_from("<I", buffer.data)
    if 4 * n_streams > len(buffer):
        raise ValueError("too many streams")
    # A stream is a count of cells and, if there are any, their data. One of them has the slot's cells.
    counts = np.frombuffer(buffer[4 : 4 + 4 * n_streams], "<u4")
    stream = int(np.argmax(counts != 0))
    n = int(counts[stream])
    end = len(buffer) - 4 * (n_streams - stream - 1)
    if n == 0 or buffer[end:].any():
        raise ValueError("not the cells of one sequence")
    offset = 4 + 4 * (stream + 1)
    cells = buffer[offset : offset + n * cell_bytes].reshape(n, cell_bytes)
    start = _first_position(cells)
    offset += cells.size
    transposed, n_layers = struct.unpack_from("<II", buffer.data, offset)
    if transposed > 1:
        raise ValueError("not a flag")
    fields = buffer[offset : offset + field_bytes].tobytes()
    planes = tuple(_planes(buffer[:end], offset + field_bytes, n, n_layers, bool(transposed)))
    return Rows(start, n_streams, cells, fields, planes)


def _first_position(cells: Bytes) -> int:
    """Return the position of the first cell. Raises ValueError unless the others follow, in one sequence."""
    numbers = np.ascontiguousarray(cells).view("<i4")
    start = int(numbers[0, 0])
    if not np.array_equal(numbers[:, 0], np.arange(start, start + len(numbers))) or (numbers[:, 1] != 1).any():
        raise ValueError("not the cells of one sequence")
    return start


def _planes(buffer: Bytes, offset: int, n: int, n_layers: int, transposed: bool) -> Iterator[Plane]:
    """Yield K of every layer, then V of the layers that have one (not MLA), up to the end. Raises ValueError or
    struct.error."""
    number = 0
    while number < n_layers or offset < len(buffer):
        form = "<iII" if transposed and number >= n_layers else "<iQ"
        _, size, *outer = struct.unpack_from(form, buffer.data, offset)
        shape = (outer[0] if outer else 1, n, size)
        start, offset = offset, offset + PLANE_BYTES + shape[0] * n * size
        if size == 0 or offset > len(buffer) or number >= 2 * n_layers:
            raise ValueError("sizes do not add up")
        yield Plane(buffer[start : start + PLANE_BYTES].tobytes(), buffer[start + PLANE_BYTES : offset].reshape(shape))
        number += 1


def _joined(parts: Sequence[ByteCube]) -> Sequence[Bytes]:
    """Return the items of all parts, contiguous."""
    return [part.reshape(-1) for part in (parts if len(parts[0]) == 1 else [np.concatenate(parts, axis=1)])]


def _shape(rows: Rows) -> tuple[object, ...]:
    """Return everything that is equal in rows of one model."""
    return rows.n_streams, rows.cells.shape[1], rows.fields, [plane.head for plane in rows.planes]
