"""Memory that a model needs at least, reckoned from its header before anything is loaded.

Every figure is a lower bound: a file is refused only where it cannot run.
"""

from collections.abc import Sequence
from pathlib import Path

from engine.gguf import Header, kinds
from engine.loader.machine import free_memory, memory
from engine.model import ModelError

F16_BYTES = 2


def check(path: Path, header: Header, n_ctx: int, n_slots: int) -> None:
    """Raises ModelError where the KV cache or the weights do not fit into this machine."""
    cache, free = kv_bytes(header, n_ctx * n_slots), free_memory()
    if cache > free:
        raise ModelError(
            f"too little memory: {n_slots} slots of {n_ctx} tokens need {_size(cache)} for the KV cache of "
            f"{path.name}, and {_size(free)} are free; choose a smaller --context or fewer --slots"
        )
    # Of a mixture of experts only a part is read for each token: the rest may stay on the disk.
    weights, total = weight_bytes(path, header), memory()
    if weights > total and not header.integer(f"{header.architecture}.expert_count", 0):
        raise ModelError(
            f"too little memory: the weights of {path.name} are {_size(weights)}, and this machine has {_size(total)}; "
            "choose a smaller model, or one with fewer bits for each weight"
        )


def weight_bytes(path: Path, header: Header) -> int:
    """Return the size of all files of the model."""
    return sum(part.stat().st_size for part in kinds.parts(path, header))


def kv_bytes(header: Header, n_tokens: int) -> int:
    """Return the size of the KV cache at 16 bits; 0 where the model has another kind of state."""
    architecture = header.architecture
    layers = header.integer(f"{architecture}.block_count", 0) - header.integer(
        f"{architecture}.attention.shared_kv_layers", 0
    )
    if layers <= 0 or any(key.startswith((f"{architecture}.ssm.", f"{architecture}.wkv")) for key in header.metadata):
        return 0
    heads = header.integer(f"{architecture}.attention.head_count", 0)
    width = header.integer(f"{architecture}.embedding_length", 0) // max(1, heads)
    key = _smallest_length(header, "attention.key_length", width)
    value = _smallest_length(header, "attention.value_length", width)
    if header.integer(f"{architecture}.attention.kv_lora_rank"):  # latent attention keeps no values of their own
        value = 0
    return n_tokens * F16_BYTES * (key + value) * sum(sorted(_kv_heads(header, layers, heads))[:layers])


def _kv_heads(header: Header, layers: int, heads: int) -> Sequence[int]:
    """Return the heads of each layer: one number, or a list of them."""
    key = f"{header.architecture}.attention.head_count_kv"
    entry = header.metadata.get(key)
    if entry is not None and isinstance(entry.value, list):
        return header.integers(key)
    return [header.integer(key, heads)] * layers


def _smallest_length(header: Header, key: str, default: int) -> int:
    """Return a length, or that of layers with a window where it is less."""
    own = header.integer(f"{header.architecture}.{key}", default)
    return min(own, header.integer(f"{header.architecture}.{key}_swa", own))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
