"""The minimum memory that a model needs, estimated from its header before anything is loaded.

Every figure is a lower bound, so a file is refused only if it cannot run.
"""

from collections.abc import Sequence
from pathlib import Path

from engine.gguf import Header, kinds
from engine.loader.machine import free_memory, memory
from engine.model import ModelError

F16_BYTES = 2


def check(path: Path, header: Header, n_ctx: int, n_slots: int) -> None:
    """Raise ModelError if the KV cache or the weights do not fit into this machine's memory."""
    cache, free = kv_bytes(header, n_ctx * n_slots), free_memory()
    if cache > free:
        raise ModelError(
            f"too little memory: {n_slots} slots of {n_ctx} tokens need {_size(cache)} for the KV cache of "
            f"{path.name}, and {_size(free)} are free; choose a smaller --context or fewer --slots"
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


def kv_bytes(header: Header, n_tokens: int) -> int:
    """Return the size of the KV cache at 16 bits; 0 if the model has another kind of state."""
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
    if header.integer(f"{architecture}.attention.kv_lora_rank"):  # latent attention stores no separate values
        value = 0
    return n_tokens * F16_BYTES * (key + value) * sum(sorted(_kv_heads(header, layers, heads))[:layers])


def _kv_heads(header: Header, layers: int, heads: int) -> Sequence[int]:
    """Return the number of KV heads of each layer."""
    key = f"{header.architecture}.attention.head_count_kv"
    entry = header.metadata.get(key)
    if entry is not None and isinstance(entry.value, list):
        return header.integers(key)
    return [header.integer(key, heads)] * layers


def _smallest_length(header: Header, key: str, default: int) -> int:
    """Return a length, or the one of layers with an attention window if that is smaller."""
    own = header.integer(f"{header.architecture}.{key}", default)
    return min(own, header.integer(f"{header.architecture}.{key}_swa", own))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
