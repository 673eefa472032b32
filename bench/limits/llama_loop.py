"""llama.cpp's bare loop, without a server, scheduler or threads of ours: the minimum cost of a step.

It calls the daemon's own declarations directly, with the daemon's context parameters (eight slots, not unified, flash
attention).
"""

import ctypes
from ctypes import c_float, c_int8, c_int32
from pathlib import Path
from time import perf_counter

import numpy as np

from engine.backends.llamacpp import declarations
from engine.backends.llamacpp import library as libllama
from engine.model import ModelError

SLOTS = 8
"""Sequences of the context."""
MAX_BATCH_TOKENS = 512
FLASH_ATTENTION = 1


class LlamaLoop:
    """A context over a model, and the arrays of one batch."""

    def __init__(self, library: libllama.Library, path: Path, threads: int, context: int) -> None:
        """Raises ModelError. `context`: tokens of each sequence."""
        self._lib = library
        model_params = library.model_params()
        self._model = library.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise ModelError(f"llama.cpp cannot load {path}")
        params = library.context_params()
        params.n_ctx, params.n_seq_max = context * SLOTS, SLOTS
        params.n_batch = params.n_ubatch = MAX_BATCH_TOKENS
        params.n_outputs_max_per_seq = 0
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION
        self._context = library.llama_init_from_model(self._model, params)
        self._memory = library.llama_get_memory(self._context)
        self.n_vocab: int = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))
        self._tokens, self._positions, self._sequences = ((c_int32 * MAX_BATCH_TOKENS)() for _ in range(3))
        self._pointers = (ctypes.POINTER(c_int32) * MAX_BATCH_TOKENS)(
            *(ctypes.pointer(c_int32.from_buffer(self._sequences, 4 * row)) for row in range(MAX_BATCH_TOKENS))
        )
        self._wanted = (c_int8 * MAX_BATCH_TOKENS)()
        ones = (c_int32 * MAX_BATCH_TOKENS)(*[1] * MAX_BATCH_TOKENS)
        self._batch = declarations.Batch(
            token=self._tokens, pos=self._positions, n_seq_id=ones, seq_id=self._pointers, logits=self._wanted
        )

    def close(self) -> None:
        """Free the context and the model."""
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def forget(self) -> None:
        """Clear the KV cache."""
        self._lib.llama_memory_seq_rm(self._memory, -1, -1, -1)

    def decode(self, rows: list[tuple[int, int, int]], wanted: list[int]) -> float:
        """Evaluate rows of (token, position, sequence), ascending by sequence. Return the seconds of llama_decode.

        Raises ModelError.
        """
        for row, (token, position, sequence) in enumerate(rows):
            self._tokens[row], self._positions[row], self._sequences[row] = token, position, sequence
            self._wanted[row] = 0
        for row in wanted:
            self._wanted[row] = 1
        self._batch.n_tokens = len(rows)
        begin = perf_counter()
        status = self._lib.llama_decode(self._context, self._batch)
        took = perf_counter() - begin
        if status != 0:
            raise ModelError(f"llama_decode returned {status}")
        return took

    def most_likely(self, row: int) -> int:
        """Return the most likely token of a row."""
        address = self._lib.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array((c_float * self.n_vocab).from_address(address)).argmax())
