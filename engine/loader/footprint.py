"""The memory that a model needs, estimated from its header before anything is loaded.

The figures are those of llama.cpp, for the time when all contexts are full: pages of the KV cache and of the buffers
become resident when a step first uses them (`engine.platform.zero_pages`). `tests/system/test_memory.py` compares the
sum with the resident size of the process.
"""

import platform
from collections.abc import Container
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from engine.gguf import TENSOR_TYPES, GGUFError, Header, kinds
from engine.loader import kv_cache
from engine.loader.machine import free_memory, resident
from engine.model import BackendOptions
from engine.platform import instruction_sets
from engine.wording import counted

CONTEXT_STEP = 256
"""llama.cpp rounds a slot's context up to a multiple of this."""
STEP_TOKENS = 512
"""Tokens of a step, for which llama.cpp reserves its buffers."""
BYTES_PER_TOKEN, BYTES_PER_MERGE = 230, 270
"""Bytes of llama.cpp's vocabulary, measured with Gemma 3 (no merges) and SmolLM2."""
ENGINE_BYTES = 12_000_000
"""Bytes of llama.cpp's code, graph and other small things."""
WHEEL_BYTES = 12_000_000
"""Further bytes with llama.cpp from PyPI's xllamacpp, whose library contains llama.cpp's server too."""
SERVER_BYTES = 4_000_000
"""Bytes that the process grows by between the estimate and the first answer, besides the model."""
REPACKED = frozenset(("Q4_0", "Q4_K", "IQ4_NL"))
"""Types of weights that llama.cpp copies into another order."""


class LoadPlan(Struct, frozen=True):
    """A model, and the settings to load it with."""

    path: Path
    header: Header
    n_ctx: int
    n_slots: int
    options: BackendOptions
    process: int
    """Bytes of the process before it read the header: llama.cpp reuses the memory of the header's lists."""
    prefix_cache: int = 0
    """Bytes of the prefix cache, if a person has chosen them; its default follows from what the model leaves free."""


class Footprint(Struct, frozen=True):
    """Bytes of each part, and the settings that they follow from."""

    weights: int
    kv_cache: int
    buffers: int
    process: int
    """Size of the process without the model."""
    prefix_cache: int
    n_slots: int
    n_ctx: int
    kv_type: str
    available: int
    """Bytes that this process can have: what is free, and what it has."""
    pageable: bool = False
    """True if the machine need not have all weights in memory: a mixture of experts reads some for each token."""

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return self.weights + self.kv_cache + self.buffers + self.process + self.prefix_cache

    @property
    def required(self) -> int:
        """Bytes without which the model cannot run."""
        return self.total - self.weights * self.pageable

    @property
    def fits(self) -> bool:
        """True if the model can run with what is available."""
        return self.required <= self.available

    def __str__(self) -> str:
        cache = f"KV cache {size_text(self.kv_cache)} ({counted(self.n_slots, 'slot')} of {self.n_ctx}, {self.kv_type})"
        parts = f"weights {size_text(self.weights)}, {cache}, buffers {size_text(self.buffers)}"
        prefixes = f", prefix cache {size_text(self.prefix_cache)}" if self.prefix_cache else ""
        return f"{parts}, process {size_text(self.process)}{prefixes}"


def estimate(plan: LoadPlan) -> Footprint:
    """Return the memory that a model will take."""
    header, cells = plan.header, plan.n_slots * _rounded(plan.n_ctx)
    return Footprint(
        weights=weight_bytes(plan.path, header) + _repacked_bytes(header),
        kv_cache=kv_cache.n_bytes(header, cells, plan.options.kv_type) + kv_cache.state_bytes(header, plan.n_slots),
        buffers=_vocabulary_bytes(header) + _compute_bytes(plan) + ENGINE_BYTES + WHEEL_BYTES * (not _compiled_here()),
        process=plan.process + SERVER_BYTES,
        prefix_cache=plan.prefix_cache,
        n_slots=plan.n_slots,
        n_ctx=plan.n_ctx,
        kv_type=plan.options.kv_type,
        available=free_memory() + resident(),
        pageable=bool(header.integer(f"{header.architecture}.expert_count", 0)),
    )


def line(footprint: Footprint) -> str:
    """Return the line for the log."""
    total, free = size_text(footprint.total), size_text(footprint.available)
    return f"memory: {footprint}: {total} of {free} free, once all contexts are full"


def weight_bytes(path: Path, header: Header) -> int:
    """Return the size of all files of the model."""
    return sum(part.stat().st_size for part in kinds.parts(path, header))


def size_text(n_bytes: int) -> str:
    """Return bytes in gigabytes or megabytes."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _compute_bytes(plan: LoadPlan) -> int:
    """Return the resident bytes of the buffers for a step: activations, attention masks, logits of each slot."""
    header, name, n_cells = plan.header, plan.header.architecture, _rounded(plan.n_ctx)
    heads = _largest(header, "attention.head_count")
    width = header.integer(f"{name}.embedding_length", 0)
    activations = 4 * (2 * _largest(header, "feed_forward_length") + 4 * width)
    activations += 4 * 3 * heads * max(kv_cache.head_lengths(header), default=0)
    masks = 2 * n_cells * (2 if header.integer(f"{name}.attention.sliding_window", 0) else 1)
    scores = 0 if plan.options.flash_attention else 4 * heads * n_cells
    return STEP_TOKENS * (activations + masks + scores) + 2 * 4 * plan.n_slots * _n_texts(header, "tokens")


def _repacked_bytes(header: Header) -> int:
    """Return the size of the weights of which llama.cpp makes a copy."""
    if not repacks(platform.machine(), instruction_sets(), _compiled_here()):
        return 0
    found = (each for each in header.tensors if TENSOR_TYPES[each.type].name in REPACKED and len(each.shape) > 1)
    return sum(each.n_bytes for each in found if not each.name.startswith(("token_embd", "per_layer_token_embd")))


def _compiled_here() -> bool:
    """True if llama.cpp is a build of llama-cpp-python (`backends.llamacpp.library.find`)."""
    return find_spec("llama_cpp") is not None


def repacks(machine: str, instructions: Container[str], compiled_here: bool) -> bool:
    """True if llama.cpp copies weights on this machine.

    On Arm that needs dotprod instructions, of the CPU and of the build: PyPI's has none (ggml-cpu/repack.cpp,
    `ggml_repack_get_optimal_repack_type`).
    """
    return machine == "x86_64" or (machine == "aarch64" and compiled_here and "asimddp" in instructions)


def _vocabulary_bytes(header: Header) -> int:
    return BYTES_PER_TOKEN * _n_texts(header, "tokens") + BYTES_PER_MERGE * _n_texts(header, "merges")


def _n_texts(header: Header, key: str) -> int:
    return len(header.texts(f"tokenizer.ggml.{key}"))


def _largest(header: Header, key: str) -> int:
    """Return a number of the architecture, or the largest if each layer has its own."""
    full = f"{header.architecture}.{key}"
    try:
        return header.integer(full, 0)
    except GGUFError:
        return max(header.integers(full), default=0)


def _rounded(n_ctx: int) -> int:
    return -(-n_ctx // CONTEXT_STEP) * CONTEXT_STEP
