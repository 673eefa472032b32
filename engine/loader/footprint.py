"""The minimum memory that a model needs, estimated from its header before anything is loaded.

Every figure is a lower bound, so a file is refused only if it cannot run.
"""

from pathlib import Path

from engine.gguf import Header, kinds
from engine.loader import kv_cache
from engine.loader.machine import free_memory, memory
from engine.model import ModelError


def check(path: Path, header: Header, n_ctx: int, n_slots: int, kv_type: str = "f16") -> None:
    """Raise ModelError if the KV cache or the weights do not fit into this machine's memory."""
    cache, free = kv_cache.n_bytes(header, n_ctx * n_slots, kv_type), free_memory()
    if cache > free:
        raise ModelError(
            f"too little memory: {n_slots} slots of {n_ctx} tokens need {_size(cache)} for the KV cache of "
            f"{path.name}, and {_size(free)} are free; "
            "choose a smaller --context, fewer --slots, or a smaller --kv-type"
        )
    # A mixture of experts reads only some weights for each token; the rest may stay on the disk.
    weights, total = weight_bytes(path, header), memory()
    if weights > total and not header.integer(f"{header.architecture}.expert_count", 0):
        raise ModelError(
            f"too little memory: the weights of {path.name} are {_size(weights)}, and this machine has {_size(total)}; "
            "choose a smaller model, or one with fewer bits per weight"
        )


def weight_bytes(path: Path, header: Header) -> int:
    """Return the size of all files of the model."""
    return sum(part.stat().st_size for part in kinds.parts(path, header))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
