"""The backend over llama.cpp: one context, one sequence for each slot, one `llama_decode` for all entries of a step.

The KV cache is not unified: every slot has its own cells, so that a step does not scan those of idle slots (one stream
beside seven idle slots of 600 tokens: 7.2 ms a step; unified: 8.8). A prefix is copied between slots as saved state: 7
us a token, where evaluating one takes 2,200.

For layers with an attention window (Gemma 3), saved state contains only the window before its end: a restored slot can
be continued there, but not truncated. For such models a prefix is copied as the slot's whole buffers. llama.cpp marks
the tokens as copied at once, but copies the buffers before the next decode: until then, `save` would read old buffers,
and what `restore` writes would be overwritten, or copied in place of the prefix.
"""

import ctypes
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.backends.llamacpp.batch import ReusedBatch
from engine.backends.llamacpp.library import Library, errors, first_reason
from engine.backends.llamacpp.saved_state import SlotStates
from engine.backends.llamacpp.tokenizer import NativeTokenizer
from engine.model import BackendOptions, BatchEntry, FloatArray, ModelError, ModelInfo, SavedState, TooLittleMemory
from engine.wording import counted

NAME = "llamacpp"
STRLEN = ctypes.CDLL(None).strlen
"""The C library's `strlen`; see `LlamaCpp`."""
MMAP = 1
"""`load_mode` that maps the file instead of reading it."""
NO_MEMORY = re.compile(r"alloc|out of memory|cannot allocate|mmap failed", re.IGNORECASE)
"""Pattern of llama.cpp's messages about missing memory."""
DEFAULT_OPTIONS = BackendOptions()
GGML_TYPES = {"f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}
"""Numbers of `KV_TYPES` in ggml's `enum ggml_type`."""
MAX_BATCH_TOKENS = 512
"""Maximum tokens of a step: llama.cpp's own `n_ubatch`, above which one batch takes several passes."""
ATTENTION_TILE = 64
"""Tokens that flash attention processes together. At 1,500 tokens of context, 56 take 440 ms and 64 take 350."""


class LlamaCpp:
    """A Model; see `engine.model`."""

    def __init__(
        self,
        library: Library,
        path: Path,
        *,
        n_ctx: int,
        n_slots: int,
        threads: int,
        backend_options: BackendOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Raises ModelError. The caller must have checked `path` (`gguf.read`)."""
        self._lib = library
        self._stop = ctypes.create_string_buffer(2)
        """Buffer that ends the running decode once it is not empty. The abort callback is C's own `strlen`: llama.cpp
        calls it a thousand times a step, and a Python function would wait for the GIL each time."""
        self._model = load_file(library, path)
        self._context = _new_context(library, self._model, n_ctx, n_slots, backend_options)
        library.llama_set_abort_callback(self._context, ctypes.cast(STRLEN, ctypes.c_void_p), self._stop)
        self._memory = library.llama_get_memory(self._context)
        self._batch = ReusedBatch(MAX_BATCH_TOKENS)
        self._cached_tokens = [0] * n_slots
        self._unfinished_copies: set[tuple[int, int]] = set()
        """Source and target of each copy that the next decode carries out."""
        self._rows: dict[int, int] = {}
        """First row of logits of each slot's last entry."""
        self._logits: dict[int, FloatArray] = {}
        """Arrays over llama.cpp's rows of logits, by address."""
        recurrent = bool(library.llama_model_is_recurrent(self._model))
        hybrid = bool(library.llama_model_is_hybrid(self._model))
        has_windows = library.llama_model_n_swa(self._model) > 0
        has_tail = recurrent or hybrid or has_windows
        self._states = SlotStates(library, self._context, has_rows=not recurrent, has_tail=has_tail)
        truncates = not (recurrent or hybrid)
        self.tokenizer = NativeTokenizer(library, self._model)
        self.info = ModelInfo(
            NAME,
            n_ctx,
            n_slots,
            n_vocab=self.tokenizer.size,
            max_batch_tokens=MAX_BATCH_TOKENS,
            attention_tile=ATTENTION_TILE,
            batched=True,
            copies_prefixes=truncates,
            multi_row_logits=truncates,
            saves_state=True,
            cuts_state=self._check_states(),
            truncates=truncates,
        )
        self.use_threads(threads, threads)

    def decode(self, batch: Sequence[BatchEntry]) -> None:
        self._stop[0] = b"\0"
        self._rows.clear()
        self._batch.clear()
        # Entries go in ascending order of slots, or llama.cpp splits the batch into many passes (47 ms instead of 26).
        for entry in sorted(batch, key=lambda entry: entry.slot):
            self._make_room(entry)
            self._rows[entry.slot] = self._batch.append(entry)
        status = self._lib.llama_decode(self._context, self._batch.struct)
        if status != 0:
            for entry in batch:
                self._forget(entry.slot, entry.position)
            raise ModelError(f"llama.cpp could not evaluate a step (llama_decode returned {status})")
        self._unfinished_copies.clear()
        for entry in batch:
            self._cached_tokens[entry.slot] = entry.position + len(entry.tokens)

    def logits(self, slot: int, row: int = 0) -> FloatArray:
        address = self._lib.llama_get_logits_ith(self._context, self._rows[slot] + row)
        # llama.cpp has the rows at a few places; an array over one of them takes longer to make than a token to pick.
        if (array := self._logits.get(address)) is None:
            row_type = ctypes.c_float * self.info.n_vocab
            array = self._logits[address] = np.ctypeslib.as_array(row_type.from_address(address))
        return array

    def copy_prefix(self, source: int, target: int, n: int) -> None:
        self._forget(target, 0)
        if self.info.cuts_state:
            self._states.copy(source, target, n)
            self._cached_tokens[target] = n
        else:
            self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self._unfinished_copies.add((source, target))
            self._cached_tokens[target] = self._cached_tokens[source]
            self._forget(target, n)

    def save(self, slot: int, start: int, end: int) -> SavedState:
        if any(slot == target for _, target in self._unfinished_copies):
            self._finish_copies()
        if end < self._cached_tokens[slot] and self.info.truncates:
            self._forget(slot, end)
        if end != self._cached_tokens[slot]:
            raise ModelError(f"slot {slot} has {counted(self._cached_tokens[slot], 'token')}, not {end}")
        return self._states.save(slot, start)

    def restore(self, slot: int, states: Sequence[SavedState], n: int) -> None:
        self._forget(slot, 0)
        if any(slot in copy for copy in self._unfinished_copies):
            self._finish_copies()
        self._states.restore(slot, states, n)
        self._cached_tokens[slot] = n

    def split(self, state: SavedState, at: int) -> tuple[SavedState, SavedState]:
        return self._states.split(state, at)

    def use_threads(self, decode: int, batch: int) -> None:
        self._lib.llama_set_n_threads(self._context, decode, batch)

    def interrupt(self) -> None:
        self._stop[0] = b"1"

    def close(self) -> None:
        self.tokenizer.close()
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def _check_states(self) -> bool:
        """Evaluate two tokens, to see in which layout the library saves them. Return True if states can be cut."""
        self._batch.clear()
        self._batch.append(BatchEntry(slot=0, position=0, tokens=[0, 0], logits=0))
        if self._lib.llama_decode(self._context, self._batch.struct) == 0:
            self._states.check(slot=0)
        self._lib.llama_memory_seq_rm(self._memory, 0, -1, -1)
        return self._states.cut_anywhere

    def _make_room(self, entry: BatchEntry) -> None:
        """Drop the tokens that an entry replaces. Raises ModelError if it does not fit into the slot."""
        if entry.position > self._cached_tokens[entry.slot] or entry.position + len(entry.tokens) > self.info.n_ctx:
            n = counted(len(entry.tokens), "token")
            raise ModelError(f"position {entry.position} + {n} is outside the slot")
        if entry.position < self._cached_tokens[entry.slot]:
            self._forget(entry.slot, entry.position)

    def _finish_copies(self) -> None:
        """Let llama.cpp carry out the unfinished copies: decode a token, and drop it. No other function of its API does
        so. Raises ModelError."""
        position = min(self._cached_tokens)
        slot = self._cached_tokens.index(position)
        self.decode([BatchEntry(slot, position, [0], logits=0)])
        self._forget(slot, position)

    def _forget(self, slot: int, position: int) -> None:
        """Drop a slot's tokens from `position` on. Models with recurrent state can only drop all."""
        if not self._lib.llama_memory_seq_rm(self._memory, slot, position, -1):
            self._lib.llama_memory_seq_rm(self._memory, slot, -1, -1)
            position = 0
        self._cached_tokens[slot] = min(self._cached_tokens[slot], position)


def _new_context(library: Library, model: int, n_ctx: int, n_slots: int, options: BackendOptions) -> int:
    """Return the address of a context over a model. Raises ModelError, after it has freed the model."""
    params = library.context_params()
    params.n_ctx, params.n_seq_max = n_ctx * n_slots, n_slots
    params.n_batch = params.n_ubatch = MAX_BATCH_TOKENS
    params.n_outputs_max_per_seq = 0
    # One thread until the check of saved states is over: OpenMP has a team for each thread that has decoded, and once
    # all teams together have more threads than there are cores, they stop spinning (decode with two threads: 6.8 ->
    # 10.8 ms).
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = int(options.flash_attention)
    params.type_k = params.type_v = GGML_TYPES[options.kv_type]
    with errors() as error_lines:
        context: int | None = library.llama_init_from_model(model, params)
    if not context:
        library.llama_model_free(model)
        raise _context_error(n_slots, n_ctx, error_lines)
    return context


def _context_error(n_slots: int, n_ctx: int, error_lines: Sequence[str]) -> ModelError:
    """Return the error for a context that cannot be made."""
    size = f"{counted(n_slots, 'slot')} of {n_ctx} tokens"
    if any(NO_MEMORY.search(line) for line in error_lines):
        return TooLittleMemory(f"too little memory for {size}: choose a smaller --context or fewer --slots")
    return ModelError(f"llama.cpp cannot make {size}: {first_reason(error_lines)}")


def load_file(library: Library, path: Path, *, vocab_only: bool = False) -> int:
    """Return the model's address. Raises ModelError."""
    params = library.model_params()
    params.load_mode = MMAP
    params.n_gpu_layers = 0
    params.vocab_only = vocab_only
    with errors() as error_lines:
        model: int | None = library.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        reason = first_reason(error_lines)
        reason = reason.partition("error loading model: ")[2] or reason
        if any(NO_MEMORY.search(line) for line in error_lines):
            raise TooLittleMemory(
                f"too little memory: llama.cpp cannot load {path.name} ({reason}); choose a smaller model"
            )
        raise ModelError(f"llama.cpp cannot load {path.name}: {reason}")
    return model
