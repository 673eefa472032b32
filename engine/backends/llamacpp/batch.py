"""The batch of one `llama_decode`, over arrays that are filled anew for each step."""

import ctypes
from ctypes import POINTER, c_int8, c_int32
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.backends.llamacpp import declarations
from engine.model import BatchEntry

C = TypeVar("C", c_int8, c_int32)


class ReusedBatch:
    """A `llama_batch` over arrays of our own: filling it takes a few copies, whatever the number of tokens."""

    def __init__(self, max_tokens: int) -> None:
        self._token, self._pos, self._seq = (np.zeros(max_tokens, np.int32) for _ in range(3))
        self._ones = np.ones(max_tokens, np.int32)
        self._logits = np.zeros(max_tokens, np.int8)
        # One pointer a token, to its sequence id: each token belongs to one sequence.
        self._seq_pointers = self._seq.ctypes.data + 4 * np.arange(max_tokens, dtype=np.uintp)
        self.struct = declarations.Batch(
            token=_pointer(self._token, c_int32),
            pos=_pointer(self._pos, c_int32),
            n_seq_id=_pointer(self._ones, c_int32),
            seq_id=ctypes.cast(self._seq_pointers.ctypes.data, POINTER(POINTER(c_int32))),
            logits=_pointer(self._logits, c_int8),
        )

    def clear(self) -> None:
        """Remove all entries."""
        self.struct.n_tokens = 0

    def append(self, entry: BatchEntry) -> int:
        """Add an entry and return its first row with logits."""
        start: int = self.struct.n_tokens
        end = start + len(entry.tokens)
        self._token[start:end] = entry.tokens
        self._pos[start:end] = range(entry.position, entry.position + len(entry.tokens))
        self._seq[start:end] = entry.slot
        self._logits[start : end - entry.logits] = 0
        self._logits[end - entry.logits : end] = 1
        self.struct.n_tokens = end
        return end - entry.logits


def _pointer(array: NDArray[Any], kind: type[C]) -> "ctypes._Pointer[C]":
    return array.ctypes.data_as(POINTER(kind))
