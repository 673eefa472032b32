"""Limits of this machine for a model, without a server: each engine's bare loop, and the memory bandwidth.

    python bench/floor.py --model model.gguf --threads 2 | tee floor.txt
    python bench/run.py --url http://127.0.0.1:8080 --floor floor.txt

Sequences of equal length are filled one by one; then all advance together by their most likely tokens. `decode` is the
engine's decode alone; `step` includes the choice of tokens and the next batch, and so is the floor of a server's ITL
with that many streams. ctransformers has one sequence. A token needs all weights once, so the memory bandwidth divided
by their size is a limit that no engine can pass. Run it alternately with the server that is compared.

The table is for people; the very last line of stdout is one JSON object for scripts.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from environment import OtherWorkWatch
from limits import SLOTS, EngineLoop, LlamaLoop, bytes_per_token, read_rates
from measures import spread
from wording import counted

from engine import gguf
from engine.backends import selection
from engine.backends.llamacpp import library as libllama
from engine.loader.catalog import cache_folder
from engine.model import ModelError

PROMPT_TOKENS = 96
"""Tokens of a prompt: about as many as `run.py` sends, so that a step attends to as much context."""
PROMPTS = 3
"""Prompts of each sequence; the steps follow the last one."""
ENGINES = {"llamacpp": (1, 4, SLOTS), "ctransformers": (1,)}
"""Engine -> numbers of sequences."""
POINTS = ("p50", "p90", "p99")


class BareLoop(Protocol):
    """A model that decodes rows of (token, position, sequence)."""

    n_vocab: int

    def decode(self, rows: list[tuple[int, int, int]], wanted: list[int]) -> float:
        """Evaluate the rows, with logits of those at the indexes `wanted`. Return the seconds. Raises ModelError."""
        ...

    def most_likely(self, row: int) -> int:
        """Return the most likely token after a row."""
        ...

    def forget(self) -> None:
        """Forget all sequences."""

    def close(self) -> None:
        """Free the model."""


def run(loop: BareLoop, sequences: int, tokens: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """Return the seconds of each prompt token, step and decode."""
    prefill, steps, decodes, last = [], [], [], list[int]()
    for _ in range(PROMPTS):
        loop.forget()
        last.clear()
        for sequence in range(sequences):
            prompt = rng.integers(min(1000, loop.n_vocab // 2), loop.n_vocab, PROMPT_TOKENS).tolist()
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


def loops(args: argparse.Namespace, header: gguf.Header) -> Iterator[tuple[str, BareLoop]]:
    """Yield the loop of each engine that runs the file; say which does not."""
    cache = cache_folder(os.environ).parent
    for engine in args.engine or ENGINES:
        try:
            selection.choices(header, engine, args.libllama)
            if engine == "llamacpp":
                library = libllama.load(libllama.find(args.libllama))
                loop: BareLoop = LlamaLoop(library, args.model, args.threads, args.context)
            else:
                loop = EngineLoop(args.model, engine, args.threads, args.context, cache)
        except ModelError as error:
            print(f"{engine}: {error}")
            continue
        yield engine, loop
        loop.close()


def limits_of(args: argparse.Namespace, header: gguf.Header) -> dict[str, Any]:
    """Return the bandwidth, and the tokens per second that it allows."""
    rates = read_rates(args.threads, args.rounds)
    size = bytes_per_token(header)
    print(f"memory bandwidth: {max(rates) / 1e9:.2f} GB/s (median {median(rates) / 1e9:.2f}, n = {len(rates)})")
    print(f"a token needs {size / 1e6:.1f} MB of weights, so {max(rates) / size:.1f} tokens/s at most")
    return {"bandwidth_gb_per_s": max(rates) / 1e9, "mb_per_token": size / 1e6, "bound_tokens_per_s": max(rates) / size}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/floor.py", description="Measure the limits of this machine.")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="default: all that run the file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128, help="number of steps after the prompts")
    parser.add_argument("--context", type=int, default=4096, help="tokens of a sequence")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of the memory bandwidth (default: %(default)s)")
    parser.add_argument("--libllama", type=Path, help="llama.cpp's library (default: the daemon's)")
    return parser.parse_args(given)


def figures_of(engine: str, loop: BareLoop, tokens: int) -> dict[str, Any]:
    """Return the figures of an engine, and print them."""
    rng = np.random.default_rng(0)
    run(loop, 1, 8, rng)  # warm-up
    print(f"\n{engine + ', ms':<32} {'n':>6} " + " ".join(f"{point:>10}" for point in POINTS))
    figures: dict[str, Any] = {}
    for sequences in ENGINES[engine]:
        for name, seconds in run(loop, sequences, tokens, rng).items():
            points = figures[f"{sequences}_{name}_ms"] = spread([1000 * value for value in seconds])
            cells = " ".join("         -" if points[p] is None else f"{points[p]:>10.2f}" for p in POINTS)
            label = f"{counted(sequences, 'sequence')}, {name}"
            print(f"{label:<32} {points['n']:>6} {cells}")
    return figures | {"tokens_per_s": 1000 / (figures["1_step_ms"]["p50"] or 1.0)}


def main() -> None:
    args = arguments()
    watch = OtherWorkWatch()
    watch.add([])
    libllama.limit_spinning()  # as the server does
    header = gguf.read(args.model)
    result: dict[str, Any] = {"model": str(args.model), "threads": args.threads} | limits_of(args, header)
    engines = result["engines"] = {}
    for engine, loop in loops(args, header):
        found = engines[engine] = figures_of(engine, loop, args.tokens)
        share = found["of_bound"] = found["tokens_per_s"] / result["bound_tokens_per_s"]
        print(f"{found['tokens_per_s']:.1f} tokens/s: {share:.0%} of what the memory bandwidth allows")
    result["load"] = watch.report()
    for sentence in result["load"]["busy"]:
        print(f"busy machine: {sentence}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
