"""The bare loop over llama.cpp, without server, scheduler or threads: the minimum cost of a step.

    python bench/floor.py --model model.gguf --threads 2

Sequences of equal length are filled one by one; then all advance together by their most likely tokens. The script calls
the daemon's own declarations directly, with the daemon's context parameters (eight slots, not unified, flash
attention). `decode` is llama_decode alone; `step` includes the choice of tokens and the next batch, and so is the floor
of a server's ITL with that many streams. Run it alternately with the server that is compared.

The table is for people; the very last line of stdout is one JSON object for scripts.
"""

import argparse
import ctypes
import json
from ctypes import c_int8, c_int32
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from measures import spread

from engine.backends.llamacpp import declarations
from engine.backends.llamacpp import library as libllama

SLOTS = 8
MAX_BATCH_TOKENS = 512
PROMPT_TOKENS = 96
"""Tokens of a prompt: about as many as `run.py` sends, so that a step attends to as much context."""
FLASH_ATTENTION = 1


class Loop:
    """A context over a model, and the arrays of one batch."""

    def __init__(self, library: libllama.Library, path: Path, threads: int, context: int) -> None:
        self._lib = library
        model_params = library.model_params()
        self._model = library.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise SystemExit(f"floor: llama.cpp cannot load {path}")
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

    def forget(self) -> None:
        """Clear the KV cache."""
        self._lib.llama_memory_seq_rm(self._memory, -1, -1, -1)

    def decode(self, rows: list[tuple[int, int, int]], wanted: list[int]) -> float:
        """Evaluate rows of (token, position, sequence), ascending by sequence. Return the seconds of llama_decode."""
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
            raise SystemExit(f"floor: llama_decode returned {status}")
        return took

    def most_likely(self, row: int) -> int:
        """Return the most likely token of a row."""
        pointer = self._lib.llama_get_logits_ith(self._context, row)
        return int(np.ctypeslib.as_array(pointer, (self.n_vocab,)).argmax())


def run(loop: Loop, sequences: int, tokens: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """Return the seconds of each prompt token, step and decode."""
    loop.forget()
    prefill, steps, decodes, last = [], [], [], []
    for sequence in range(sequences):
        prompt = rng.integers(1000, loop.n_vocab, PROMPT_TOKENS).tolist()
        rows = [(token, position, sequence) for position, token in enumerate(prompt)]
        prefill.append(loop.decode(rows, [len(rows) - 1]) / len(rows))
        last.append(loop.most_likely(len(rows) - 1))
    for position in range(PROMPT_TOKENS, PROMPT_TOKENS + tokens):
        begin = perf_counter()
        rows = [(token, position, sequence) for sequence, token in enumerate(last)]
        decodes.append(loop.decode(rows, list(range(sequences))))
        last = [loop.most_likely(row) for row in range(sequences)]
        steps.append(perf_counter() - begin)
    return {"prefill_per_token": prefill, "decode": decodes, "step": steps}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/floor.py", description="Measure the cost of a step without a server.")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128, help="number of steps after the prompts")
    parser.add_argument("--context", type=int, default=4096, help="tokens of a sequence")
    parser.add_argument("--libllama", type=Path, help="llama.cpp's library (default: the daemon's)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    library = libllama.load(libllama.find(args.libllama))
    loop = Loop(library, args.model, args.threads, args.context)
    rng = np.random.default_rng(0)
    run(loop, 1, 8, rng)  # warm-up
    result: dict[str, Any] = {"libllama": str(library.path), "version": library.version}
    print(f"{library.path}, {library.version}, {args.threads} threads\n")
    print(f"{'ms':<32} {'n':>6} {'p50':>10} {'p90':>10} {'p99':>10}")
    for sequences in (1, 4, 8):
        for name, seconds in run(loop, sequences, args.tokens, rng).items():
            figures = result[f"{sequences}_{name}_ms"] = spread([1000 * value for value in seconds])
            points = " ".join(f"{figures[point] or float('nan'):>10.2f}" for point in ("p50", "p90", "p99"))
            print(f"{sequences} sequences, {name:<19} {figures['n']:>6} {points}")
    print(json.dumps({key: str(value) for key, value in vars(args).items()} | result))


if __name__ == "__main__":
    main()
