"""Type and size of the KV cache, from the model's header."""

from collections.abc import Sequence

from engine.gguf import Header
from engine.model import BackendOptions, ModelError

BLOCK_VALUES = 32
"""Numbers of a quantized block (ggml-common.h)."""
BLOCK_BYTES = {"f16": 64, "q8_0": 34, "q5_1": 24, "q5_0": 22, "q4_1": 20, "q4_0": 18}
"""Bytes of `BLOCK_VALUES` numbers of each type."""


def check_type(header: Header, options: BackendOptions) -> None:
    """Raise ModelError if the model's KV cache cannot have the requested type."""
    if options.kv_type == "f16":
        return
    if not options.flash_attention:
        raise ModelError(
            f"--kv-type {options.kv_type} needs flash attention: omit `--flash-attention off`, or use --kv-type f16"
        )
    for length in head_lengths(header):
        if length % BLOCK_VALUES:
            raise ModelError(
                f"--kv-type {options.kv_type} stores blocks of {BLOCK_VALUES} numbers, and an attention head of this "
                f"model has {length}: use --kv-type f16"
            )


def head_lengths(header: Header) -> Sequence[int]:
    """Return the lengths of an attention head's keys and values; empty without attention."""
    heads = header.integer(f"{header.architecture}.attention.head_count", 0)
    if not heads:
        return []
    width = header.integer(f"{header.architecture}.embedding_length", 0) // heads
    keys = [f"{header.architecture}.attention.{kind}_length" for kind in ("key", "value")]
    lengths = [header.integer(key, width) for key in keys]
    return [length for length in lengths + [header.integer(f"{key}_swa", 0) for key in keys] if length]


def n_bytes(header: Header, n_tokens: int, kv_type: str = "f16") -> int:
    """Return the size of the KV cache; 0 if the model has another kind of state."""
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
    return (
        n_tokens
        * (key + value)
        * sum(sorted(_kv_heads(header, layers, heads))[:layers])
        * BLOCK_BYTES[kv_type]
        // BLOCK_VALUES
    )


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
