"""Save and restore the slots of a context, in the parts of `SavedState`."""

import logging
import struct
from collections.abc import Sequence
from ctypes import POINTER, c_uint8

import numpy as np

from engine.backends.llamacpp import kv_rows
from engine.backends.llamacpp.kv_rows import Bytes
from engine.backends.llamacpp.library import Library
from engine.model import ModelError, SavedState
from engine.wording import counted

HEADER = struct.Struct("<Ii")
"""Magic and sequence id; the library ignores the id when it restores."""
MAGIC = 0xAF143CD8
PARTIAL_ONLY = 1
"""LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY: save attention windows or recurrent state, not the full-attention KV cache."""

log = logging.getLogger("responsed.engine")


class SlotStates:
    """Saves and restores the slots of a context.

    The library writes a header, the rows of the full-attention KV cache, and what only the end of a sequence needs
    (attention windows, recurrent state). A state whose rows cannot be separated is saved whole, as a tail.
    """

    def __init__(self, library: Library, context: int, *, has_rows: bool, has_tail: bool) -> None:
        """`has_rows`: some layers have a full-attention KV cache. `has_tail`: some layers have another memory."""
        self._lib = library
        self._context = context
        self._memory = library.llama_get_memory(context)
        self._has_rows = has_rows
        self._has_tail = has_tail

    @property
    def cut_anywhere(self) -> bool:
        """True if states can be cut between any two tokens."""
        return self._has_rows and not self._has_tail

    def check(self, slot: int) -> None:
        """Save states only whole from now on if the library saves this slot in a layout that is not known."""
        if not self._has_rows:
            return
        try:
            joined, whole = self._joined([self.save(slot, 0)], None), self._bytes(slot)
            if joined.tobytes() != HEADER.pack(MAGIC, slot) + whole[HEADER.size :].tobytes():
                raise ModelError("joining a saved state changes it")
        except ModelError as error:
            log.warning("prefixes of the KV cache cannot be saved: %s", error)
            self._has_rows = False

    def save(self, slot: int, start: int) -> SavedState:
        """Return the state of a slot's tokens from `start` on. Raises ModelError."""
        whole = self._bytes(slot)
        if not self._has_rows:
            return SavedState(b"", whole.data)
        if HEADER.unpack_from(whole.data)[0] != MAGIC:
            raise ModelError("a saved state has an unknown header")
        tail = self._bytes(slot, PARTIAL_ONLY)[HEADER.size :].data if self._has_tail else b""
        saved = whole[HEADER.size : len(whole) - len(tail)]
        rows = kv_rows.read(saved)
        if start == rows.start and not tail:
            return SavedState(saved.data, tail)  # a copy would take as long again
        return SavedState(kv_rows.write([rows.cut(start, rows.end)]).data, tail)

    def copy(self, source: int, target: int, n: int) -> None:
        """Replace a slot by the first `n` tokens of another one, if states can be cut. Raises ModelError."""
        rows = kv_rows.read(self._bytes(source)[HEADER.size :])
        self._load(target, kv_rows.write([rows.cut(0, n)], HEADER.pack(MAGIC, 0)), n)

    def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None:
        """Replace a slot by the first `n` tokens of consecutive states. Raises ModelError."""
        self._load(slot, self._joined(states, n), n)

    def split(self, state: SavedState, at: int) -> tuple[SavedState, SavedState]:
        """Cut a state after its first `at` tokens. Raises ModelError."""
        if not self._has_rows:
            return SavedState(b"", b""), state
        rows = kv_rows.read(state.rows)
        left, right = rows.cut(rows.start, rows.start + at), rows.cut(rows.start + at, rows.end)
        return SavedState(kv_rows.write([left]).data, b""), SavedState(kv_rows.write([right]).data, state.tail)

    def _joined(self, states: Sequence[SavedState], n: int | None) -> Bytes:
        """Return the library's bytes for the first `n` tokens (None: all) of consecutive states."""
        tail = states[-1].tail
        if not self._has_rows:
            return np.frombuffer(tail, np.uint8)
        parts = [kv_rows.read(state.rows) for state in states]
        if n is not None and self.cut_anywhere:
            parts[-1] = parts[-1].cut(parts[-1].start, n)
        if parts[0].start != 0 or n not in (None, parts[-1].end) or (self._has_tail and not tail):
            raise ModelError(f"saved states do not end with token {n}, or they lack what is needed to continue there")
        return kv_rows.write(parts, HEADER.pack(MAGIC, 0), tail)

    def _bytes(self, slot: int, flags: int = 0) -> Bytes:
        size = self._lib.llama_state_seq_get_size_ext(self._context, slot, flags)
        state = np.empty(size, np.uint8)
        pointer = state.ctypes.data_as(POINTER(c_uint8))
        if self._lib.llama_state_seq_get_data_ext(self._context, pointer, size, slot, flags) != size:
            raise ModelError(f"llama.cpp could not save slot {slot}")
        return state

    def _load(self, slot: int, state: Bytes, n: int) -> None:
        """Load a state of `n` tokens into a slot. Raises ModelError, and leaves the slot empty then."""
        pointer = state.ctypes.data_as(POINTER(c_uint8))
        loaded = self._lib.llama_state_seq_set_data_ext(self._context, pointer, len(state), slot, 0)
        if not loaded or self._lib.llama_memory_seq_pos_max(self._memory, slot) != n - 1:
            self._lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
            raise ModelError(f"llama.cpp could not restore {counted(n, 'token')} into slot {slot}")
